"""Pre-training of a small model: all of it, by AdamW, from random weights."""

from vit_plasticity import vit
from vit_plasticity.data import batches
from vit_plasticity.training import step


def pretrain(dataset, settings, device, threads=1, report=print):
    """A model trained on the train split: (model, accuracy on the test split in [0, 1])."""
    model = vit.new_model(settings, len(dataset.classes)).to(device)
    vit.family(model).prepare(model)
    preprocessing = vit.preprocessing(model)
    batch_of = batches.TrainingBatches(
        dataset.split("train"), f"{dataset.fingerprint} {settings.seed}".encode(), preprocessing,
        batch_size=settings.batch_size, crop_scale=settings.crop_scale, flip=True, device=device, threads=threads,
    )  # fmt: skip
    optimizer = step.make_optimizer(model.parameters(), "adamw", settings.lr, weight_decay=settings.weight_decay)
    model.train()
    for number in range(settings.steps):
        lr = step.learning_rate(number, settings.steps, settings.warmup_steps, settings.lr)
        loss, _ = step.step(model, optimizer, *batch_of(number), lr=lr, clip_norm=1.0)
        if (number + 1) % 100 == 0 or number + 1 == settings.steps:
            report(f"step {number + 1}/{settings.steps} loss {loss:.3f}")
    test = dataset.split("test")
    return model.eval(), step.evaluate(model, test.images, test.labels, preprocessing)[1]
