"""The training step: against timm's own model in a plain torch loop, in float32; memory by component."""

import functools
import re
import time

import timm
import torch

from benchmarks import plain
from benchmarks.data import demo_model
from benchmarks.harness import at_least, at_most, gpu, interleaved, not_measured, peak_mb, ratios, stated
from vit_plasticity import vit
from vit_plasticity.runtime.device import select_device
from vit_plasticity.training import step as training
from vit_plasticity.vit.components import MEASURABLE

SIZES = {
    "the demo study's model, batch 32": (demo_model, 32, 40, ("full", "mha", "ln1"), 1.5),
    "ViT-Tiny, batch 8": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=10), 8, 4, ("full",), 1),
    "ViT-Base, batch 4": (lambda: timm.create_model("vit_base_patch16_224", num_classes=10), 4, 2, ("full", "mha"), 1),
}
"""Name → how to make the model, batch size, repetitions, what trains, the goal."""
KINDS = {
    "matrix products and convolutions": r"mkldnn::_linear_pointwise|aten::(bmm|mm|addmm|baddbmm|.*conv.*)",
    "copies and layouts": r"aten::(copy_|clone|contiguous|fill_|zero_|cat|.*empty.*)",
    "GELU, softmax, LayerNorm, loss": r"aten::(gelu|.*softmax|native_layer_norm|nll_loss).*",
    "sums, additions, products by element": r"aten::(sum|add_?|mul_?|div_?|mean|.*norm|sub_?|clamp.*|reciprocal)",
    "the optimizer": r"aten::_fused_.*|Optimizer.*",
}
"""Kind of work → the operations that torch's profiler counts to it, the first that fits."""


def measure():
    select_device("cpu", threads=1)
    results = []
    for size, (make, batch_size, repetitions, trained, goal) in SIZES.items():
        for component in trained:
            results.append(on_cpu(f"{size}, {component}", make, batch_size, component, repetitions, goal))
    results += [*where_it_goes(), compiled_on_cpu()]
    if device := gpu():
        results += on_gpu(device)
        batch_size = 512
    else:
        what = "ViT-Base, batch 512, on a GPU"
        results.append(not_measured(f"Training step, {what}, bf16", "at least 8 ×"))
        results.append(not_measured(f"Training step, {what}, bf16 and compiled", ""))
        batch_size = 8
    for component in (*MEASURABLE, "embed", "full") if gpu() else ("ln1", "full"):
        megabytes = peak_mb(prepare_step, "vit_base_patch16_224", component, batch_size)
        results.append(stated(f"Memory of a step, ViT-Base, batch {batch_size}, {component}", [megabytes], "MB"))
    return [*results, vit_huge()]


def where_it_goes(steps=40):
    """Per cent of a training step of the demo study's model by kind of work, as torch's profiler sees it."""
    size = "the demo study's model, batch 32"
    make, batch_size, *_ = SIZES[size]
    step = _our_step(make(), batch_size, "full")
    for _ in range(5):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        whole = 1e6 * (time.perf_counter() - started)
    left, found = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}, {}
    for kind, pattern in KINDS.items():
        names = [name for name in left if re.fullmatch(pattern, name)]
        found[kind] = sum(left.pop(name) for name in names)
    found["Python, autograd, other operations"] = whole - sum(found.values())
    return [stated(f"Training step, {size}, full: {kind}", [100 * t / whole], "%") for kind, t in found.items()]


def on_cpu(what, make, batch_size, component, repetitions, goal):
    torch.manual_seed(0)
    plainly, state = _plain_step(make(), batch_size, component)
    ours = _our_step(make(), batch_size, component, state=state)
    seconds = interleaved(repetitions, {"plain": plainly, "ours": ours}, threads=1)
    note = ", ".join(f"{1e3 * min(values):.1f} ms {name}" for name, values in seconds.items())
    return at_least(f"Training step, {what}", goal, ratios(seconds, "plain", "ours"), note=note)


def compiled_on_cpu():
    """What `finetune.compile` would gain on a CPU, against ours without it."""
    size = "ViT-Tiny, batch 8"
    make, batch_size, repetitions, *_ = SIZES[size]
    functions = {
        "ours": _our_step(make(), batch_size, "full"),
        "compiled": _our_step(make(), batch_size, "full", compiled=True),
    }
    seconds = interleaved(repetitions, functions, threads=1)
    return stated(f"Training step, {size}, full: compiled, against ours", ratios(seconds, "ours", "compiled"), "×")


def on_gpu(device):
    """Plain float32 against ours, in the settings that a config can choose, and compiled block by block."""
    make = SIZES["ViT-Base, batch 4"][0]
    results, what = [], "Training step, ViT-Base, batch 512, on the GPU"
    for component in ("full", "mha", "ln1"):
        plainly, _ = _plain_step(make(), 512, component, device)
        functions = {
            "plain": plainly,
            "fp32": _our_step(make(), 512, component, device),
            "bf16": _our_step(make(), 512, component, device, precision="bf16"),
            "bf16 and compiled": _our_step(make(), 512, component, device, precision="bf16", compiled=True),
        }
        seconds = interleaved(5, functions, device, warm_up=3)
        for name in ("fp32", "bf16", "bf16 and compiled"):
            values = ratios(seconds, "plain", name)
            label = f"{what}, {component}, {name}"
            results.append(
                at_least(label, 8, values) if name == "bf16" and component == "full" else stated(label, values, "×")
            )
    return results


def vit_huge(at_once=64):
    """Memory of training all of ViT-Huge on so many images at a time, as the study paper_model_size does.

    On a CPU it is added up: weights, gradients, momentum, and what each image keeps for the backward pass, in float32.
    """
    name = "vit_huge_patch14_224"
    if gpu():
        gigabytes = peak_mb(prepare_step, name, "full", at_once, 1, "bf16") * 2**20 / 1e9
        gigabytes, note = gigabytes + _gigabytes(timm.create_model(name).parameters()), "bf16"
    else:
        model = vit.prepare(timm.create_model(name, num_classes=10)).train()
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            vit.logits(model, _batch(model, 1, "cpu")[0])
        for parameter in model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        weights, image = _gigabytes(model.parameters()), _gigabytes(kept.values())
        gigabytes = 3 * weights + at_once * image
        note = f"float32: {weights:.2f} GB each for weights, gradients and momentum, {image:.2f} GB an image"
    return at_most(f"Memory of ViT-Huge, full, {at_once} images at a time", 80, [gigabytes], "GB", note=note)


def _gigabytes(tensors):
    return sum(t.untyped_storage().nbytes() for t in tensors) / 1e9


def _plain_step(model, batch_size, component, device="cpu"):
    model = model.to(device).train()
    vit.train_only(model, component)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    images, labels = _batch(model, batch_size, device)
    return functools.partial(plain.training_step, model, optimizer, images, labels), model.state_dict()


def _our_step(model, batch_size, component, device="cpu", *, precision="fp32", accumulation=1, recompute=False,
              compiled=False, state=None):  # fmt: skip
    model = vit.prepare(model.to(device)).train()
    if state:
        model.load_state_dict(state)
    vit.train_only(model, component)
    if compiled:
        vit.compile_blocks(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = training.make_optimizer(trained, "sgd", 0.01)
    images, labels = _batch(model, batch_size, device)
    return functools.partial(
        training.step, model, optimizer, images.contiguous(memory_format=torch.channels_last), labels, lr=0.01,
        clip_norm=1.0, precision=precision, accumulation=accumulation, recompute=recompute,
    )  # fmt: skip


def _batch(model, n, device):
    size = model.patch_embed.img_size[0]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=generator).to(device)
    return images, torch.randint(0, 10, (n,), generator=generator).to(device)


def prepare_step(name, component, batch_size, accumulation=1, precision="fp32", recompute=False):
    """For `peak_mb`: a first step, which makes gradients and the optimizer's buffers."""
    return _our_step(
        timm.create_model(name, num_classes=10), batch_size, component, gpu() or "cpu",
        precision=precision, accumulation=accumulation, recompute=recompute,
    )  # fmt: skip
