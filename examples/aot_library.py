"""Compile ahead of time: a shared library, its C header, and the same library called from
Python."""

import tempfile
from pathlib import Path

import numpy as np

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
batch = torch.Dim("batch", min=1, max=64)

with tempfile.TemporaryDirectory() as folder:
    made = torch.aot.compile(
        model,
        torch.randn(2, 16),
        Path(folder) / "tiny.so",
        dynamic={0: {0: batch}},
        input_names=["features"],
        output_names=["scores"],
    )
    print(made.summary)
    print(next(line for line in made.header.read_text().splitlines() if "tiny_run(" in line), "...")

    library = torch.aot.load(made.path)  # needs only NumPy, ctypes and this one file of graphtorch
    print("inputs ", library.metadata["inputs"])
    print("outputs", library.metadata["outputs"])
    for size in (1, 7, 64):
        x = torch.randn(size, 16)
        (scores,) = library(x.numpy())
        difference = np.abs(scores - model(x).detach().numpy()).max()
        print(f"batch {size:2d}: {scores.shape}, largest difference {difference:.1e}")
        assert difference < 1e-5

    try:
        library(np.zeros((65, 16), np.float32))
    except ValueError as error:
        print("refused:", error)
    else:
        raise AssertionError("a batch of 65 is outside the range")
    library.close()
