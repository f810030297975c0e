"""Cases of the libraries that train, store and log: einops, safetensors, tensorboard, accelerate,
lightning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from libraries.running import fill, integers, rand


def einops_(torch: Any) -> Any:
    """Rearranging, as functions and layers, with a gradient, and compiled."""
    from einops import einsum, pack, rearrange, reduce, repeat, unpack
    from einops.layers.torch import EinMix, Rearrange, Reduce

    x = rand(torch, 2, 6, 4, 4)
    packed, shapes = pack([x, rand(torch, 2, 3, 4, 4)], "b * h w")
    mix = fill(torch, EinMix("b c h w -> b h w o", weight_shape="c o", bias_shape="o", c=6, o=3))
    net = torch.nn.Sequential(
        Rearrange("b (c d) h w -> b c (h d) w", d=2), Reduce("b c h w -> b c", "mean")
    )
    y = x.clone().requires_grad_()
    rearrange(y, "b (c d) h w -> (b d) c (h w)", d=2).square().sum().backward()
    short = torch.compile(
        lambda t: reduce(rearrange(t, "b c h w -> b (h w) c"), "b n c -> b c", "max")
    )
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
    """Scalars, a histogram, an image, a text, a curve, a graph; read again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for step in range(3):
                writer.add_scalar("a", torch.tensor(step * 0.5), step)
            writer.add_histogram("h", rand(torch, 100), 0)
            writer.add_image("i", rand(torch, 3, 8, 8).sigmoid(), 0)
            writer.add_text("t", "hello", 0)
            writer.add_graph(
                torch.nn.Sequential(torch.nn.Linear(8, 2), torch.nn.ReLU()), rand(torch, 1, 8)
            )
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
            str(
                sorted(
                    {
                        n.name.rpartition("/")[0]
                        for n in events.Graph().node
                        if n.op != "prim::GetAttr"
                    }
                )
            ),
        ]


def _loader(torch: Any) -> Any:
    data = torch.utils.data.TensorDataset(rand(torch, 16, 4), rand(torch, 16, 1, seed=1))
    return torch.utils.data.DataLoader(data, batch_size=4)


def _shuffled(torch: Any) -> Any:
    data = torch.utils.data.TensorDataset(rand(torch, 24, 4), rand(torch, 24, 1, seed=1))
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


def _net(torch: Any) -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
    )


def accelerate_(torch: Any) -> Any:
    """A loop with accumulated gradients, clipping, dropout, a scheduler, and a stored state gone on
    from."""
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    set_seed(3)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = _net(torch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    model, optimizer, loader, schedule = accelerator.prepare(
        model, optimizer, _shuffled(torch), schedule
    )

    def epoch() -> list[Any]:
        losses = []
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = ((model(x) - y) ** 2).mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(accelerator.gather(loss.detach()))
        return losses

    losses = [epoch(), epoch()]
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)
        third = epoch()
        accelerator.load_state(folder)
        again = epoch()
    same = [bool((a == b).all()) for a, b in zip(third, again, strict=True)]
    return [
        losses,
        third,
        same,
        accelerator.unwrap_model(model).state_dict(),
        accelerator.num_processes,
    ]


def _lightning_model(torch: Any) -> Any:
    """A module whose steps are logged, with the losses it saw."""
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self, rate: float = 0.01) -> None:
            super().__init__()
            self.net = _net(torch)
            self.save_hyperparameters()
            self.losses: list[float] = []

        def training_step(self, batch: Any, number: int) -> Any:
            loss = ((self.net(batch[0]) - batch[1]) ** 2).mean()
            self.log("loss", loss, prog_bar=True)
            self.losses.append(loss.item())
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val", ((self.net(batch[0]) - batch[1]) ** 2).mean(), prog_bar=True)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.rate)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    return Model


def _lightning_trainer(epochs: int, folder: str) -> Any:
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar

    best = ModelCheckpoint(folder, monitor="val", save_top_k=1, save_last=True)
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[best, EarlyStopping("val", patience=5), TQDMProgressBar()],
        gradient_clip_val=0.5,
        default_root_dir=folder,
        accumulate_grad_batches=2,
    )


def lightning_(torch: Any) -> Any:
    """`Trainer.fit` of three epochs with dropout, shuffles, validation, early stopping, a progress
    bar, a scheduler, clipping and checkpoints, which are read and gone on from."""
    import contextlib
    import io
    import logging

    import pytorch_lightning as lightning

    Model = _lightning_model(torch)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    lightning.seed_everything(7)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()) as shown,
    ):
        fit = _lightning_trainer(3, folder)
        model = Model()
        fit.fit(model, _shuffled(torch), _loader(torch))
        best = Model.load_from_checkpoint(fit.checkpoint_callback.best_model_path)
        further = Model()
        more = _lightning_trainer(4, folder)
        more.fit(further, _shuffled(torch), _loader(torch), ckpt_path=f"{folder}/last.ckpt")
        return {
            "losses": model.losses,
            "best": best.state_dict(),
            "score": fit.checkpoint_callback.best_model_score,
            "validated": fit.validate(model, _loader(torch), verbose=False),
            "steps": [fit.global_step, more.global_step, len(further.losses)],
            "further": further.losses,
            "bar": "Epoch 2: 100%" in shown.getvalue(),
        }


def trainer(torch: Any) -> Any:
    """transformers' own `Trainer`: three epochs with dropout, shuffles, a schedule and evaluation;
    then from the checkpoint in the middle to the end again."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=30,
        max_position_embeddings=16,
    )
    rows = [
        {"input_ids": integers(torch, 30, 4, seed=i), "labels": torch.tensor(i % 2)}
        for i in range(16)
    ]

    def made(folder: str) -> Any:
        settings = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=4,
            num_train_epochs=3,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            warmup_steps=2,
            weight_decay=0.01,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="steps",
            save_steps=6,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=5,
        )
        transformers.set_seed(5)
        model = transformers.BertForSequenceClassification(config)
        return transformers.Trainer(model, settings, train_dataset=rows, eval_dataset=rows[:6])

    def logged(run: Any) -> Any:
        kept = ("loss", "eval_loss", "learning_rate", "grad_norm", "epoch")
        return [{k: v for k, v in line.items() if k in kept} for line in run.state.log_history]

    with tempfile.TemporaryDirectory() as folder:
        whole = made(folder)
        loss = whole.train().training_loss
        resumed = made(folder)
        resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-6")
    return [
        loss,
        logged(whole),
        logged(resumed),
        whole.model.state_dict(),
        resumed.model.state_dict(),
    ]


CASES: dict[str, Callable[[Any], Any]] = {
    "einops": einops_,
    "safetensors": safetensors_,
    "tensorboard": tensorboard_,
    "accelerate": accelerate_,
    "lightning": lightning_,
    "trainer": trainer,
}
