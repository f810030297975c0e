#!/usr/bin/env python3
"""The main job, end to end, on real data.

Trains the LeNet of the notes on the 1,797 handwritten digits that scikit-learn ships, exports it to
ONNX, compiles it ahead of time, classifies the held-out images from C, and prints a table of
latencies.

    python3 tools/demo.py [--epochs N] [--out FOLDER]
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure("demo")

import argparse
import functools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

CLASSIFIER = _venv.ROOT / "examples" / "c" / "classify.c"
BATCH = 64
SHIFT = 4  # one pixel of the 8x8 originals


class LeNet(nn.Module):
    """conv 6@5x5, conv 16@5x5, 120-84-10, on 1x32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), (2, 2))
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def load_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and held-out images f32 [N, 1, 32, 32] in 0..1 and labels i64 [N]; a fifth is held
    out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images / 16.0, np.ones((4, 4)))[:, None].astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    held, train = order[: len(order) // 5], order[len(order) // 5 :]
    return images[train], labels[train], images[held], labels[held]


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image [N, 1, H, W] moved by up to SHIFT pixels either way: more handwriting than there
    is."""
    padded = np.pad(images[:, 0], ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(1, 2))
    down, right = rng.integers(0, 2 * SHIFT + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right][:, None].copy()


def train(model: LeNet, images: np.ndarray, labels: np.ndarray, epochs: int) -> float:
    """Train with a compiled step and return the seconds it took."""
    from tqdm import tqdm

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    @torch.compile
    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    start = time.perf_counter()
    rng = np.random.default_rng(1)
    refresh = 0.1 if sys.stderr.isatty() else 2.0  # seconds; a log file needs no animation
    with tqdm(range(epochs), desc="training", unit="epoch", mininterval=refresh, ncols=100) as bar:
        for _ in bar:
            order = rng.permutation(len(labels))
            for i in range(0, len(order) - BATCH + 1, BATCH):
                pick = order[i : i + BATCH]
                loss = step(
                    torch.from_numpy(shifted(images[pick], rng)), torch.from_numpy(labels[pick])
                )
            schedule.step()
            bar.set_postfix(
                loss=f"{loss.item():.4f}", lr=f"{schedule.get_last_lr()[0]:.1e}", refresh=False
            )
    return time.perf_counter() - start


def predict(model: LeNet, images: np.ndarray) -> np.ndarray:
    """Scores f32 [N, 10]."""
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def draw(images: np.ndarray, labels: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """A picture of 40 held-out digits with what the network says; mistakes first, in red, with the
    truth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    guesses = scores.argmax(1)
    order = np.argsort(guesses == labels, kind="stable")
    figure, axes = plt.subplots(4, 10, figsize=(10, 5.2))
    for axis, i in zip(axes.flat, order, strict=False):
        right = guesses[i] == labels[i]
        axis.imshow(images[i, 0], cmap="gray_r")
        axis.set_title(
            str(guesses[i]) if right else f"{guesses[i]}, not {labels[i]}",
            color="black" if right else "red",
            fontsize=11,
        )
        axis.axis("off")
    figure.suptitle(
        f"{np.sum(guesses == labels)} of {len(labels)} held-out digits are read right; "
        "the mistakes come first"
    )
    figure.tight_layout(h_pad=1.2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def median_us(call: Callable[[], object], seconds: float = 0.7) -> float:
    """Median time of one call in microseconds."""
    for _ in range(5):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 9:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def check_onnx(path: Path, images: np.ndarray, scores: np.ndarray) -> object:
    """Compare with ONNX Runtime and return its session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options)
    other = session.run(None, {"x": images})[0]
    difference = float(np.abs(other - scores).max())
    print(f"ONNX Runtime on {path.name}: largest difference {difference:.1e}")
    if not difference <= 1e-4:
        raise SystemExit("ONNX Runtime disagrees by more than 1e-4")
    return session


def run_from_c(out: Path, images: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Build and run the C program on the held-out images; returns its latencies in us by batch
    size."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("No C compiler (cc) here: skipping the C program")
        return {}
    images.tofile(out / "images.bin")
    labels.astype(np.int32).tofile(out / "labels.bin")
    program = out / "classify"
    subprocess.run(
        [
            compiler,
            "-O2",
            "-I",
            str(out),
            str(CLASSIFIER),
            str(out / "digits.so"),
            f"-Wl,-rpath,{out.resolve()}",
            "-o",
            str(program),
        ],
        check=True,
    )
    done = subprocess.run(
        [str(program.resolve()), str(out / "images.bin"), str(out / "labels.bin")],
        env={},
        text=True,
        capture_output=True,
    )
    if done.returncode:
        raise SystemExit(f"the C program failed: {done.stderr}")
    report, *figures = done.stdout.splitlines()
    print(report)
    return {int(batch): float(microseconds) for _, batch, microseconds in map(str.split, figures)}


def torch_latency(model: LeNet, images: np.ndarray) -> dict[int, float]:
    """PyTorch eager on the same weights, where PyTorch is installed."""
    try:
        import torch as pytorch
    except ImportError:
        return {}
    pytorch.set_num_threads(torch.get_num_threads())
    tnn = pytorch.nn
    copy = tnn.Sequential(
        tnn.Conv2d(1, 6, 5),
        tnn.ReLU(),
        tnn.MaxPool2d(2),
        tnn.Conv2d(6, 16, 5),
        tnn.ReLU(),
        tnn.MaxPool2d(2),
        tnn.Flatten(),
        tnn.Linear(400, 120),
        tnn.ReLU(),
        tnn.Linear(120, 84),
        tnn.ReLU(),
        tnn.Linear(84, 10),
    )
    weights = [pytorch.from_numpy(p.detach().numpy().copy()) for p in model.parameters()]
    with pytorch.inference_mode():
        for mine, theirs in zip(weights, copy.parameters(), strict=True):
            theirs.copy_(mine)
        batches = {n: pytorch.from_numpy(images[:n]) for n in (1, BATCH)}
        return {n: median_us(functools.partial(copy, x)) for n, x in batches.items()}


def print_table(rows: dict[str, dict[int, float]]) -> None:
    """Latencies in microseconds by batch size; a row without figures says that its runner is
    missing."""
    threads = torch.get_num_threads()
    print(f"\n{f'latency in us, {threads} threads':28s}{'batch 1':>10s}{f'batch {BATCH}':>10s}")
    for name, row in rows.items():
        figures = f"{row[1]:10.1f}{row[BATCH]:10.1f}" if row else f"{'not here':>20s}"
        print(f"{name:28s}{figures}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train, export, compile and ship a digit classifier."
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=_venv.ROOT / "out")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    train_images, train_labels, images, labels = load_data()
    print(f"{len(train_labels)} digits to learn from, {len(labels)} held out")
    model = LeNet()
    seconds = train(model, train_images, train_labels, arguments.epochs)
    model.eval()
    scores = predict(model, images)
    accuracy = float((scores.argmax(1) == labels).mean())
    print(
        f"accuracy {accuracy:.4f} on held-out digits after {arguments.epochs} epochs in "
        f"{seconds:.1f} s"
    )
    if accuracy < 0.97:
        raise SystemExit("expected at least 0.97")
    draw(images, labels, scores, out / "predictions.png")
    print(f"wrote {out / 'predictions.png'}")

    batch = torch.Dim("batch", min=1, max=512)
    example = torch.from_numpy(images[:2])
    torch.onnx.export(
        model,
        (example,),
        str(out / "digits.onnx"),
        input_names=["x"],
        output_names=["scores"],
        dynamic_axes={"x": {0: "batch"}},
    )
    session = check_onnx(out / "digits.onnx", images, scores)

    library = torch.aot.compile(
        model, (example,), str(out / "digits.so"), dynamic={"x": {0: batch}}
    )
    print(f"compiled {library.path} and {library.header.name}")
    rows: dict[str, dict[int, float]] = {}
    fast = torch.compile(model)
    with torch.no_grad():
        rows["graphtorch compiled"] = {
            n: median_us(lambda x=images[:n]: fast(torch.from_numpy(x)).numpy()) for n in (1, BATCH)
        }
    rows["graphtorch AOT from C"] = run_from_c(out, images, labels)
    rows["ONNX Runtime"] = {
        n: median_us(lambda x=images[:n]: session.run(None, {"x": x})) for n in (1, BATCH)
    }
    rows["PyTorch eager"] = torch_latency(model, images)
    print_table(rows)
    print(f"\n{library.summary}")


if __name__ == "__main__":
    main()
