"""Compile for GPUs ahead of time: a library that needs a driver alone, NVIDIA's or emulated."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.aot import loader

# Where the library runs: NumPy, the loader's one file, and a driver. No graphtorch.
PROGRAM = """
import sys
import numpy as np
import loader

with loader.load(sys.argv[1]) as model:
    print("compiled for", ", ".join(model.metadata["architectures"]))
    # an array is copied to the GPU; a tensor of the GPU's is read where it is
    np.save("scores.npy", model(np.load("x.npy"))[0])
assert not [name for name in sys.modules if name.startswith("graphtorch")]
"""

emulated = not torch.cuda.is_available() or os.environ.get("GRAPHTORCH_CUDA") == "emulated"
if emulated and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
    print("there is neither a GPU nor a C++ compiler to emulate one")
    sys.exit()

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)).eval()
x = torch.randn(7, 16)
with tempfile.TemporaryDirectory() as name:
    folder, environment = Path(name), dict(os.environ)
    made = torch.aot.compile(
        model,
        torch.zeros(2, 16),
        folder / "tiny.so",
        device="cuda",
        architectures=["emulated"] if emulated else None,
        dynamic={0: {0: torch.Dim("batch", min=1, max=64)}},
    )
    print(made.summary)
    if emulated:  # libcuda.so.1 for machines without a GPU
        torch.aot.emulated_driver(folder)
        environment["LD_LIBRARY_PATH"] = str(folder)
    shutil.copy(loader.__file__, folder)
    np.save(folder / "x.npy", x.numpy())
    command = [sys.executable, "-c", PROGRAM, str(made.path)]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    print(done.stdout, end="")
    difference = np.abs(np.load(folder / "scores.npy") - model(x).detach().numpy()).max()
print(f"largest difference {difference:.1e}")
assert difference < 1e-5
