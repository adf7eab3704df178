"""Linear probe: multinomial logistic regression on the frozen features of a pretrained model.

Features after the last block, or where `tap` says, pooled over tokens, scaled to unit length and standardised, as in
arXiv 2602.06883; fitted on the images that cells train on, unless `fit_on` adds the validation split, and scored once
on test.
"""

import sys
from pathlib import Path

from vit_plasticity import vit
from vit_plasticity.analysis import tables
from vit_plasticity.data import registry as datasets
from vit_plasticity.runtime import cli
from vit_plasticity.runtime.device import device_name, select_device
from vit_plasticity.study.config import settings
from vit_plasticity.training.probe import probe


def main(argv=None):
    parser = cli.parser("probe", __doc__)
    parser.add_argument("--model", required=True, help="model folder (timm's local-directory format)")
    parser.add_argument("--dataset", required=True, help="dataset folder")
    cli.add_table_arguments(parser, "the accuracy of the probe, one row")
    cli.add_compute_arguments(parser)
    args = parser.parse_args(argv)
    params = settings("probe", args.params)
    device = select_device(args.device, args.threads)
    dataset = datasets.open_dataset(args.dataset)
    model = vit.load(args.model, device)
    row = probe(model, dataset, params)
    key = {"model": Path(args.model).name, "dataset": dataset.name}
    about = {"study": args.study, "stage": "probe", "rev": args.rev, "key": key, "device": device_name(device)}
    inputs = {"model": vit.fingerprint(args.model), "dataset": dataset.fingerprint}
    tables.write(args.output, [row], settings=params.as_dict(), inputs=inputs, **about)
    print(f"linear probe of {key['model']} on {dataset.name}: accuracy {row['accuracy']:.4f}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
