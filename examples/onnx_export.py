"""Export to ONNX with a dynamic batch, and run the file with ONNX Runtime if it is installed."""

import tempfile
from pathlib import Path

import numpy as np
import onnx

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3),
    nn.BatchNorm2d(4),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(4, 5),
    nn.Softmax(dim=1),
)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    torch.onnx.export(
        model,
        (torch.randn(2, 1, 12, 12),),
        path,
        input_names=["image"],
        output_names=["score"],
        dynamic_axes={"image": {0: "batch"}},
    )
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    print(f"{path.name}: {path.stat().st_size} bytes, operators {kinds}")
    assert "Conv" in kinds and "Softmax" in kinds

    try:
        import onnxruntime
    except ImportError:
        print("ONNX Runtime is not installed: the file was checked, but not run")
    else:
        session = onnxruntime.InferenceSession(path)
        model.eval()
        for size in (1, 3, 17):
            image = np.random.default_rng(size).standard_normal((size, 1, 12, 12), dtype=np.float32)
            (theirs,) = session.run(None, {"image": image})
            difference = np.abs(theirs - model(torch.from_numpy(image)).detach().numpy()).max()
            print(f"batch {size:2d}: largest difference {difference:.1e}")
            assert difference < 1e-5
