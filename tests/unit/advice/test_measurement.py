"""What is measured without training: which predictors share the passes over the images."""

from vit_plasticity import vit
from vit_plasticity.advice import choices
from vit_plasticity.advice.measurement import Measurement
from vit_plasticity.data.registry import open_dataset
from vit_plasticity.vit.components import parse


def test_a_predictor_is_free_once_the_passes_that_it_reads_were_made(model_folder, dataset_folder):
    dataset = open_dataset(dataset_folder)
    model = vit.load(model_folder)
    vit.new_head(model, len(dataset.classes))
    names = ["ln1", "mha"]
    described = [choices.describe(model, name, "vit_tiny", 8) for name in names]
    measurement = Measurement(model, dataset, None, described, [parse(name) for name in names])
    free = {}
    for name, _, function in measurement.steps():
        free[name] = measurement.is_free(name)
        function()
    gradients = ["fisher", "fisher_per_parameter", "gradient_norm", "snip"]
    assert sorted(free[name] for name in gradients) == [False, True, True, True]
    assert sorted(free[name] for name in ("elasticity", "plasticity_in_situ")) == [False, True]
    assert not any(free[name] for name in ("local_plasticity", "one_step_gain", "plasticity", "linear probe", "bound"))
