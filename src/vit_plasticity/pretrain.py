"""Pre-train a small Vision Transformer from scratch on a prepared dataset, such as procedurally drawn fractals.

For the embedded study, which must do without downloaded weights. The idea that a ViT learns transferable features
from fractals is FractalDB's (Kataoka et al. 2020; Nakashima et al. 2021); the model here is far smaller than theirs.
"""

import sys

from vit_plasticity import vit
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli, folders
from vit_plasticity.runtime.device import select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training.pretraining import pretrain


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
    dataset = datasets.open_dataset(args.dataset)
    with folders.new_folder(args.output, vit.PROVENANCE) as folder:
        if folder is None:
            print(f"{args.output} was made by another process meanwhile")
            return
        # Which may take a GPU: not while another process has the folder.
        device = select_device(args.device, args.threads)
        model, accuracy = pretrain(dataset, params, device, args.threads)
        print(f"accuracy on the {len(dataset.split('test').labels)} test images of {dataset.name}: {accuracy:.4f}")
        source = {"pretrained_on": dataset.name, "data": dataset.fingerprint, "test_accuracy": accuracy}
        vit.save(model, folder, source | params.as_dict())


if __name__ == "__main__":
    sys.exit(cli.run(main))
