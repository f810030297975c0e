"""Files, GPUs, ONNX, data loading, and names outside of tensors and layers."""

import io
import pickle
import tempfile
from pathlib import Path

import numpy as np

import graphtorch as torch
from graphtorch import nn
from surface import covers, raises

TYPES = (
    "FloatTensor",
    "DoubleTensor",
    "HalfTensor",
    "BFloat16Tensor",
    "ByteTensor",
    "CharTensor",
    "ShortTensor",
    "IntTensor",
    "LongTensor",
    "BoolTensor",
)


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was expected")


def check_saving():
    net = nn.Linear(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        torch.save(obj=net.state_dict(), f=path)
        loaded = torch.load(f=path)
        assert torch.equal(loaded["weight"], net.weight)
        for location in (
            "cpu",
            torch.device("cpu"),
            {"cuda:1": "cpu"},
            lambda storage, place: storage,
        ):
            assert torch.equal(torch.load(path, map_location=location)["bias"], net.bias)
    file = io.BytesIO()
    torch.save(net, file, pickle_module=pickle, pickle_protocol=3)
    file.seek(0)
    assert "weights_only" in refused(pickle.UnpicklingError, torch.load, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False, pickle_module=pickle)
    assert torch.equal(whole(torch.ones(1, 2)), net(torch.ones(1, 2)))
    file = io.BytesIO()
    torch.save({"a": torch.arange(3)}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    assert torch.load(file, encoding="utf-8")["a"].tolist() == [0, 1, 2]
    file.seek(0)
    assert torch.load(file, weights_only=False, fix_imports=True)["a"].tolist() == [0, 1, 2]


def check_cuda():
    there = torch.cuda.is_available()
    assert (
        torch.cuda.is_initialized() in (False, there) and (torch.cuda.device_count() > 0) == there
    )
    if there:
        torch.cuda.init()
        kept = torch.ones(1 << 10, device="cuda") + 1
    else:
        with raises(AssertionError):
            torch.cuda.init()
        kept = torch.ones(0)
    assert torch.cuda.memory_allocated(device=None) >= kept.nbytes
    assert torch.cuda.max_memory_allocated(device=None) >= torch.cuda.memory_allocated(device=None)
    torch.cuda.reset_peak_memory_stats(device=None)
    torch.cuda.reset_max_memory_allocated(device=None)
    assert torch.cuda.max_memory_allocated(device=None) == torch.cuda.memory_allocated(device=None)
    assert there or torch.cuda.max_memory_allocated(device=None) == 0


@covers(*(f"torch.cuda.{name}" for name in TYPES))
def check_typed_classes_of_gpus():
    for name in TYPES:
        cls = getattr(torch.cuda, name)
        assert not isinstance(torch.zeros(1), cls) and cls.__name__ == name
        if torch.cuda.is_available():
            made = cls([1])
            assert (
                isinstance(made, cls)
                and made.type() == f"torch.cuda.{name}"
                and made.tolist() == [1]
            )
            assert not isinstance(made, getattr(torch, name))
        else:
            refused((AssertionError, TypeError, RuntimeError), cls, [1])


def check_onnx():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    file = io.BytesIO()
    torch.onnx.export(
        model=model,
        args=(torch.ones(2, 3),),
        f=file,
        export_params=True,
        verbose=False,
        training=torch.onnx.TrainingMode.EVAL,
        input_names=["x"],
        output_names=["y"],
        operator_export_type=torch.onnx.OperatorExportTypes.ONNX,
        opset_version=17,
        do_constant_folding=True,
        dynamic_axes={"x": {0: "n"}},
        keep_initializers_as_inputs=False,
        custom_opsets={},
        export_modules_as_functions=False,
        autograd_inlining=True,
    )
    import onnx

    proto = onnx.load_from_string(file.getvalue())
    assert [i.name for i in proto.graph.input] == ["x"] and [
        o.name for o in proto.graph.output
    ] == ["y"]
    assert (
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        and proto.opset_import[0].version == 17
    )
    assert len(proto.graph.initializer) == 2


def check_data():
    data = torch.utils.data.TensorDataset(torch.arange(5.0), torch.arange(5))
    batches = list(torch.utils.data.DataLoader(data, batch_size=2, shuffle=False))
    assert [b[0].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    again = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)
    assert sorted(next(iter(again))[1].tolist()) == [0, 1, 2, 3, 4]


@covers("torch._C._nn._parse_to")
def check_private_names():
    torch._C._log_api_usage_once("event")
    assert torch._C._nn._parse_to(torch.float64)[1] is torch.float64
    assert not isinstance(nn.ReLU(), torch.jit.ScriptModule)
    assert "compile" in refused(RuntimeError, torch.jit.ScriptModule)


@covers("torch._six.string_classes")
def check_absent_names():
    assert "_six" in refused(AttributeError, getattr, torch, "_six")


def check_cpu_and_groups_of_one():
    assert torch.cpu.is_available() and torch.cpu.device_count() == 1
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    x = torch.ones(2)
    torch.distributed.all_reduce(x)
    torch.distributed.destroy_process_group()
    np.testing.assert_array_equal(x.numpy(), [1, 1])
