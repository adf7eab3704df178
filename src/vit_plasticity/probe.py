"""Linear probe: multinomial logistic regression on the frozen features of a pretrained model.

As in arXiv 2602.06883: features after the last block, pooled over tokens, scaled to unit length and standardised;
fitted on the train and validation splits together, scored once on test.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import batches
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device


@dataclass(frozen=True)
class ProbeParams:
    """pool: "mean" over tokens, or the "class" token; max_iter: of the solver; batch_size: images a forward pass."""

    pool: str = "mean"
    max_iter: int = 5000
    batch_size: int = 256


@torch.inference_mode()
def frozen_features(model, split, pool, batch_size):
    """Features of all images of a split, in its order: float32 array (n, D)."""
    preprocessing, device = vit.preprocessing(model), next(model.parameters()).device
    chunks = []
    for start in range(0, len(split.labels), batch_size):
        indices = np.arange(start, min(start + batch_size, len(split.labels)))
        pixels = batches.evaluation_pixels(split.images, preprocessing, indices).to(device)
        chunks.append(vit.features(model, batches.normalise(pixels, preprocessing), pool).float().cpu())
    return torch.cat(chunks).numpy()


def probe_accuracy(train, train_labels, test, test_labels, max_iter):
    """Accuracy on test, in [0, 1], of logistic regression fitted on train features (n, D) with labels (n,)."""
    classifier = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(max_iter=max_iter))
    return float(classifier.fit(train, train_labels).score(test, test_labels))


def main(argv=None):
    parser = cli.parser("probe", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    cli.add_table_arguments(parser, "the accuracy of the probe, one row")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = cli.params(ProbeParams, args.params)
    started = time.perf_counter()
    device = select_device(args.device, args.threads)
    dataset = datasets.open_dataset(args.dataset)
    model = vit.load(args.model, device)
    x, y = {}, {}
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        x[name] = frozen_features(model, split, params.pool, params.batch_size)
        y[name] = np.asarray(split.labels)
    train, train_labels = np.concatenate([x["train"], x["val"]]), np.concatenate([y["train"], y["val"]])
    accuracy = probe_accuracy(train, train_labels, x["test"], y["test"], params.max_iter)
    row = {
        "accuracy": accuracy,
        "n_train": len(train),
        "n_test": len(y["test"]),
        "n_features": train.shape[1],
        "duration_s": time.perf_counter() - started,
    }
    key = {"model": Path(args.model).name, "dataset": dataset.name}
    tables.write(args.output, [row], study=args.study, stage="probe", rev=args.rev, key=key, device=device_name(device))
    print(f"linear probe of {key['model']} on {dataset.name}: accuracy {accuracy:.4f}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
