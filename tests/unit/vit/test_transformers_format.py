"""Models of transformers become the same models of timm; transformers itself is the reference."""

import json
import shutil

import pytest
import torch
from fixtures_archives import FileServer
from safetensors.torch import load_file, save_file

from vit_plasticity import vit
from vit_plasticity.advice import inputs
from vit_plasticity.data.downloads import Source
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import fetch, preprocess, transformers_format

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
VIT = SIZES | {"intermediate_size": 60}
MODELS = {
    "vit": (transformers.ViTConfig(**VIT, num_labels=5), "ViTForImageClassification"),
    "vit without a head": (transformers.ViTConfig(**VIT, qkv_bias=False, hidden_act="gelu_new"), "ViTModel"),
    "vit_mae": (transformers.ViTMAEConfig(**VIT, mask_ratio=0.0, decoder_num_hidden_layers=1), "ViTMAEForPreTraining"),
    "vit_msn": (transformers.ViTMSNConfig(**VIT), "ViTMSNModel"),
    "dinov2": (transformers.Dinov2Config(**SIZES, mlp_ratio=2), "Dinov2Model"),
    "dinov2 with a head": (transformers.Dinov2Config(**SIZES, num_labels=5), "Dinov2ForImageClassification"),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig(**SIZES), "Dinov2WithRegistersModel"),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory):
    """(model of transformers, the folder that it was saved in)."""
    folder = tmp_path_factory.mktemp("transformers")
    config, name = MODELS[request.param]
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():  # otherwise biases are 0, and LayerScale 1
            tensor += 0.2 * torch.randn(tensor.shape)
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], size=32).save_pretrained(folder)
    return model, folder


def fetched(entry, output, **source):
    fetch.fetch_model("m", entry, output, Source(output.parent / "downloads", **source))
    return vit.load(output)


def check_same(model, theirs):
    torch.manual_seed(1)
    images = torch.randn(4, 3, 32, 32)
    base = getattr(theirs, theirs.base_model_prefix, theirs)
    with torch.no_grad():
        noise = {"noise": torch.arange(16.0).expand(4, -1)} if "MAE" in type(theirs).__name__ else {}  # keeps the order
        expected = base(images, **noise).last_hidden_state
        assert torch.allclose(model.forward_features(images), expected, atol=1e-4, rtol=1e-4)
        if model.num_classes:
            assert torch.allclose(model(images), theirs(images).logits, atol=1e-4, rtol=1e-4)


def test_a_folder_of_transformers_has_the_same_outputs(saved, tmp_path):
    theirs, folder = saved
    model = fetched({"local": str(folder)}, tmp_path / "m")
    check_same(model, theirs)
    assert model.num_classes == (5 if type(theirs).__name__ == "ViTForImageClassification" else 0)
    expected = preprocess.Preprocessing(32, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bilinear", 1.0)
    assert preprocess.preprocessing(model) == expected
    source = json.loads((tmp_path / "m/provenance.json").read_text())["source"]
    assert source.startswith(f"folder {folder} in the format of transformers")
    assert ("classifier.weight" in source) == (type(theirs).__name__ == "Dinov2ForImageClassification")


def test_a_repository_of_transformers_on_the_hub(saved, tmp_path):
    theirs, folder = saved
    shutil.copytree(folder, tmp_path / "hub/lab/encoder")
    with FileServer(tmp_path / "hub") as server:
        check_same(fetched({"timm": "lab/encoder"}, tmp_path / "m", mirror=server.url), theirs)


def test_recommend_takes_a_folder_of_transformers_and_sees_when_its_preprocessing_changes(saved, tmp_path):
    theirs, folder = saved
    given = shutil.copytree(folder, tmp_path / "theirs")
    first = inputs.model_folder(given, tmp_path / "cache")
    check_same(vit.load(first), theirs)
    assert inputs.model_folder(given, tmp_path / "cache") == first
    transformers.ViTImageProcessor(image_mean=[0.4] * 3).save_pretrained(given)
    assert inputs.model_folder(given, tmp_path / "cache") != first


def test_names_in_memory_and_in_a_folder_are_both_understood(saved):
    theirs, folder = saved
    tensors, _ = transformers_format.renamed(theirs.state_dict())
    by_folder, _ = transformers_format.renamed(load_file(folder / "model.safetensors"))
    assert tensors.keys() == by_folder.keys()
    assert all(torch.equal(tensors[name], by_folder[name]) for name in tensors)


def test_a_checkpoint_of_transformers_for_an_architecture_of_timm(tmp_path):
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 192}
    theirs = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=160, patch_size=16), False)
    theirs.save_pretrained(tmp_path / "theirs")
    torch.save(theirs.state_dict(), tmp_path / "c.pt")
    for checkpoint in ("theirs", "c.pt"):
        output = tmp_path / f"from {checkpoint}"
        fetch.fetch_model("m", {"timm": "test_vit"}, output, Source(tmp_path), tmp_path / checkpoint)
        weight = vit.load(output).patch_embed.proj.weight
        assert torch.equal(weight, theirs.embeddings.patch_embeddings.projection.weight)


def without(file, *keys, **values):
    def harm(folder):
        about = json.loads((folder / file).read_text())
        kept = {key: value for key, value in about.items() if key not in keys}
        (folder / file).write_text(json.dumps(kept | values))

    return harm


def without_a_key(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.attention.attention.key.bias")
    save_file(weights, folder / "model.safetensors")


def with_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"encoder.layer.0.attention.rotary.weight": torch.ones(1)}, folder / "model.safetensors")


def as_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


PROCESSOR = transformers_format.PROCESSOR
HARM = {
    "no processor": (lambda folder: (folder / PROCESSOR).unlink(), f"has no {PROCESSOR}.*save_pretrained"),
    "a pickle": (as_pickle, "has no model.safetensors.*--from pytorch_model.bin"),
    "another activation": (without("config.json", hidden_act="mish"), "no activation that is read"),
    "another width": (without("config.json", hidden_size=48), "weights and architecture do not fit"),
    "a coarser deviation": (without("config.json", layer_norm_eps=1e-5), "at most 1e-6"),
    "a key is missing": (without_a_key, "lack the key or the value"),
    "a tensor too many": (with_a_tensor, "rotary.weight is a tensor of transformers that has no place"),
    "other pixels": (without(PROCESSOR, rescale_factor=1.0), "rescale_factor 1.0"),
    "another interpolation": (without(PROCESSOR, resample=0), "resample 0"),
    "no mean": (without(PROCESSOR, "image_mean"), "no image_mean"),
}


@pytest.mark.parametrize(("harm", "message"), HARM.values(), ids=HARM)
def test_what_cannot_become_the_same_model_is_refused(tmp_path, harm, message):
    folder = tmp_path / "theirs"
    transformers.ViTModel(transformers.ViTConfig(**VIT)).save_pretrained(folder)
    transformers.ViTImageProcessor().save_pretrained(folder)
    harm(folder)
    with pytest.raises(InputError, match=message):
        fetched({"local": str(folder)}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("processor", "crop", "mean"),
    [
        (
            {"do_center_crop": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
            0.875,
            3,
        ),
        ({"size": 224}, 1.0, 3),
        ({"do_normalize": False, "image_mean": None}, 1.0, 0),
    ],
)
def test_how_images_are_prepared(processor, crop, mean):
    given = {"image_mean": [3.0] * 3, "image_std": [1.0] * 3} | processor
    found = transformers_format.images(given, (32, 32))
    assert found["crop_pct"] == crop and found["mean"] == (mean,) * 3 and found["std"] == (1.0,) * 3
