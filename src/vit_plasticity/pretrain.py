"""Pre-train a small Vision Transformer from scratch on a prepared dataset, such as procedurally drawn fractals.

For the embedded study, which must do without downloaded weights. The idea that a ViT learns transferable features
from fractals is FractalDB's (Kataoka et al. 2020; Nakashima et al. 2021); the model here is far smaller than theirs.
"""

import sys

import timm
import torch

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli, folders
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.runtime.device import select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training import step as training


def build(params, n_classes):
    """A timm ViT with random weights (seeded), whose images are normalised to [-1, 1].

    Its head reads the mean of the tokens, which small models learn sooner than the class token (Beyer et al. 2022).
    """
    torch.manual_seed(params.seed)
    try:
        model = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, num_classes=n_classes, img_size=params.image_size,
            patch_size=params.patch_size, embed_dim=params.embed_dim, depth=params.depth, num_heads=params.num_heads,
            global_pool="avg",
        )  # fmt: skip
    except (AssertionError, ValueError, RuntimeError) as error:
        raise InputError(f"no model can be built from {params}: {error}") from error
    half, size = (0.5, 0.5, 0.5), (3, params.image_size, params.image_size)
    model.pretrained_cfg |= {
        "input_size": size,
        "mean": half,
        "std": half,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "tag": "",
        "license": "",
    }
    return model


def pretrain(dataset, params, device, threads=1, report=print):
    """A model trained on the train split: (model, accuracy on the test split in [0, 1])."""
    model = build(params, len(dataset.classes)).to(device)
    vit.family(model).prepare(model)
    preprocessing = vit.preprocessing(model)
    batch_of = batches.TrainingBatches(
        dataset.split("train"), f"{dataset.fingerprint} {params.seed}".encode(), preprocessing,
        batch_size=params.batch_size, crop_scale=params.crop_scale, flip=True, device=device, threads=threads,
    )  # fmt: skip
    optimizer = training.make_optimizer(model.parameters(), "adamw", params.lr, weight_decay=params.weight_decay)
    model.train()
    for step in range(params.steps):
        lr = training.learning_rate(step, params.steps, params.warmup_steps, params.lr)
        loss, _ = training.step(model, optimizer, *batch_of(step), lr=lr, clip_norm=1.0)
        if (step + 1) % 100 == 0 or step + 1 == params.steps:
            report(f"step {step + 1}/{params.steps} loss {loss:.3f}")
    test = dataset.split("test")
    return model.eval(), training.evaluate(model, test.images, test.labels, preprocessing)[1]


def main(argv=None):
    parser = cli.parser("pretrain", __doc__)
    parser.add_argument("--dataset", required=True, help="dataset folder to train on")
    parser.add_argument(
        "--params", default="{}", metavar="JSON", help="settings as one JSON object; what is left out keeps its default"
    )
    parser.add_argument("--output", required=True, help="model folder to write (timm's local-directory format)")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = settings("pretrain", args.params)
    device = select_device(args.device, args.threads)
    dataset = datasets.open_dataset(args.dataset)
    with folders.new_folder(args.output, vit.PROVENANCE) as folder:
        if folder is None:
            print(f"{args.output} was made by another process meanwhile")
            return
        model, accuracy = pretrain(dataset, params, device, args.threads)
        print(f"accuracy on the {len(dataset.split('test').labels)} test images of {dataset.name}: {accuracy:.4f}")
        source = {"pretrained_on": dataset.name, "data": dataset.fingerprint, "test_accuracy": accuracy}
        vit.save(model, folder, source | params.as_dict())


if __name__ == "__main__":
    sys.exit(cli.run(main))
