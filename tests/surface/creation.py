"""Tensors from data, sizes and ranges; dtypes, typed classes, devices; random numbers,
generators."""

import numpy as np

import graphtorch as torch
from surface import covers


def same(x, expected, dtype=None):
    """`x` has these elements (and this dtype)."""
    np.testing.assert_allclose(x.detach().numpy(), np.asarray(expected), rtol=1e-6, atol=1e-7)
    assert x.shape == np.shape(expected) and (dtype is None or x.dtype is dtype)


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was expected")


def check_dtypes():
    widths = (
        (torch.float16, torch.half, 2),
        (torch.bfloat16, torch.bfloat16, 2),
        (torch.float32, torch.float, 4),
        (torch.float64, torch.double, 8),
        (torch.complex64, torch.cfloat, 8),
        (torch.complex128, torch.cdouble, 16),
        (torch.uint8, torch.uint8, 1),
        (torch.uint16, torch.uint16, 2),
        (torch.uint32, torch.uint32, 4),
        (torch.uint64, torch.uint64, 8),
        (torch.int8, torch.int8, 1),
        (torch.int16, torch.short, 2),
        (torch.int32, torch.int, 4),
        (torch.int64, torch.long, 8),
        (torch.bool, torch.bool, 1),
    )
    for dtype, alias, width in widths:
        assert dtype is alias and isinstance(dtype, torch.dtype)
        assert (
            torch.ones(2, dtype=dtype).element_size() == width
            and torch.ones(2, dtype=dtype).dtype is dtype
        )
        assert dtype.is_floating_point == (
            dtype in (torch.half, torch.bfloat16, torch.float, torch.double)
        )
    assert torch.complex32.itemsize == 4 and torch.complex32.is_complex


def check_typed_classes():
    classes = (
        (torch.FloatTensor, torch.float32),
        (torch.DoubleTensor, torch.float64),
        (torch.ByteTensor, torch.uint8),
        (torch.CharTensor, torch.int8),
        (torch.ShortTensor, torch.int16),
        (torch.IntTensor, torch.int32),
        (torch.LongTensor, torch.int64),
    )
    for cls, dtype in classes:
        assert isinstance(torch.tensor([1], dtype=dtype), cls) and not isinstance(
            torch.tensor([True]), cls
        )
    same(torch.FloatTensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]], torch.float32)
    assert torch.FloatTensor(2, 3).shape == (2, 3)
    same(torch.DoubleTensor([1.5]), [1.5], torch.float64)
    same(torch.HalfTensor([1.5]), [1.5], torch.float16)
    assert torch.BFloat16Tensor([1.5]).dtype is torch.bfloat16
    same(torch.ByteTensor([255]), [255], torch.uint8)
    same(torch.CharTensor([-1]), [-1], torch.int8)
    same(torch.ShortTensor([-300]), [-300], torch.int16)
    same(torch.IntTensor([70000]), [70000], torch.int32)
    same(torch.LongTensor([2**40]), [2**40], torch.int64)
    same(torch.BoolTensor([True, False]), [True, False], torch.bool)
    assert torch.Tensor(2, 3).shape == (2, 3) and torch.Tensor([2, 3]).tolist() == [2, 3]
    assert torch.Tensor is not torch.FloatTensor and isinstance(
        torch.Tensor([1]), torch.FloatTensor
    )


def check_default_tensor_type():
    try:
        torch.set_default_tensor_type(torch.DoubleTensor)
        assert torch.zeros(1).dtype is torch.float64 and torch.Tensor([1]).dtype is torch.float64
    finally:
        torch.set_default_tensor_type("torch.FloatTensor")
    assert torch.zeros(1).dtype is torch.float32


def check_size_device_layout():
    size = torch.zeros(32, 4).size()
    assert isinstance(size, torch.Size) and repr(size) == "torch.Size([32, 4])"
    assert torch.Size([2, 3]).numel() == 6 and torch.Size([2, 3])[1:] == (3,)
    assert torch.device("cuda:1").index == 1 and str(torch.device("cuda", 0)) == "cuda:0"
    assert torch.zeros(1, device=torch.device("cpu")).device == torch.device("cpu")
    assert isinstance(torch.strided, torch.layout) and isinstance(
        torch.preserve_format, torch.memory_format
    )
    assert torch.zeros(2, layout=torch.strided).layout is torch.strided
    assert torch.typename(torch.zeros(1)) == "torch.FloatTensor" and torch.typename(obj=3) == "int"


def check_data():
    data = np.arange(6.0).reshape(2, 3)
    x = torch.tensor(
        data=data, dtype=torch.float32, device="cpu", requires_grad=True, pin_memory=False
    )
    same(x, data, torch.float32)
    assert x.requires_grad and torch.tensor([[1, 2]]).dtype is torch.int64
    assert torch.tensor([1.0, 2]).dtype is torch.float32 and torch.tensor(True).dtype is torch.bool
    data[0, 0] = 9
    assert x[0, 0] == 0
    refused(RuntimeError, torch.tensor, [1], requires_grad=True)
    shared = torch.from_numpy(data)
    assert torch.as_tensor(shared) is shared
    same(torch.as_tensor(data, dtype=torch.int64), data, torch.int64)
    data[1, 2] = 7
    assert shared[1, 2] == 7 and torch.from_numpy(ndarray=data)[0, 0] == 9


def check_ranges():
    common = {"device": "cpu", "layout": torch.strided, "requires_grad": True}
    same(
        torch.arange(start=1, end=2.5, step=0.5, dtype=torch.float64, **common),
        [1, 1.5, 2],
        torch.float64,
    )
    assert torch.arange(5).tolist() == [0, 1, 2, 3, 4] and torch.arange(4.0).dtype is torch.float32
    same(torch.range(1, 4), [1, 2, 3, 4])
    same(
        torch.linspace(start=0, end=1, steps=5, dtype=torch.float64, **common),
        np.linspace(0, 1, 5),
        torch.float64,
    )
    powers = torch.logspace(start=0, end=2, steps=3, base=2, dtype=torch.float64, **common)
    same(powers, [1, 2, 4], torch.float64)
    assert powers.requires_grad
    out = torch.empty(3)
    for made, expected in (
        (torch.arange(3, out=out), [0, 1, 2]),
        (torch.linspace(0, 1, 3, out=out), [0, 0.5, 1]),
        (torch.logspace(0, 2, 3, out=out), [1, 10, 100]),
    ):
        assert made is out
        same(torch.as_tensor(expected, dtype=torch.float32), expected)
    same(out, [1, 10, 100])


def check_filled():
    common = {
        "dtype": torch.float64,
        "device": "cpu",
        "layout": torch.strided,
        "requires_grad": True,
    }
    for make, number in ((torch.zeros, 0), (torch.ones, 1)):
        same(make(2, 3), np.full((2, 3), number), torch.float32)
    same(torch.zeros(2, **common), [0, 0], torch.float64)
    same(torch.ones((2, 1), **common), [[1], [1]], torch.float64)
    x = torch.full(size=(2, 2), fill_value=1.5, **common)
    same(x, [[1.5, 1.5]] * 2, torch.float64)
    assert x.requires_grad and torch.full((2,), 3).dtype is torch.int64
    same(torch.zeros_like(input=x), np.zeros((2, 2)), torch.float64)
    same(torch.ones_like(input=x, dtype=torch.int32), np.ones((2, 2)), torch.int32)
    same(torch.full_like(input=x, fill_value=7), np.full((2, 2), 7), torch.float64)
    out = torch.empty(2)
    assert torch.zeros(2, out=out) is out and out.tolist() == [0, 0]
    assert torch.ones(2, out=out) is out and out.tolist() == [1, 1]
    assert torch.full((2,), 5.0, out=out) is out and out.tolist() == [5, 5]
    refused(RuntimeError, torch.zeros, -1)


def check_new():
    x = torch.zeros(2, dtype=torch.float64)
    data = torch.ones(2)
    y = x.new_tensor(data)
    y[0] = 5
    assert data[0] == 1 and y.dtype is torch.float64
    same(x.new_full((3,), 2.5), [2.5] * 3, torch.float64)
    same(x.new_ones(2), [1, 1], torch.float64)
    same(x.new_zeros((1, 2)), [[0, 0]], torch.float64)
    assert x.new_empty(4).shape == (4,) and x.new_empty(4).dtype is torch.float64


def check_uniform_and_normal():
    common = {
        "dtype": torch.float64,
        "device": "cpu",
        "layout": torch.strided,
        "requires_grad": True,
    }
    for make in (torch.rand, torch.randn):
        assert make((2, 3)).shape == make(2, 3).shape == (2, 3)
    generator = torch.Generator().manual_seed(3)
    uniform = torch.rand(4000, generator=generator, **common)
    normal = torch.randn(4000, generator=generator, **common)
    assert uniform.requires_grad and uniform.dtype is torch.float64
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean().item() - 0.5) < 0.03
    assert abs(normal.mean().item()) < 0.08 and abs(normal.std().item() - 1) < 0.05
    assert torch.rand(size=(2, 2)).shape == torch.randn(size=(2, 2)).shape == (2, 2)
    out = torch.full((500,), -7.0)
    assert torch.rand(500, out=out) is out and out.min() >= 0
    assert torch.randn(500, out=out) is out and out.min() < 0
    assert torch.rand_like(uniform).dtype is torch.float64 and torch.rand_like(uniform).shape == (
        4000,
    )
    assert torch.randn_like(out).shape == (500,)
    assert set(torch.randint_like(out, 3).tolist()) == {0, 1, 2}


def check_integers_and_permutations():
    generator = torch.Generator().manual_seed(0)
    options = {
        "dtype": torch.int32,
        "device": "cpu",
        "layout": torch.strided,
        "requires_grad": False,
    }
    x = torch.randint(low=2, high=5, size=(300,), generator=generator, **options)
    assert (
        set(x.tolist()) == {2, 3, 4}
        and x.dtype is torch.int32
        and torch.randint(4, (2,)).dtype is torch.int64
    )
    out = torch.empty(300, dtype=torch.int64)
    assert torch.randint(0, 2, (300,), out=out) is out and set(out.tolist()) == {0, 1}
    order = torch.randperm(n=50, generator=generator, **options)
    assert sorted(order.tolist()) == list(range(50)) and order.dtype is torch.int32
    out = torch.empty(50, dtype=torch.int64)
    assert torch.randperm(50, out=out) is out and sorted(out.tolist()) == list(range(50))
    assert out.tolist() != list(range(50)) and torch.randperm(3).dtype is torch.int64


def check_normal_with_parameters():
    mean, std = torch.arange(5.0) * 100, torch.full((5,), 0.1)
    generator = torch.Generator().manual_seed(1)
    x = torch.normal(mean=mean, std=std, generator=generator)
    assert ((x - mean).abs() < 1).all()
    assert torch.normal(mean, 1.0).shape == (5,) and torch.normal(2.0, std).shape == (5,)
    options = {
        "dtype": torch.float64,
        "device": "cpu",
        "layout": torch.strided,
        "requires_grad": True,
    }
    y = torch.normal(3.0, 0.5, size=(4000,), **options)
    assert abs(y.mean().item() - 3) < 0.05 and y.dtype is torch.float64 and y.requires_grad
    out = torch.empty(5)
    assert torch.normal(mean, std, out=out) is out and ((out - mean).abs() < 1).all()


def check_generators():
    own = torch.Generator(device="cpu")
    assert (
        isinstance(own, torch.Generator)
        and own.manual_seed(seed=5) is own
        and own.initial_seed() == 5
    )
    state = own.get_state()
    first = torch.rand(3, generator=own)
    second = torch.rand(3, generator=own)
    assert state.dtype is torch.uint8 and not torch.equal(first, second)
    own.set_state(new_state=state)
    assert torch.equal(torch.rand(3, generator=own), first)
    assert own.seed() == own.initial_seed() and own.seed() != own.seed()


def check_global_generator():
    before = torch.get_rng_state()
    try:
        assert torch.manual_seed(seed=7).initial_seed() == torch.initial_seed() == 7
        state = torch.get_rng_state()
        first = torch.randn(4)
        torch.set_rng_state(new_state=state)
        assert torch.equal(torch.randn(4), first) and not torch.equal(torch.randn(4), first)
        torch.manual_seed(7)
        assert torch.equal(torch.randn(4), first)
        assert torch.seed() == torch.initial_seed() != 7
    finally:
        torch.set_rng_state(before)


@covers("torch.Tensor.grad")
def check_requires_grad_from_the_start():
    x = torch.zeros(3, requires_grad=True)
    x.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]
