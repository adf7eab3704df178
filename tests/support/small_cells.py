"""Small cells, fine-tuned by their stage, for tests of what is made of finished ones."""

import json

from vit_plasticity import finetune

SETTINGS = {"steps": 12, "evaluation_period": 4, "batch_size": 8, "warmup_steps": 2, "lrs": [0.05, 0.2]}
DIVERGES = {"optimizer": "adamw", "lrs": [1000], "weight_decay": 1000}
"""Changes of the settings with which every run diverges."""


def finetuned(folder, model_folder, dataset_folder, component="mha", seed=0, candidates=(), **changes):
    """Fine-tune a cell; the path of its runs.parquet, beside which its other files lie.

    candidates: of an adaptive component; changes: of SETTINGS.
    """
    output = folder / component / f"seed={seed}" / "runs.parquet"
    given = {"model": model_folder, "dataset": dataset_folder, "component": component, "seed": seed, "output": output}
    arguments = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    arguments += ["--candidates", *candidates] if candidates else []
    finetune.main([*arguments, "--params", json.dumps(SETTINGS | changes)])
    return output
