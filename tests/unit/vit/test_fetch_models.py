"""Fetching models: from the hub, a mirror, a folder; and that nothing is ever filled in at random."""

import hashlib
import json
import shutil

import pytest
import timm
import torch
from fixtures_archives import FileServer
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models._hub import save_for_hf

from vit_plasticity import vit
from vit_plasticity.data.downloads import Source
from vit_plasticity.runtime.cli import InputError
from vit_plasticity.vit import fetch as fetch_models

TAG = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder laid out like the hub, with a small model of timm's, without its real weights."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    save_for_hf(timm.create_model(TAG), folder / "timm" / TAG, safe_serialization=True)
    return folder


def fetch_model(entry, output, **source):
    fetch_models.fetch_model("m", entry, output, Source(output.parent / "downloads", **source))
    return output


def check_model(folder, hub):
    weights = (hub / "timm" / TAG / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    note = json.loads((folder / "provenance.json").read_text())
    assert note["fingerprint"] == hashlib.sha256(weights).hexdigest()
    assert len(vit.load(folder).blocks) == 6
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "provenance.json"}


def test_a_model_from_a_mirror_folder(hub, tmp_path):
    folder = fetch_model({"timm": TAG}, tmp_path / "m", mirror=str(hub), offline=True)
    check_model(folder, hub)
    assert json.loads((folder / "provenance.json").read_text())["source"] == f"Hugging Face hub timm/{TAG}"


def test_a_model_from_a_folder(hub, tmp_path):
    check_model(fetch_model({"local": str(hub / "timm" / TAG)}, tmp_path / "m"), hub)


def test_a_model_from_the_hub(hub, tmp_path):
    with FileServer(hub) as server:
        check_model(fetch_model({"timm": TAG}, tmp_path / "m", mirror=server.url), hub)
    assert {path for path, _ in server.requests} == {
        f"/timm/{TAG}/resolve/main/{n}" for n in ("config.json", "model.safetensors")
    }
    check_model(fetch_model({"timm": TAG}, tmp_path / "again", offline=True), hub)
    (blob,) = (path.resolve() for path in (tmp_path / "downloads" / "hub").rglob("model.safetensors"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="is damaged"):
        fetch_model({"timm": TAG}, tmp_path / "third", offline=True)


@pytest.mark.parametrize("source", [{"offline": True}, {"mirror": "http://127.0.0.1:9"}, {"mirror": "/nowhere"}])
def test_an_unreachable_hub_is_said_so(tmp_path, monkeypatch, source):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between its tries
    with pytest.raises(InputError, match=rf"Put config.json and model.safetensors .* into FOLDER/timm/{TAG}"):
        fetch_model({"timm": TAG}, tmp_path / "m", **source)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("fault", [("cut", 1000), ("status", 503), ("status", 401), ("status", 404)])
def test_a_hub_that_fails_for_good_is_said_so(hub, tmp_path, monkeypatch, fault):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with (
        FileServer(hub) as server,
        pytest.raises(InputError, match=r"model.safetensors of .* cannot be had from the hub"),
    ):
        server.faults += [("none",), *[fault] * 20]
        fetch_model({"timm": TAG}, tmp_path / "m", mirror=server.url)
    assert not (tmp_path / "m").exists()


def test_a_page_in_place_of_weights_is_refused(hub, tmp_path):
    with FileServer(hub) as server, pytest.raises(InputError):
        server.faults.append(("html",))
        fetch_model({"timm": TAG}, tmp_path / "m", mirror=server.url)


def test_the_cache_of_the_hub_lies_beside_the_other_downloads_and_home_need_not_be_writable(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_XET_CACHE"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", f"/proc/{name}")
    with FileServer(hub) as server:
        check_model(fetch_model({"timm": TAG}, tmp_path / "m", mirror=server.url), hub)
    assert list((tmp_path / "downloads/hub").rglob("model.safetensors"))


@pytest.mark.parametrize("name", ["{}", "timm/{}", "hf_hub:timm/{}", "hf-hub:timm/{}"])
def test_timm_names_its_repositories_in_many_ways(name):
    assert fetch_models._repository(name.format(TAG)) == f"timm/{TAG}"


def test_a_repository_of_another_organisation(hub, tmp_path):
    shutil.copytree(hub / "timm" / TAG, tmp_path / "hub/lab/encoder")
    with FileServer(tmp_path / "hub") as server:
        check_model(fetch_model({"timm": "hf-hub:lab/encoder"}, tmp_path / "m", mirror=server.url), hub)
    check_model(fetch_model({"timm": "lab/encoder"}, tmp_path / "again", mirror=str(tmp_path / "hub")), hub)
    assert json.loads((tmp_path / "m/provenance.json").read_text())["source"] == "Hugging Face hub lab/encoder"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "resnet18"}, "resnet18' is a ResNet"),
        ({"architecture": "eva02_enormous_patch14_clip_224"}, "what can be studied is"),
        ({"architecture": "vit_small_patch16_224", "model_args": {"zzz": 1}}, "cannot be made with its model_args"),
        ({"architecture": "vit_smal_patch16_224"}, "close names: .*vit_small_patch16_224"),
        ({"model_type": "clip_vision_model"}, "'clip_vision_model' is not read.*vit_base_patch16_clip_224.openai"),
        ({"model_type": "deit"}, "'deit' is not read.*deit_base_patch16_224.fb_in1k"),
        ({"model_type": "swin"}, "'swin' is not read.*timm.list_pretrained"),
        ({"model_type": "vit", "hidden_size": 24}, "'num_hidden_layers' is missing"),
        ({"hidden_size": 24}, "names neither an architecture"),
        ([], "names neither an architecture"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_its_weights_are_had(tmp_path, config, message):
    (tmp_path / "hub/lab/encoder").mkdir(parents=True)
    (tmp_path / "hub/lab/encoder/config.json").write_text(json.dumps(config))
    with FileServer(tmp_path / "hub") as server:
        with pytest.raises(InputError, match=message):
            fetch_model({"timm": "lab/encoder"}, tmp_path / "m", mirror=server.url)
        assert [path for path, _ in server.requests] == ["/lab/encoder/resolve/main/config.json"]
    assert not (tmp_path / "m").exists()


def drop_a_tensor(folder):
    state = load_file(folder / "model.safetensors")
    del state["blocks.3.attn.qkv.weight"]
    save_file(state, folder / "model.safetensors")


def cut_the_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def another_depth(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_args": {"depth": 5}}))


def another_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "resnet18"}))


def changed_config(**changes):
    def harm(folder):
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            place, key = (config["pretrained_cfg"], path[4:]) if path.startswith("cfg_") else (config, path)
            place[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return harm


def extra_tensor(folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"blocks.9.norm1.weight": torch.ones(3)}, folder / "model.safetensors")


UNSEEN = {
    "resampled weights": (changed_config(model_args={"img_size": 96}, cfg_input_size=[3, 96, 96]), "not resampled"),
    "num_classes in two places": (changed_config(num_classes=7), "num_classes 7"),
    "another num_classes in pretrained_cfg": (changed_config(cfg_num_classes=7, num_classes=7), "num_classes 7"),
    "a tensor too many": (extra_tensor, "blocks.9.norm1.weight"),
    "squash": (changed_config(cfg_crop_mode="squash"), "crop_mode 'squash'"),
    "no pooled token": (changed_config(model_args={"global_pool": ""}), "global_pool ''"),
    "another input size": (changed_config(cfg_input_size=[3, 96, 96]), "input_size 96 x 96"),
    "another input size, of a model that takes any": (
        changed_config(model_args={"img_size": 160, "dynamic_img_size": True}, cfg_input_size=[3, 96, 96]),
        "input_size 96 x 96",
    ),
}
"""What timm takes without a word: harm to a folder, and what is said of it."""


@pytest.mark.parametrize(("harm", "message"), UNSEEN.values(), ids=UNSEEN)
def test_what_timm_takes_without_a_word_is_refused(hub, tmp_path, harm, message):
    shutil.copytree(hub / "timm" / TAG, tmp_path / "given")
    harm(tmp_path / "given")
    with pytest.raises(InputError, match=message):
        fetch_model({"local": str(tmp_path / "given")}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_images_of_another_size_and_normalisation_are_recorded_and_told_apart(hub, tmp_path):
    """Positions are timm's own resampling of those given; all other weights stay, and the fingerprint does not."""
    given = {"local": str(hub / "timm" / TAG)}
    images = {"image_size": 96, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_share": 1.0}
    images["interpolation"] = "bilinear"
    plain = fetch_model(given, tmp_path / "plain")
    changed = fetch_model(given | images, tmp_path / "changed")
    assert json.loads((changed / "provenance.json").read_text())["source"]["changed"] == images
    model, old = vit.load(changed), vit.load(plain)
    assert vit.preprocessing(model) == vit.Preprocessing(
        96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 1
    )
    own, before = model.state_dict(), old.state_dict()
    assert all(torch.equal(own[name], before[name]) for name in own if name != "pos_embed")
    sides = (old.patch_embed.grid_size, model.patch_embed.grid_size)
    expected = resample_abs_pos_embed(
        before["pos_embed"], sides[1], sides[0], num_prefix_tokens=0 if old.no_embed_class else old.num_prefix_tokens
    )
    assert torch.equal(own["pos_embed"], expected)
    normalised = fetch_model(given | {"mean": [0.4, 0.4, 0.4]}, tmp_path / "normalised")
    assert len({vit.fingerprint(folder) for folder in (plain, changed, normalised)}) == 3


def test_a_size_that_patches_do_not_divide_is_refused(hub, tmp_path):
    with pytest.raises(InputError, match=r"image_size 100 is no multiple of the model's patches of 16 pixels"):
        fetch_model({"local": str(hub / "timm" / TAG), "image_size": 100}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


CHECKPOINTS = {
    "plain.pth": lambda state: state,
    "model_best.pth.tar": lambda state: {"epoch": 3, "arch": "test_vit", "state_dict": state, "optimizer": {}},
    "parallel.pt": lambda state: {"model": {f"module.{n}": t for n, t in state.items()}},
    "compiled.pt": lambda state: {"model": {f"_orig_mod.module.{n}": t for n, t in state.items()}},
    "averaged.pt": lambda state: {"state_dict": {"head.weight": torch.zeros(1)}, "state_dict_ema": state},
    "half.pt": lambda state: {n: t.half() for n, t in state.items()},
}


@pytest.mark.parametrize(("file", "wrapped"), CHECKPOINTS.items())
def test_a_checkpoint_of_a_training_script_is_read(tmp_path, file, wrapped):
    state = {n: t.half().float() for n, t in timm.create_model("test_vit", num_classes=5).state_dict().items()}
    torch.save(wrapped(state), tmp_path / file)
    fetch_models.fetch_model("m", {"timm": "test_vit"}, tmp_path / "m", Source(tmp_path), tmp_path / file)
    loaded = vit.load(tmp_path / "m").state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[n], state[n]) for n in state)


class Harmful:
    def __reduce__(self):
        return (open, ("harm", "w"))


@pytest.mark.parametrize("content", [Harmful(), {"a": 1}, [], {"blocks.0.norm1.weight": torch.ones(3)}])
def test_a_checkpoint_of_anything_else_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=r"c\.pt"):
        fetch_models.fetch_model("m", {"timm": "test_vit"}, tmp_path / "m", Source(tmp_path), tmp_path / "c.pt")
    assert not (tmp_path / "m").exists() and not (tmp_path / "harm").exists()


def test_an_untrained_model_is_the_same_each_time(tmp_path):
    one, two = (fetch_model({"random": "test_vit"}, tmp_path / name) for name in "ab")
    assert vit.fingerprint(one) == vit.fingerprint(two)
    assert json.loads((one / "provenance.json").read_text())["source"] == "untrained test_vit, seed 0"
    with pytest.raises(InputError, match=r"close names: .*vit_base_patch16_224"):
        fetch_model({"random": "vit_base_patch16_242"}, tmp_path / "c")
    with pytest.raises(InputError, match="is a ResNet"):
        fetch_model({"random": "resnet18"}, tmp_path / "c")


@pytest.mark.parametrize(
    "harm",
    [
        drop_a_tensor,
        cut_the_weights,
        another_depth,
        another_family,
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_never_filled_in(hub, tmp_path, harm):
    shutil.copytree(hub / "timm" / TAG, tmp_path / "given")
    harm(tmp_path / "given")
    with pytest.raises(InputError):
        fetch_model({"local": str(tmp_path / "given")}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (None, "fetch takes"),
        ({}, "fetch takes"),
        ({"timm": "a", "local": "b"}, "fetch takes"),
        ({"pretrain": {}}, "fetch takes"),
        ({"timm": 3}, "must be a text"),
        ({"timm": "test_vit.r161_in1k"}, "close names: .*test_vit.r160_in1k"),
        ({"timm": "nothing_like_it"}, "has no weights 'nothing_like_it'"),
        ({"timm": "of_another/organisation"}, "Put config.json and model.safetensors .*--from pytorch_model.bin"),
        ({"timm": "resnet18.a1_in1k"}, "resnet18.a1_in1k' is a ResNet"),
        ({"timm": "swin_tiny_patch4_window7_224.ms_in1k"}, "is a SwinTransformer"),
        ({"local": "/nowhere"}, "has no config.json and no model.safetensors"),
    ],
)
def test_entries_that_name_no_model_are_refused(tmp_path, entry, message):
    with pytest.raises(InputError, match=message):
        fetch_model(entry, tmp_path / "m", mirror="/nowhere")


def test_the_models_of_the_paper_are_known_and_in_the_family():
    for name in ("vit_base_patch16_224", "vit_large_patch16_224", "vit_huge_patch14_224"):
        assert fetch_models._repository(f"{name}.orig_in21k") == f"timm/{name}.orig_in21k"


@pytest.fixture
def shipped(hub, tmp_path, monkeypatch):
    """A folder of shipped models that holds one, `small`."""
    folder = tmp_path / "shipped"
    shutil.copytree(hub / "timm" / TAG, folder / "small", ignore=shutil.ignore_patterns("*.md"))
    vit.write_provenance(folder / "small", {"pretrained_on": "drawings"})
    monkeypatch.setattr(fetch_models, "SHIPPED", folder)
    return folder


def test_a_shipped_model(hub, shipped, tmp_path):
    folder = fetch_model({"shipped": "small"}, tmp_path / "m")
    check_model(folder, hub)
    source = json.loads((folder / "provenance.json").read_text())["source"]
    assert source == {"shipped": "small", "pretrained_on": "drawings"}


def test_a_shipped_model_of_other_weights_is_refused(shipped, tmp_path):
    weights = load_file(shipped / "small" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, shipped / "small" / "model.safetensors")
    with pytest.raises(InputError, match="the shipped weights of small are damaged"):
        fetch_model({"shipped": "small"}, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_unknown_shipped_model_is_refused_with_those_that_exist(shipped, tmp_path):
    with pytest.raises(InputError, match="choose from small"):
        fetch_model({"shipped": "large"}, tmp_path / "m")
