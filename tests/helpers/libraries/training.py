"""Cases of the libraries that train, store and log: einops, safetensors, tensorboard, accelerate,
lightning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from libraries.running import fill, integers, rand


def einops_(torch: Any) -> Any:
    """Rearranging, as functions and layers, with a gradient, and compiled."""
    from einops import einsum, pack, rearrange, reduce, repeat, unpack
    from einops.layers.torch import EinMix, Rearrange, Reduce

    x = rand(torch, 2, 6, 4, 4)
    packed, shapes = pack([x, rand(torch, 2, 3, 4, 4)], "b * h w")
    mix = fill(torch, EinMix("b c h w -> b h w o", weight_shape="c o", bias_shape="o", c=6, o=3))
    net = torch.nn.Sequential(Rearrange("b (c d) h w -> b c (h d) w", d=2), Reduce("b c h w -> b c", "mean"))
    y = x.clone().requires_grad_()
    rearrange(y, "b (c d) h w -> (b d) c (h w)", d=2).square().sum().backward()
    short = torch.compile(lambda t: reduce(rearrange(t, "b c h w -> b (h w) c"), "b n c -> b c", "max"))
    return [
        rearrange(x, "b c h w -> b (h w) c"),
        reduce(x, "b c (h 2) (w 2) -> b c h w", "max"),
        repeat(x, "b c h w -> b c (h 2) w"),
        einsum(x, x, "b c h w, b d h w -> b c d"),
        unpack(packed, shapes, "b * h w"),
        mix(x),
        net(x),
        y.grad,
        short(x),
        short(x),
    ]


def safetensors_(torch: Any) -> Any:
    """Files of tensors, whole and in slices, and of modules."""
    from safetensors import safe_open
    from safetensors.torch import load_file, load_model, save_file, save_model

    tensors = {
        "a": rand(torch, 3, 4),
        "b": torch.arange(5),
        "h": rand(torch, 4).half(),
        "c": rand(torch, 3).bfloat16(),
        "m": torch.tensor([True, False]),
    }
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/a.safetensors"
        save_file(tensors, place, metadata={"x": "y"})
        with safe_open(place, framework="pt") as file:
            part, note = file.get_slice("a")[1:, :2], file.metadata()["x"]
        save_model(fill(torch, torch.nn.Linear(3, 2)), place + "m")
        model = torch.nn.Linear(3, 2)
        load_model(model, place + "m")
        found = {k: v.clone() for k, v in load_file(place).items()}
    return [found, part, note, model.state_dict()]


def tensorboard_(torch: Any) -> Any:
    """Scalars, a histogram, an image, a text, a curve, hyperparameters; read again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for step in range(3):
                writer.add_scalar("a", torch.tensor(step * 0.5), step)
            writer.add_histogram("h", rand(torch, 100), 0)
            writer.add_image("i", rand(torch, 3, 8, 8).sigmoid(), 0)
            writer.add_text("t", "hello", 0)
            writer.add_pr_curve("p", torch.tensor([0, 1, 1]), torch.tensor([0.2, 0.7, 0.4]), 0)
        events = EventAccumulator(folder)
        events.Reload()
        histogram = events.Histograms("h")[0].histogram_value
        tags = dict(sorted(events.Tags().items()))
        return [
            str(tags),
            [s.value for s in events.Scalars("a")],
            list(histogram.bucket),
            events.Tensors("p")[0].tensor_proto.float_val[:],
        ]


def _loader(torch: Any) -> Any:
    data = torch.utils.data.TensorDataset(rand(torch, 16, 4), rand(torch, 16, 1, seed=1))
    return torch.utils.data.DataLoader(data, batch_size=4)


def accelerate_(torch: Any) -> Any:
    """A loop with accumulated gradients, clipping, a scheduler and a stored state."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = fill(torch, torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, _loader(torch), schedule)
    losses = []
    for _ in range(2):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = ((model(x) - y) ** 2).mean()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(accelerator.gather(loss.detach()))
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)
        accelerator.load_state(folder)
    return [losses, accelerator.unwrap_model(model).state_dict(), accelerator.num_processes]


def lightning_(torch: Any) -> Any:
    """`Trainer.fit` with validation, a scheduler, clipping and a checkpoint that is read again."""
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            parts = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
            self.net = fill(torch, torch.nn.Sequential(*parts))
            self.save_hyperparameters()

        def training_step(self, batch: Any, number: int) -> Any:
            loss = ((self.net(batch[0]) - batch[1]) ** 2).mean()
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val", ((self.net(batch[0]) - batch[1]) ** 2).mean())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            gradient_clip_val=0.5,
            default_root_dir=folder,
            accumulate_grad_batches=2,
        )
        model = Model()
        trainer.fit(model, _loader(torch), _loader(torch))
        again = Model.load_from_checkpoint(next(Path(folder).rglob("*.ckpt")))
        return [
            model.state_dict(),
            again.state_dict(),
            trainer.validate(model, _loader(torch), verbose=False),
            trainer.global_step,
        ]


def trainer(torch: Any) -> Any:
    """transformers' own `Trainer`."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=30,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = fill(torch, transformers.BertForSequenceClassification(config))
    rows = [{"input_ids": integers(torch, 30, 4, seed=i), "labels": torch.tensor(i % 2)} for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=8,
            num_train_epochs=3,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        done = transformers.Trainer(model, settings, train_dataset=rows).train()
    return [done.training_loss, model.state_dict()]


CASES: dict[str, Callable[[Any], Any]] = {
    "einops": einops_,
    "safetensors": safetensors_,
    "tensorboard": tensorboard_,
    "accelerate": accelerate_,
    "lightning": lightning_,
    "trainer": trainer,
}
