"""Names beside the tensors and layers that programs written for PyTorch touch."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


def test_complex32_is_a_dtype_without_tensors() -> None:
    half = torch.complex32
    assert (repr(half), half.itemsize) == ("torch.complex32", 4)
    assert half.is_complex and not half.is_floating_point
    assert (
        torch.chalf is half
        and torch.float16.to_complex() is half
        and half.to_real() is torch.float16
    )
    assert pickle.loads(pickle.dumps(half)) is half and torch.finfo(half).bits == 16
    with pytest.raises(RuntimeError, match="complex64"):
        torch.zeros(2, dtype=half)


def test_private_names() -> None:
    torch._C._log_api_usage_once("a.module")
    parsed = torch._C._nn._parse_to("cpu", torch.float64, True, memory_format=torch.channels_last)
    assert parsed == (torch.device("cpu"), torch.float64, True, torch.channels_last)
    parsed = torch._C._nn._parse_to(torch.zeros(1, dtype=torch.float16))
    assert parsed[:2] == (torch.device("cpu"), torch.float16)
    with pytest.raises(TypeError, match="invalid combination"):
        torch._C._nn._parse_to(3.5, "float")


def test_jit_answers_and_explains() -> None:
    assert not isinstance(nn.ReLU(), torch.jit.ScriptModule) and not torch.jit.is_scripting()
    seen = []
    torch.compile(lambda x: seen.append(torch.jit.is_tracing()) or x + 1)(torch.zeros(2))
    assert seen[0] is True and torch.jit.is_tracing() is False

    @torch.jit.ignore
    def one() -> int:
        return 1

    for decorator in (torch.jit.ignore(drop=True), torch.jit.unused, torch.jit.export):
        assert decorator(one)() == 1
    for call, instead in (
        (torch.jit.ScriptModule, "compile"),
        (torch.jit.ScriptFunction, "compile"),
    ):
        with pytest.raises(RuntimeError, match=instead):
            call()
    with pytest.raises(AttributeError, match=r"use graphtorch\.trace"):
        _ = torch.jit.trace_module


def test_scripting_leaves_code_as_it_is() -> None:
    net, x = nn.Linear(2, 3).eval(), torch.ones(1, 2)
    for made in (
        torch.jit.script(net),
        torch.jit.freeze(net),
        torch.jit.optimize_for_inference(net),
    ):
        assert made is net

    @torch.jit.script
    def branches(x: torch.Tensor, limit: torch.jit.Final[float] = 1.0) -> torch.Tensor:
        return x if float(x.sum()) > limit else -x

    assert branches(x).tolist() == [[1, 1]] and branches(x * 0 - 1).tolist() == [[1, 1]]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.jit.trace(net, torch.ones(1, 5))
    with pytest.raises(RuntimeError, match="eval mode"):
        torch.jit.freeze(nn.Linear(2, 3))
    from graphtorch.jit.annotations import List

    assert List[int] and torch.jit.annotations.List is List and torch.jit.annotate(int, 3) == 3
    with pytest.raises(NotImplementedError, match="top level"):
        torch.fx.wrap("len")  # as in PyTorch: here it is called in a function


def test_hub_of_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("width = 3\n")
    (tmp_path / "hubconf.py").write_text(
        textwrap.dedent("""
        dependencies = ["numpy"]
        from graphtorch import nn
        from beside import width

        def net(inputs, pretrained=False):
            'A layer.'
            return nn.Linear(inputs, width)
    """)
    )
    made = torch.hub.load(tmp_path, "net", 2, source="local", pretrained=True)
    assert made.weight.shape == (3, 2)
    assert torch.hub.help(str(tmp_path), "net", source="local") == "A layer."
    assert "net" in torch.hub.list(str(tmp_path), source="local")
    with pytest.raises(RuntimeError, match="Cannot find callable gnu"):
        torch.hub.load(tmp_path, "gnu", source="local")
    with pytest.raises(RuntimeError, match="clone 'someone/repo' yourself"):
        torch.hub.load("someone/repo", "net")


def test_profiler_times_blocks(tmp_path: Path) -> None:
    from graphtorch.profiler import ProfilerActivity, profile, record_function, schedule

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as run:
        for _ in range(3):
            with record_function("product"):
                torch.randn(8, 8) @ torch.randn(8, 8)
            run.step()
    found = {a.key: a for a in run.key_averages()}
    assert found["product"].count == 3 and found["product"].cpu_time_total > 0
    assert "product" in run.key_averages().table(sort_by="cpu_time_total", row_limit=5)
    run.export_chrome_trace(str(tmp_path / "trace.json"))
    assert "product" in (tmp_path / "trace.json").read_text()
    done, steps = [], []

    def ready(run: object) -> None:
        done.append(run)
        steps.append(run.step_num)

    with profile(
        schedule=schedule(wait=1, warmup=1, active=2, repeat=1), on_trace_ready=ready
    ) as run:
        for i in range(6):
            with record_function(f"step {i}"):
                pass
            run.step()
    assert [e.name for e in run.events() if e.name.startswith("step")] == ["step 2", "step 3"]
    assert done == [run] and steps == [4]  # the step that begins, as in PyTorch
    with torch.autograd.profiler.profile() as older, record_function("sum"):
        torch.ones(2).sum()
    assert "sum" in [e.name for e in older.function_events] and "sum" in older.table()
    assert older.self_cpu_time_total > 0
    with torch.autograd.profiler.profile(enabled=False) as off, record_function("sum"):
        pass
    assert off.function_events == []


def test_facts_about_dtypes_and_memory() -> None:
    assert (
        torch.uint16.itemsize == 2
        and not torch.uint64.is_signed
        and repr(torch.uint32) == "torch.uint32"
    )
    assert pickle.loads(pickle.dumps(torch.uint16)) is torch.uint16
    assert torch.iinfo(torch.uint64).max == 2**64 - 1 and torch.iinfo(torch.uint16).bits == 16
    with pytest.raises(RuntimeError, match="tensors of torch"):
        torch.zeros(2, dtype=torch.complex32)
    assert isinstance(torch.zeros(2).untyped_storage(), torch.UntypedStorage)
    assert "CUDA: no" in torch.__config__.show() and "threads" in torch.__config__.parallel_info()


def test_normalisation_folded_into_a_layer() -> None:
    from graphtorch.nn.utils import fusion

    x = torch.randn(1, 2, 5, 5)
    for layer in (nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3)):
        norm = nn.BatchNorm2d(3)
        norm(layer(torch.randn(4, 2, 5, 5)) * 3 + 1)
        layer.eval(), norm.eval()
        fused = fusion.fuse_conv_bn_eval(
            layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d)
        )
        assert torch.allclose(fused(x), norm(layer(x)), atol=1e-5) and fused is not layer
    linear, norm = nn.Linear(2, 3).eval(), nn.BatchNorm1d(3).eval()
    norm.running_mean.normal_()
    rows = torch.randn(5, 2)
    assert torch.allclose(
        fusion.fuse_linear_bn_eval(linear, norm)(rows), norm(linear(rows)), atol=1e-6
    )
    with pytest.raises(AssertionError, match="eval"):
        fusion.fuse_linear_bn_eval(nn.Linear(2, 3), norm)


def test_poisson_numbers() -> None:
    torch.manual_seed(5)
    drawn = torch.poisson(torch.full((4000,), 3.0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.15)
    assert drawn.var().item() == pytest.approx(3, abs=0.3)
    torch.manual_seed(5)
    assert (
        torch.equal(torch.poisson(torch.full((4000,), 3.0)), drawn) and drawn.dtype is torch.float32
    )
    with pytest.raises(RuntimeError, match="non-negative"):
        torch.poisson(torch.tensor([-1.0]))


def test_cpu_and_versions_and_switches() -> None:
    assert (
        torch.cpu.is_available()
        and torch.cpu.device_count() == 1
        and torch.cpu.current_device() == "cpu"
    )
    torch.cpu.set_device(0)
    torch.cpu.synchronize()
    assert torch.version.cuda is None and torch.version.__version__
    cudnn = torch.backends.cudnn
    with cudnn.flags(benchmark=True):
        assert cudnn.benchmark
    assert not cudnn.benchmark and not cudnn.is_available() and cudnn.version() is None
    assert not torch.backends.mps.is_available()


def test_precision_of_float32_on_gpus() -> None:
    """PyTorch's switches name the same two settings; their defaults are PyTorch's."""
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    assert torch.get_float32_matmul_precision() == "highest" and not products.allow_tf32
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.get_float32_matmul_precision() == "medium" and products.allow_tf32
        assert products.fp32_precision == "tf32" and not cudnn.allow_tf32
        products.allow_tf32 = False
        assert torch.get_float32_matmul_precision() == "highest"
        assert products.fp32_precision == "ieee"
        products.fp32_precision = "tf32"
        assert torch.get_float32_matmul_precision() == "high" and products.allow_tf32
        with cudnn.flags(enabled=True):
            assert cudnn.allow_tf32 and cudnn.conv.fp32_precision == "tf32"
        with cudnn.flags(allow_tf32=False):
            assert not cudnn.allow_tf32 and cudnn.conv.fp32_precision == "none"
    finally:
        products.fp32_precision = "none"
    try:
        cudnn.conv.fp32_precision = "none"  # the broader settings hold for who has none
        torch.backends.fp32_precision = "tf32"
        assert products.allow_tf32 and cudnn.allow_tf32 and cudnn.fp32_precision == "tf32"
        cudnn.fp32_precision = "ieee"
        assert not products.allow_tf32 and cudnn.rnn.fp32_precision == "ieee"
        assert torch.backends.fp32_precision == "tf32"
        products.fp32_precision, cudnn.fp32_precision = "tf32", "none"
        torch.backends.fp32_precision = "bf16"  # CUDA has none
        assert products.allow_tf32 and cudnn.conv.fp32_precision == "none"
    finally:
        torch.backends.fp32_precision = products.fp32_precision = "none"
    for switch in (products, cudnn):
        with pytest.raises(RuntimeError, match="expects a bool, but got int"):
            switch.allow_tf32 = 1
    for unknown in ("bf16", "half"):
        with pytest.raises(RuntimeError, match="precision"):
            cudnn.conv.fp32_precision = unknown
    with pytest.raises(TypeError, match="expects a str, but got NoneType"):
        torch.backends.fp32_precision = None
    before = torch.get_float32_matmul_precision()
    with pytest.warns(UserWarning, match="low is not one of 'highest', 'high', or 'medium'"):
        torch.set_float32_matmul_precision("low")
    assert torch.get_float32_matmul_precision() == before
    source = """
import graphtorch as torch
def shown():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
print(shown())
torch.backends.cudnn.fp32_precision = "ieee"
print(shown())
torch.backends.cudnn.fp32_precision = "none"
print(shown())
"""
    printed = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert printed.stdout.splitlines() == ["(True, False)", "(False, False)", "(True, False)"]


def test_distributed_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dist = torch.distributed
    layer = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="not been initialized"):
        nn.parallel.DistributedDataParallel(layer)
    with pytest.raises(RuntimeError, match="2 processes"):
        dist.init_process_group("gloo", world_size=2, rank=0)
    with pytest.raises(ValueError, match="rank 1"):
        dist.init_process_group("gloo", world_size=1, rank=1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    dist.init_process_group("gloo")
    try:
        assert dist.is_initialized() and (dist.get_rank(), dist.get_world_size()) == (0, 1)
        assert dist.get_backend() == "gloo"
        with pytest.raises(ValueError, match="twice"):
            dist.init_process_group()
        _train_distributed(layer)
        with pytest.raises(RuntimeError, match="any parameter"):
            nn.parallel.DistributedDataParallel(nn.ReLU())
        with pytest.raises(ValueError, match="single element"):
            nn.parallel.DistributedDataParallel(layer, device_ids=[0, 1])
        _exchange(dist)
    finally:
        dist.destroy_process_group()
    assert not dist.is_initialized()


def _train_distributed(layer: nn.Linear) -> None:
    model = nn.parallel.DistributedDataParallel(layer)
    x = torch.ones(3, 2)
    assert torch.equal(model(x), layer(x)) and list(model.state_dict()) == [
        "module.weight",
        "module.bias",
    ]
    with model.no_sync():
        model(x).sum().backward()
    model(x).sum().backward()
    assert layer.weight.grad.tolist() == [[6, 6]]


def _exchange(dist: object) -> None:
    x, places = torch.arange(3.0), [torch.zeros(3)]
    for exchange in ("all_reduce", "reduce", "broadcast"):
        getattr(dist, exchange)(x)
    dist.all_gather(places, x)  # type: ignore[attr-defined]
    dist.barrier()  # type: ignore[attr-defined]
    assert x.tolist() == places[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="rank 3"):
        dist.broadcast(x, 3)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Tensor"):
        dist.all_reduce(3)  # type: ignore[attr-defined]


def test_memory_formats() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4).requires_grad_()
    last = x.contiguous(memory_format=torch.channels_last)
    assert last.stride() == (24, 1, 8, 2) and last.is_contiguous(memory_format=torch.channels_last)
    assert (
        torch.equal(last, x)
        and not last.is_contiguous()
        and last.contiguous().stride() == x.stride()
    )
    (last * last.detach()).sum().backward()
    assert torch.equal(x.grad, x.detach())
    for made in (
        torch.clone(x, memory_format=torch.channels_last),
        x.to(memory_format=torch.channels_last),
        x.double().to(torch.float32, memory_format=torch.channels_last),
        x.double(memory_format=torch.channels_last),
    ):
        assert made.stride() == last.stride() and made.detach().sum() == 276
    assert torch.zeros(1, 2, 2, 2, 2).clone(memory_format=torch.channels_last_3d).stride() == (
        16,
        1,
        8,
        4,
        2,
    )
    for wrong in (torch.zeros(2), torch.zeros(1, 2, 2, 2, 2)):
        with pytest.raises(
            RuntimeError, match="required rank 4 tensor to use channels_last format"
        ):
            wrong.clone(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="memory_format"):
        x.clone(memory_format="channels_last")
    conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    assert (
        conv.weight.stride() == (18, 1, 6, 2) and conv.bias.stride() == (1,) and conv.weight.is_leaf
    )


def test_keywords_as_numpy_users_write_them() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert x.sum(axis=0).tolist() == torch.sum(x, axis=0).tolist() == [3, 5, 7]
    assert (
        x.mean(axis=1, keepdims=True).tolist() == [[1], [4]] and torch.add(x1=x, x2=x)[1, 2] == 10
    )
    assert x.softmax(axis=1).shape == (2, 3) and torch.cat([x, x], axis=1).shape == (2, 6)
    assert (
        torch.zeros(size=(2, 3)).shape == x.view(size=(3, 2)).reshape(shape=(2, 3)).shape == (2, 3)
    )
    assert torch.swapaxes(x, axis0=0, axis1=1).shape == (3, 2)
    assert len(torch.tensor_split(x, sections=2, dim=1)) == 2
    for wrong in (
        lambda: x.sum(along=0),
        lambda: x.sum(0, axis=0),
        lambda: torch.zeros(2, shapes=3),
    ):
        with pytest.raises(TypeError):
            wrong()
    for function in (torch.relu, torch.sum, nn.functional.relu, torch.Tensor.add):
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize(
    "call, kind, words",
    [
        (
            lambda: torch.sum(torch.ones(2), dim=0, keepdim=3),
            TypeError,
            "'keepdim'.*must be bool, not int",
        ),
        (lambda: torch.linalg.norm(0, 2, dim=1), TypeError, "'A' .*must be Tensor, not int"),
        (lambda: torch.flip(torch.ones(2), torch.ones(2)), TypeError, "dim must be an int"),
        (lambda: torch.nn.Linear(4, torch.ones(2)), TypeError, "sizes to be ints"),
        (lambda: F.mse_loss(torch.ones(2), [1.5]), AttributeError, "'list' object .*'target'"),
        (lambda: F.mse_loss(torch.ones(2), torch.ones(2), reduction=1), ValueError, "reduction"),
        (lambda: torch.nn.ReLU()(object()), TypeError, "must be Tensor, not object"),
        (lambda: torch.ones(2).requires_grad_(99), TypeError, "must be bool"),
        (lambda: torch.ones(2).normal_(torch.ones(2), 1), TypeError, "'mean'.*must be float"),
        (lambda: torch.zeros(dtype=torch.int64), TypeError, "size"),
        (lambda: torch.normal(0.0, 1.0, (-7, 3)), RuntimeError, "negative dimension"),
        (lambda: torch.set_grad_enabled("no"), TypeError, "must be bool"),
    ],
    ids=range(12),
)
def test_arguments_of_the_wrong_kind(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_tensors_of_one_int_stand_for_ints():
    one = torch.tensor(1)
    assert torch.eye(one, 2).tolist() == [[1, 0]] and torch.ones(2, 3).sum(one).tolist() == [3, 3]
    assert torch.zeros(2).copy_(3).tolist() == [3, 3]
    assert torch.ones(2, 2).tril(one - 1).tolist() == [[1, 0], [1, 1]]


def test_out_and_pin_memory_where_definitions_lack_them():
    x, out = torch.tensor([1.0, -float("inf")]), torch.empty(2, dtype=torch.bool)
    assert torch.isneginf(x, out=out) is out and out.tolist() == [False, True]
    picked = torch.empty(0)
    assert torch.masked_select(x, out, out=picked) is picked and picked.tolist() == [-float("inf")]
    low, high = torch.empty(()), torch.empty(())
    assert torch.aminmax(torch.arange(3.0), out=(low, high))[0] is low and (
        low.item(),
        high.item(),
    ) == (0, 2)
    assert torch.eye(2, pin_memory=False).shape == torch.full((2, 2), 1, pin_memory=False).shape
    assert (
        torch.linalg.vector_norm(input=torch.ones(4)) == torch.linalg.norm(input=torch.ones(4)) == 2
    )
    with pytest.raises(TypeError):
        torch.isnan(x, out=out)


def test_settings_of_threads_and_denormals() -> None:
    before = torch.get_num_interop_threads()
    torch.set_num_interop_threads(3)
    assert torch.get_num_interop_threads() == 3
    torch.set_num_interop_threads(before)
    with pytest.raises(RuntimeError, match="set_num_interop_threads expects"):
        torch.set_num_interop_threads(0)
    assert torch.set_flush_denormal(True) is False  # what it says of machines that cannot
    with pytest.raises(TypeError, match="bool"):
        torch.set_flush_denormal(1)
    assert torch.GradScaler is torch.amp.GradScaler
    assert torch.nn.utils.fuse_conv_bn_eval is torch.nn.utils.fusion.fuse_conv_bn_eval
