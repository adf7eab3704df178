"""The chosen run of a cell, put together again from the pretrained model and `trained.safetensors`, on other test
splits of the same classes."""

from vit_plasticity import vit
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.training import checkpoints, step
from vit_plasticity.vit import adapters


def evaluate(model_folder, trained, datasets, device):
    """The chosen run of a cell on the test splits of datasets: rows, as dicts, of evaluated_on, lr, accuracy, n_test.

    trained: the path of `trained.safetensors`, which says at which learning rate, in which precision and for which
    classes its run was trained; in that precision it is evaluated. lr and accuracy are null where all runs diverged.
    Raises InputError, before any image is read, for a damaged file and for a dataset of other classes.
    """
    tensors, run = read(trained)
    for dataset in datasets if run else ():
        _check_classes(dataset, run["classes"])
    if run:
        model = rebuild(model_folder, tensors, run, device)
        preprocessing = vit.preprocessing(model)
    rows = []
    for dataset in datasets:
        split, row = dataset.split("test"), {"evaluated_on": dataset.name, "lr": run.get("lr"), "accuracy": None}
        if run:
            found = step.evaluate(model, split.images, split.labels, preprocessing, precision=run["precision"])
            row["accuracy"] = found[1]
        rows.append(row | {"n_test": len(split.labels)})
    return rows


def read(trained):
    """(tensors, run) of a `trained.safetensors`: a dict by name, and a dict of its run's lr, precision and classes.

    Both are empty where all runs diverged. Raises InputError for a damaged file.
    """
    try:
        tensors, run = checkpoints.read(trained)
        return dict(tensors), run
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{trained} cannot be used ({error}); delete it, and fine-tune the cell again") from error


def rebuild(model_folder, tensors, run, device):
    """The fine-tuned model on a device, from its pretrained one and what `read` returned."""
    model = restore(vit.load(model_folder), tensors, len(run["classes"]))
    return vit.prepare(model.to(device))


def restore(model, trained, n_classes):
    """Give `model` a head of `n_classes` and the fine-tuned tensors (a dict), in place; returns it.

    Raises InputError for tensors that the model lacks, of another shape, or without the head.
    """
    vit.new_head(model, n_classes)
    adapters.add_for(model, trained)
    own = model.state_dict()
    wrong = [name for name, tensor in trained.items() if name not in own or own[name].shape != tensor.shape]
    if wrong or "head.weight" not in trained:
        raise InputError(f"the fine-tuned tensors do not fit the model: {', '.join(wrong) or 'head.weight is missing'}")
    model.load_state_dict(trained, strict=False)
    return model


def _check_classes(dataset, classes):
    found, allowed = list(dataset.classes), list(classes)
    if found == allowed:
        return
    if len(found) != len(allowed):
        differs = f"it has {len(found)} classes, the cell was trained on {len(allowed)}"
    else:
        number = next(i for i, pair in enumerate(zip(found, allowed, strict=True)) if len({*pair}) > 1)
        differs = f"its class {number} is {found[number]!r}, where the cell was trained {allowed[number]!r} is"
    raise InputError(
        f"{dataset.name} cannot be evaluated on: {differs}; evaluate on a dataset of the same classes in the same order"
    )
