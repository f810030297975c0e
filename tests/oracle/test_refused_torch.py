"""Calls at the edge of what functions take, on both sides: what PyTorch refuses is refused with its
exception type, and what it takes gives its numbers, dtype, shape and `requires_grad`."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")


def _names(lib: Any) -> dict[str, Any]:
    """What a call may use: tensors of sizes (f floats, d doubles, g that require grad, i integers,
    b bools, c complex), t a matrix, v some numbers, s a sparse matrix."""

    def drawn(*sizes: int) -> np.ndarray:
        return np.random.default_rng(3).standard_normal(sizes).astype(np.float32)

    def integers(*sizes: int) -> Any:
        return lib.tensor(np.random.default_rng(3).integers(0, 3, sizes))

    return {
        "torch": lib,
        "nn": lib.nn,
        "F": lib.nn.functional,
        "np": np,
        "f": lambda *s: lib.tensor(drawn(*s)),
        "d": lambda *s: lib.tensor(drawn(*s)).double(),
        "g": lambda *s: lib.tensor(drawn(*s)).requires_grad_(),
        "i": integers,
        "b": lambda *s: integers(*s) > 0,
        "c": lambda *s: lib.complex(lib.tensor(drawn(*s)), lib.tensor(drawn(*s)) + 1),
        "t": lambda: lib.arange(12.0).view(3, 4),
        "spd": lambda n: lib.tensor(drawn(n, n)).double() @ lib.tensor(drawn(n, n)).double().T,
        "runs": lambda: (
            lib.tensor([1.0, 1, 2, 2, 3, 0]).requires_grad_(),
            lib.tensor([2, 3, 0, 1]),
        ),
        "q": lib.fake_quantize_per_tensor_affine,
        "qc": lib.fake_quantize_per_channel_affine,
        "w": lambda: lib.tensor([0.1, 0.2]),
        "z": lambda: lib.tensor([0, 1], dtype=lib.int32),
        "v": lambda: lib.tensor([-3.0, -1.0, 0.04, 0.05, 0.15, 2.5, 30.0, math.nan, 2.0]),
        "s": lambda: lib.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]).to_sparse(),
    }


def _seen(x: Any, lib: Any) -> Any:
    if isinstance(x, lib.Tensor):
        x = x if x.layout is lib.strided else x.to_dense()
        kind = str(x.dtype).partition(".")[2]
        return kind, tuple(x.shape), x.requires_grad, x.detach().resolve_conj().numpy()
    if isinstance(x, (tuple, list)):
        return [_seen(v, lib) for v in x]
    return str(x).replace("graphtorch", "torch")


def _outcome(call: str, lib: Any) -> tuple[str, Any]:
    names = _names(lib)
    lib.manual_seed(0)
    *before, last = call.split(";")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for line in before:
                exec(line.strip(), names)
            return "returned", _seen(eval(last.strip(), names), lib)
        except Exception as error:
            return type(error).__name__, str(error)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.allclose(a, b, 1e-5, 1e-6, equal_nan=True)
    return bool(a == b)


def _check(call: str) -> None:
    expected, got = _outcome(call, torch), _outcome(call, graphtorch)
    assert got[0] == expected[0], (expected, got)
    if expected[0] == "returned":
        assert _same(expected[1], got[1]), (expected, got)


GRIDS = """
torch.meshgrid(f(2, 3), f(3))
torch.meshgrid([f(2, 3), f(3)], indexing='xy')
torch.meshgrid(f(2), i(3), indexing='ij')
torch.meshgrid(f(), f(3), indexing='ij')
torch.meshgrid(indexing='ij')
torch.meshgrid([], indexing='ij')
torch.meshgrid(f(2), f(3), indexing='zz')
torch.meshgrid(f(0), f(3), indexing='xy')
torch.cartesian_prod(f(2, 3), f(3))
torch.cartesian_prod(f(2, 3))
torch.cartesian_prod(f(), f(3))
torch.cartesian_prod(f(2), i(3))
torch.combinations(f(2, 3))
torch.combinations(f())
"""

NUMBERS_OUT_OF_TENSORS = """
torch.full((2,), g())
torch.full((2,), g(1))
torch.full((2,), f())
torch.full((2,), i(), dtype=torch.float32)
torch.full((2,), 'a')
torch.full((2,), None)
torch.full(2, 1)
torch.full_like(f(2), g())
torch.full_like(f(2), f(1))
f(2).new_full((2,), g())
f(2).new_full((2,), f())
f(2).fill_(g())
f(2).fill_(g(1))
torch.tensor(g(2))
torch.tensor([g(), g()])
torch.as_tensor(g(2))
torch.linspace(g(), 1, 5)
torch.linspace(f(1), 1, 5)
torch.linspace(0, f(2), 5)
torch.logspace(f(2), 1, 5)
torch.arange(g(), 5)
torch.arange(0, torch.tensor(5.0, requires_grad=True))
torch.arange(torch.tensor([5]))
torch.range(0, torch.tensor(5.0, requires_grad=True))
torch.clamp(f(3), g(), 1)
torch.clamp(f(3), g(), g())
torch.clamp(f(3), min=g(), max=1)
torch.clamp(f(3), min=f(), max=1.0)
torch.clamp(f(3), min=f(3), max=1.0)
f(3).clamp_(f(3), 1.0)
torch.masked_fill(f(3), b(3), g())
torch.where(b(3), g(), 2)
torch.add(f(3), 1, alpha=g())
torch.sub(f(3), f(3), alpha=g())
torch.add(f(3), f(3), alpha=f())
f(3).scatter(0, i(2), g())
f(3).scatter(0, i(2), 1j)
torch.isin(1.0, 2.0)
torch.special.zeta(2, 3)
"""

DTYPES = """
torch.zeros(2, dtype=float)
torch.zeros(2, dtype=complex)
torch.tensor([1, 2], dtype=float)
torch.tensor([1], dtype=complex)
f(2).to(float)
f(2).to(complex)
f(2).sum(dtype=float)
torch.arange(3, dtype=float)
F.softmax(f(2), 0, dtype=float)
nn.Linear(2, 2).to(float).weight.dtype
nn.Linear(2, 2, dtype=float).weight.dtype
torch.promote_types(float, torch.int64)
torch.set_default_dtype(float)
torch.finfo(float).bits
torch.arange(5, dtype=torch.bool)
torch.arange(3, dtype=torch.complex64)
torch.arange(1j)
torch.linspace(0, 5, 3, dtype=torch.bool)
torch.tril_indices(3, 3, dtype=torch.float32)
torch.triu_indices(3, 3, dtype=torch.bool)
torch.randn(2, dtype=torch.int64)
torch.rand(2, dtype=torch.int64)
torch.randint(2.5, (2,))
torch.randperm(2.5)
torch.randperm(300, dtype=torch.uint8)
torch.randperm(256, dtype=torch.uint8)
torch.bernoulli(i(3))
torch.poisson(i(2))
torch.multinomial(i(3), 1)
torch.multinomial(f(2, 2, 3).abs(), 1)
i(2).uniform_()
i(2).normal_()
i(2).exponential_()
torch.polar(f(2), i(2))
torch.polar(f(2), d(2))
torch.heaviside(f(3), i(3))
torch.logaddexp(i(3), i(3))
torch.logcumsumexp(i(3), 0)
torch.lerp(f(2), i(2), 0.5)
torch.lerp(f(2), d(2), 0.5)
torch.lerp(f(2), f(2), d(2))
torch.cdist(f(2, 3), d(2, 3))
torch.nansum(c(3))
torch.aminmax(c(3))
torch.sign(c(3))
torch.sgn(c(3))
torch.round(i(3), decimals=-1)
torch.round(b(3))
torch.ceil(b(3))
torch.abs(b(3))
torch.argmax(b(3))
torch.argmin(c(3))
torch.median(b(3))
torch.topk(b(3), 2)
b(3) ** b(3)
b(3) ** 2
2 ** b(3)
~f(3)
~c(3)
~b(3)
float(c(1))
int(c(1))
torch.searchsorted(f(3).sort().values, i(3))
torch.bucketize(d(3), f(3).sort().values)
torch.tensor(np.zeros(2, dtype='>f4'))
torch.from_numpy(np.zeros(2, dtype='>f4'))
torch.tensor(['a'])
torch.tensor('a')
torch.as_tensor(['a'])
torch.Tensor('a')
torch.Tensor(1.5)
torch.Tensor(i(2))
torch.FloatTensor(None)
F.mse_loss(i(3), i(3))
F.kl_div(f(3), i(3), reduction='sum')
F.binary_cross_entropy_with_logits(f(3), i(3))
torch.masked_scatter(f(2, 3), b(2, 3), d(6))
f(2, 3).index_put((torch.tensor([0]),), i(3))
"""

SHAPES = """
f(2, 3).rot90(1, (0, 0))
f(2, 3).rot90(1, (1, -1))
f(2, 3).rot90(1, (0,))
f(3).rot90()
f().chunk(2)
f().split(1)
f(2, 3).hsplit(2)
f(4).hsplit(3)
f(3, 2).vsplit(2)
f(2, 3, 3).dsplit(2)
torch.block_diag()
torch.linalg.cross(f(3), f(2, 3))
torch.cross(f(2), f(2))
torch.tensordot(f(2, 3), f(3, 2), ([1], [0, 1]))
torch.tensordot(f(2, 3), f(3, 2), -1)
torch.tensordot(f(2, 3), f(3, 2), 3)
torch.einsum('i1', f(2, 3))
torch.einsum('i_,j', f(2, 3), f(3))
torch.einsum(' i j , j -> i ', f(2, 3), f(3))
torch.einsum('...i,i', f(2, 3), f(3))
torch.addmm(f(1, 2, 2), f(2, 3), f(3, 2))
torch.addmv(f(1, 2), f(2, 3), f(3))
torch.baddbmm(f(1, 2, 2, 2), f(2, 2, 3), f(2, 3, 2))
torch.addbmm(f(1, 2, 2), f(2, 2, 3), f(2, 3, 2))
torch.addmm(f(2), f(2, 3), f(3, 2))
f(2, 1).expand(2, -2)
f(2, 3).as_strided((2, 2), (1, 1), -1)
f(2, 3).take_along_dim(i(3), 1)
f(2, 3).index_add(0, i(3), f(2, 3))
f(2, 3).index_add(0, torch.tensor([0, 1]), f(2, 2))
f(2, 3).index_add(0, torch.tensor([0, 1]), f(2))
f(2, 3).index_copy(0, torch.tensor([0, 1]), f(3, 3))
f(2, 3).put_(torch.tensor([0]), f(2))
torch.vander(f(2, 3))
torch.unique(f(3), dim=1)
torch.unique_consecutive(f(3), dim=2)
torch.bincount(i(3), minlength=-1)
torch.isclose(f(3), f(3), rtol=-1)
torch.isclose(f(3), f(3), atol=-1)
torch.linalg.multi_dot([f(2, 3)])
torch.linalg.norm(f(2, 3, 4), ord=2)
torch.linalg.vector_norm(f(0), ord=-1)
torch.linalg.vector_norm(f(0), ord=np.inf)
torch.linalg.vector_norm(f(0), ord=2)
torch.linalg.vector_norm(f(3), ord='fro')
F.dropout2d(f(3))
x = g(3); y = x.view(3); y.detach_()
"""

INDICES = """
t()[[[0, 1], [1, 0]]]
t()[[[0, 1]]]
t()[[(0, 1), (1, 0)]]
t()[[range(2), range(2)]]
t()[[[[0, 1], [1, 0]]]]
t()[[[0, 1], [1, 0], [0, 0]]]
t()[[np.array([0, 1]), np.array([1, 0])]]
t()[np.array([[0, 1], [1, 0]])]
t()[([0, 1], [1, 0])]
t()[[0, 1]]
t()['a']
x = t(); x[[[0, 1], [1, 0]]] = 5.0; x
x = t(); x[x > 3] = torch.tensor(1, dtype=torch.int64); x
x = t(); x[x > 3] = torch.tensor([1], dtype=torch.int64); x
x = t(); x[x > 9] = torch.tensor([1, 2], dtype=torch.int64); x
x = t(); x[0, [0, 1]] = torch.tensor(1, dtype=torch.int64); x
x = t(); x[0, x[0] > 1] = torch.tensor(1, dtype=torch.int64); x
x = t(); x[x[:, 0] > 1, 0:2] = torch.tensor([1.0], dtype=torch.float64); x
x = t(); x[[0, 1]] = torch.tensor(1.5, dtype=torch.float64); x
x = t(); x[[0, 1]] = np.float64(1.5); x
x = t(); x[0] = torch.tensor(1, dtype=torch.int64); x
x = t(); x[0] = None; x
x = t(); x[torch.tensor([1, 0, 1], dtype=torch.uint8)] = 1.0; x
"""

OUT = """
torch.add(f(3), f(3), out=d(3))
torch.add(f(3), f(3), out=i(3))
torch.mm(f(2, 3), f(3, 2), out=d(2, 2))
torch.matmul(f(2, 3), f(3, 2), out=d(2, 2))
torch.dot(f(3), f(3), out=d())
torch.max(f(2, 3), 0, out=(f(3), f(3)))
torch.max(f(2, 3), 0, out=(f(3), i(3)))
torch.max(f(2, 3), 0, out=f(3))
torch.sort(f(3), out=(d(3), i(3)))
torch.topk(f(3), 2, out=(f(2), f(2)))
torch.argmax(f(3), out=f())
torch.nonzero(f(3), out=f(3))
torch.index_select(f(3), 0, i(2), out=d(2))
torch.gather(f(3), 0, i(2), out=d(2))
torch.where(b(3), f(3), f(3), out=d(3))
torch.norm(f(3), out=d())
torch.linalg.norm(f(3), out=d())
torch.tril(f(3, 3), out=d(3, 3))
torch.diag(f(3), out=d(3, 3))
torch.inverse(f(3, 3), out=d(3, 3))
torch.linalg.qr(f(3, 3), out=(f(3, 3), d(3, 3)))
torch.masked_select(f(3), b(3), out=d(3))
torch.take(f(3), i(3), out=d(3))
torch.multinomial(f(3).abs(), 2, out=f(2))
torch.floor(f(3), out=d(3))
torch.sum(f(2, 3), 0, out=d(3))
torch.std(f(3), 0, out=d())
torch.eq(f(3), f(3), out=f(3))
torch.sum(f(2, 3) * 4, 0, out=i(3))
torch.sum(i(2, 3), 0, out=b(3))
torch.sum(i(2, 3), 0, out=f(3))
torch.sum(f(2, 3), (0, 1), True, out=torch.empty(1, 1, dtype=torch.int16))
torch.sum(f(2, 3), 0, dtype=torch.float64, out=f(3))
torch.sum(f(2, 3), 0, dtype=torch.int64, out=i(3))
torch.prod(f(2, 3) * 4, 0, out=i(3))
torch.prod(b(2, 3), 0, out=b(3))
torch.nansum(i(2, 3), 0, out=b(3))
torch.nansum(f(2, 3), 0, dtype=torch.float64, out=f(3))
torch.mean(f(2, 3), 0, out=d(3))
torch.mean(f(2, 3), 0, out=i(3))
torch.mean(f(2, 3), 0, dtype=torch.float64, out=f(3))
torch.cumsum(f(2, 3) * 4, 0, out=i(2, 3))
torch.cumsum(f(2, 3), 1, out=d(2, 3))
torch.cumprod(f(2, 3) * 4, 1, out=i(2, 3).int())
torch.cumprod(f(2, 3), 1, dtype=torch.int64, out=f(2, 3))
torch.full((2,), 2.5, out=i(2))
torch.full((2,), 2, out=f(2))
torch.full((2,), 2.5, out=b(2))
torch.full((2,), 1j, out=f(2))
torch.full((2,), 2.5, dtype=torch.float32, out=i(2))
torch.zeros(2, dtype=torch.float64, out=f(2))
torch.ones(2, out=i(3))
torch.eye(2, out=i(2, 2))
torch.eye(2, dtype=torch.int64, out=f(2, 2))
torch.arange(6, out=f(2, 3))
torch.arange(6, out=f(2, 2))
torch.arange(6, out=torch.empty(0))
torch.arange(6, dtype=torch.int32, out=f(6))
torch.range(0, 3, out=f(2, 2))
torch.linspace(0, 1, 6, out=f(2, 3))
torch.linspace(0, 1, 6, dtype=torch.float64, out=f(6))
torch.logspace(0, 1, 4, out=d(2, 2))
torch.randperm(4, dtype=torch.int32, out=i(4))
torch.bernoulli(torch.ones(3), out=b(3))
torch.bernoulli(f(3).abs().clamp(max=1), out=i(3))
torch.softmax(f(2, 3), 1, out=f(2, 3))
torch.softmax(f(2, 3), 1, torch.float64, out=d(2, 3))
torch.softmax(f(2, 3), 1, out=torch.empty(0))
torch.softmax(f(2, 3), 1, out=d(2, 3))
torch.log_softmax(f(2, 3), 0, out=f(2, 3))
torch.log_softmax(f(2, 3), 0, out=d(2, 3))
torch.clamp(f(2, 3), 0, 1, out=d(2, 3))
torch.clamp(f(2, 3), 0, 1, out=f(2, 3))
torch.isposinf(f(3), out=f(3))
torch.isneginf(f(3), out=b(3))
"""

ASSIGNED = """
x = t(); x[0] = [1, 2, 3, 4]
x = t(); x[0, 0] = [1]
x = t(); x[0] = (1, 2, 3, 4)
x = t(); x[:2] = [[1, 2, 3, 4], [5, 6, 7, 8]]
x = t(); x[0] = np.ones(4)
x = t(); x[0] = range(4)
x = t(); x[0] = [torch.tensor(1.0)] * 4
x = t(); x[0] = 'a'
x = t(); x[[0, 1]] = [1, 2, 3, 4]
x = t(); x[torch.tensor([0, 1])] = np.ones(4)
x = t(); x[x > 3] = [1.0]
x = t(); x[...] = []
x = t(); x[0] = np.float32(2)
x = t(); x[0, 1] = np.float16(2)
x = t(); x[0] = np.bool_(True)
x = t(); x[0] = np.float64(2.5); x
x = t(); x[0, 1] = np.int8(2); x
x = t(); x[x > 3] = np.int64(2); x
x = t(); x[[0, 2]] = np.float64(2.5); x
x = t(); x[0] = 2 + 0j; x
x = t(); x[0] = 2 + 1j; x
x = t(); x[0] = np.complex128(2); x
x = i(2, 3); x[0] = 2.75 + 0j; x
x = b(2, 3); x[0] = 1j; x
x = c(2, 3); x[0] = 1j; x
x = t(); x.fill_([1])
x = t(); x.fill_(None)
x = t(); x.fill_('a')
x = t(); x.fill_(np.float32(2)); x
x = t(); x.masked_fill_(x > 3, [1])
x = t(); x.masked_fill_(x > 3, np.float32(2)); x
x = i(2, 3); x.fill_(1 + 0j); x
"""

HISTOGRAMS = """
torch.histogramdd(f(9, 2), [3, 4])
torch.histogramdd(f(9, 2), 2, weight=f(9))
torch.histogramdd(f(3, 3, 2), 2, range=[-1.0, 1, -1.0, 0.5])
torch.histogramdd(d(9, 3), [2, 1, 3], density=True)
torch.histogramdd(f(9, 2), [torch.tensor([-1.0, 0, 1]), torch.tensor([-1.0, 0.5])])
torch.histogramdd(f(0, 2), 2)
torch.histogramdd(f(9, 2), [3])
torch.histogramdd(f(9, 2), 2, range=[0.0, 1])
torch.histogramdd(f(9), 2)
torch.histogramdd(i(9, 2), 2)
torch.histogramdd(f(9, 2), 2, weight=f(3))
torch.histogramdd(f(9, 2), 0)
"""

SEGMENTS = """
torch.segment_reduce(f(6, 2), 'sum', lengths=torch.tensor([2, 1, 3]))
torch.segment_reduce(f(6, 2), 'mean', lengths=torch.tensor([2, 0, 4]))
torch.segment_reduce(f(6, 2), 'mean', lengths=torch.tensor([2, 0, 4]), initial=3.0)
torch.segment_reduce(f(6, 2), 'max', lengths=torch.tensor([2, 0, 4]).int())
torch.segment_reduce(f(6, 2), 'min', lengths=torch.tensor([2, 0, 4]), initial=0.5)
torch.segment_reduce(f(6, 2), 'prod', lengths=torch.tensor([2, 0, 4]), initial=3)
torch.segment_reduce(f(6, 2), 'sum', offsets=torch.tensor([0, 2, 6]))
torch.segment_reduce(f(6, 2), 'sum', offsets=torch.tensor([1, 2, 5]))
torch.segment_reduce(f(6, 2), 'mean', offsets=torch.tensor([0, 2, 6]), lengths=i(2))
torch.segment_reduce(f(2, 4, 3), 'sum', lengths=torch.tensor([[1, 3], [4, 0]]), axis=1)
torch.segment_reduce(d(6), 'amax', lengths=torch.tensor([2, 4]), axis=-1)
torch.segment_reduce(f(6, 2), 'sum', lengths=torch.tensor([1, 2]))
torch.segment_reduce(f(6, 2), 'sum', lengths=torch.tensor([1, 2]), unsafe=True)
torch.segment_reduce(f(6, 2), 'sum', lengths=torch.tensor([-1, 7]))
torch.segment_reduce(f(6, 2), 'sum', lengths=f(2))
torch.segment_reduce(f(6, 2), 'sum')
torch.segment_reduce(f(6, 2), 'foo', lengths=torch.tensor([2, 4]))
torch.segment_reduce(f(6, 2), 'sum', indices=torch.tensor([0, 0, 1, 1, 1, 1]))
torch.segment_reduce(i(6, 2), 'sum', lengths=torch.tensor([2, 4]))
torch.segment_reduce(f(0, 2), 'sum', lengths=torch.tensor([0]))
x, n = runs(); torch.autograd.grad((torch.segment_reduce(x, 'sum', lengths=n) ** 2).sum(), x)
x, n = runs(); torch.autograd.grad(torch.segment_reduce(x, 'max', lengths=n).sum(), x)
x, n = runs(); torch.autograd.grad(torch.segment_reduce(x, 'prod', lengths=n).sum(), x)
"""

DATA = """
torch.tensor([1, 'a'])
torch.tensor(['a', 1])
torch.tensor([[1], ['a']])
torch.tensor('a')
torch.tensor(b'a')
torch.tensor([1, b'a'])
torch.tensor([True, 'a'])
torch.tensor([torch.ones(1), 'a'])
c(2).resolve_conj().is_conj()
torch.is_conj(f(2))
f(2).is_neg()
torch.is_neg(1)
"""

CLASSIFIERS = """
F.linear_cross_entropy(f(4, 3), f(5, 3), torch.tensor([0, 4, 2, 1]))
F.linear_cross_entropy(f(3), f(5, 3), torch.tensor(2), linear_bias=f(5), reduction='sum')
F.linear_cross_entropy(f(4, 3), f(5, 3), i(4), ignore_index=2, weight=f(5).abs())
F.linear_cross_entropy(f(4, 3), f(5, 2, 3), i(4, 2), linear_bias=f(5, 2), label_smoothing=0.1)
F.linear_cross_entropy(f(4, 3), f(5, 3), f(4, 5).softmax(1), reduction='none')
F.linear_cross_entropy(f(4, 3), f(5, 3), f(4, 5).softmax(1), ignore_index=1)
F.linear_cross_entropy(f(4, 3), f(5, 3), f(3, 5).softmax(1))
F.cross_entropy(f(4, 5), f(3, 5).softmax(1))
F.cross_entropy(f(4, 5), f(4))
F.linear_cross_entropy(f(2, 4, 3), f(5, 3), i(2, 4))
F.linear_cross_entropy(f(4, 3), f(3), i(4))
F.linear_cross_entropy(f(4, 3), f(5, 2), i(4))
F.linear_cross_entropy(f(4, 3), f(5, 3), i(4), linear_bias=f(4))
F.linear_cross_entropy(f(3), f(5, 2, 3), i(2))
x, w = g(4, 3), g(5, 3); torch.autograd.grad(F.linear_cross_entropy(x, w, i(4)), (x, w))
l = nn.LinearCrossEntropyLoss(3, 5, out_features=(2,), bias=True); l(f(4, 3), i(4, 2))
repr(nn.LinearCrossEntropyLoss(3, 5))
nn.LinearCrossEntropyLoss(3, 5, weight=f(4))
nn.LinearCrossEntropyLoss(3, 5, label_smoothing=2.0)
o = nn.LinearCrossEntropyOptions(); nn.LinearCrossEntropyLoss(3, 5, options=o)(f(4, 3), i(4))
nn.LinearCrossEntropyOptions(acc_policy='fast')
nn.LinearCrossEntropyOptions(batch_chunk_size=0)
nn.LinearCrossEntropyOptions(acc_dtype=torch.int32)
"""

EIGENPAIRS = """
torch.lobpcg(spd(12), k=2)[0]
torch.lobpcg(spd(12), k=2, largest=False)[0]
torch.lobpcg(spd(12), k=2, B=spd(12) + torch.eye(12))[0]
torch.lobpcg(spd(12), X=d(12, 3))[0]
torch.lobpcg(torch.stack([spd(9), 2 * spd(9)]), k=3)[0]
torch.lobpcg(spd(12).to_sparse(), k=1)[0]
A = spd(12); e, v = torch.lobpcg(A, k=2, B=A + 1); (A @ v - (A + 1) @ v * e).abs().max() < 1e-4
A = spd(12); e, v = torch.lobpcg(A, k=2, B=A + 1); (v.T @ (A + 1) @ v).round(decimals=4).abs()
torch.manual_seed(1); e = torch.lobpcg(spd(12), k=2, n=3); torch.rand(2)
torch.lobpcg(spd(12), k=5)
torch.lobpcg(spd(12)[:, :4], k=1)
"""

WINDOWS = """
torch.signal.windows.bartlett(5)
torch.signal.windows.bartlett(5, sym=False)
torch.signal.windows.blackman(6, sym=False)
torch.signal.windows.cosine(4, sym=False)
torch.signal.windows.cosine(5)
torch.signal.windows.exponential(5, tau=2.0)
torch.signal.windows.exponential(5, center=1.0, sym=False)
torch.signal.windows.exponential(5, center=1.0)
torch.signal.windows.exponential(5, tau=0.0)
torch.signal.windows.gaussian(5, std=1.5)
torch.signal.windows.gaussian(4, sym=False, dtype=torch.float64)
torch.signal.windows.gaussian(5, std=-1.0)
torch.signal.windows.general_cosine(6, a=[0.5, 0.3, 0.2])
torch.signal.windows.general_cosine(6, a=[])
torch.signal.windows.general_cosine(6, a=0.5)
torch.signal.windows.general_cosine(6)
torch.signal.windows.general_hamming(6, alpha=0.7)
torch.signal.windows.hamming(6)
torch.signal.windows.hann(1)
torch.signal.windows.hann(0)
torch.signal.windows.hann(-1)
torch.signal.windows.hann(3.0)
torch.signal.windows.hann(3, dtype=torch.int64)
torch.signal.windows.hann(3, layout=torch.sparse_coo)
torch.signal.windows.hann(3, requires_grad=True)
torch.signal.windows.hann(3, beta=2)
torch.signal.windows.kaiser(5, beta=3.0, sym=False)
torch.signal.windows.kaiser(5, beta=-3.0)
torch.signal.windows.nuttall(7)
"""

SIZES = """
torch.Size([2.0])
torch.Size([2, 'a'])
torch.Size([None])
torch.Size([[1]])
torch.Size([torch.tensor(3.0)])
torch.Size([np.float32(2)])
torch.Size(3)
torch.Size([torch.tensor(3)])
repr(torch.Size([True, np.int64(2)]))
torch.Size(k for k in range(3))
torch.Size([1]) + (2.5,)
torch.Size([1]) + (2,)
t().shape[1:]
"""

GONE = """
torch.eig(f(2, 2))
torch.symeig(f(2, 2))
torch.lstsq(f(2, 2), f(2, 2))
torch.solve(f(2, 2), f(2, 2))
torch.matrix_rank(f(2, 2))
f(2, 2).eig()
f(2, 2).symeig()
f(2, 2).lstsq(f(2, 2))
f(2, 2).solve(f(2, 2))
torch.lu(f(3, 3))
torch.lu(f(2, 3, 3), get_infos=True)
f(3, 3).lu()
"""

REFLECTORS = """
torch.geqrf(d(3, 2))
torch.geqrf(d(2, 3))
torch.geqrf(d(3, 3))
torch.geqrf(torch.zeros(3, 3))
torch.geqrf(torch.eye(3))
torch.geqrf(d(2, 4, 3))
torch.geqrf(c(4, 3))
torch.geqrf(c(3, 3))
torch.geqrf(f(0, 3))
torch.geqrf(f(3, 0))
torch.geqrf(f(3))
torch.geqrf(i(3, 3))
a, s = torch.geqrf(d(4, 3)); torch.ormqr(a, s, d(4, 2))
a, s = torch.geqrf(d(4, 3)); torch.ormqr(a, s, d(2, 4), left=False, transpose=True)
a, s = torch.geqrf(c(4, 3)); torch.ormqr(a, s, c(4, 2), transpose=True)
a, s = torch.geqrf(c(4, 3)); torch.ormqr(a, s, c(2, 4), left=False)
a, s = torch.geqrf(d(2, 4, 3)); torch.ormqr(a, s, d(2, 4, 2))
a, s = torch.geqrf(d(4, 3)); torch.ormqr(a, s, d(3, 2))
a, s = torch.geqrf(d(4, 3)); torch.ormqr(a, s, f(4, 2))
torch.ormqr(d(4, 2), d(3), d(4, 2))
"""

MORE = """
torch.device(-1)
torch.device('cpu', -1)
torch.device('cpu', (1,))
torch.device('cpu', 0)
torch.unique(c(3))
torch.unique(i(3), [1.5])
f(3, 4).sum(0, 1)
f(3, 4).mean(0, 1)
f(3, 4).amax(0, 1)
f(3, 4).all(0, 1)
f(3, 4).std(0, True, 1)
f(3, 4).var(0, True, True)
f(3, 4).max(0, 1)
f(3, 4).argmax(0, 1)
f(3, 4).median(0, 1)
f(3, 4).sum(0, True)
f(3, 4).logsumexp(0, 1)
torch.linalg.vector_norm(f(3), 2, 0, 1)
torch.normal(i(3))
torch.normal(f(3), 1.0, ...)
torch.normal(0.0, f(3).abs(), (2, 3))
nn.Flatten(1)(f())
nn.Flatten(0)(f())
f().flatten(0, -1)
f(3).map_(d(3), lambda x, y: x)
torch.linalg.lstsq(f(3, 2), f(3, 1), driver='foo')
torch.linalg.qr(f(3))
torch.fft.fft(f(3), n=-1)
torch.fft.rfft(f(3), n=-1)
torch.fft.fftn(f(3, 3), s=(-1, 2))
torch.fft.fftfreq(0)
torch.fft.rfftfreq(0)
F.pad(f(2, 3), (1, 1), mode='reflect', value=1.0)
nn.Parameter(f(3), 1)
nn.Parameter(f(3), False)
torch.zeros(2, layout=1)
f(3).index_fill(0, torch.tensor([-1]), 2.0)
f(3, 2).index_fill(0, torch.tensor([-3, 1]), 2.0)
f(3).index_fill(0, torch.tensor([-4]), 2.0)
f(3).index_fill(0, torch.tensor([3]), 2.0)
f(3).index_fill(0, torch.tensor([-1]) - 4, 2.0)
f(3).index_fill_(0, torch.tensor(-2), 2.0)
f(3).index_fill(0, torch.tensor([-1], dtype=torch.int32), 2.0)
f(3).unfold(0, -1, 1)
torch.topk(f(3), 2.0)
f(3).gather(0, z()[:1])
f(3).scatter(0, z()[:1], 1.0)
f(3).scatter_add(0, z()[:1], f(1))
f(3).index_add(0, z()[:1], f(1))
f(3).index_copy(0, z()[:1], f(1))
f(3).index_select(0, z()[:1])
f(3).index_reduce(0, z()[:1], f(1), 'prod')
f(3).put_(z()[:1], f(1))
f(3).scatter_reduce(0, z()[:1], f(1), 'sum')
f(3).take_along_dim(z()[:1], 0)
f(3).index_put((z()[:1],), f(1))
F.embedding(z()[:1], f(2,2))
F.nll_loss(f(2,3), z())
F.one_hot(z()[:1])
f(3).take(z())
"""

QUANTISED = """
q(v(), 0.1, 0, 0, 255)
q(v(), 0.1, 3, -128, 127)
q(v(), torch.tensor(0.1), torch.tensor(3).int(), -128, 127)
q(v().double(), 0.1, 0, 0, 255)
q(v().half(), 0.1, 0, 0, 255)
q(v().int(), 0.1, 0, 0, 255)
q(v(), 0.1, 0, 5, 1)
q(v(), 0.1, 300, 0, 255)
q(v(), torch.tensor([0.1, 0.2]), torch.tensor([3]).int(), -128, 127)
q(v(), torch.tensor(0.1, requires_grad=True), torch.tensor(3).int(), 0, 9)
q(v(), -0.1, 0, 0, 255)
q(v(), 0.1, 1.5, 0, 255)
q(v(), torch.tensor(0.1), torch.tensor(300).int(), -128, 127)
qc(f(2,3), w(), z(), 0, 0, 255)
qc(f(2,3), w(), torch.tensor([0.,1.5]), 0, 0, 255)
qc(f(2,3), w(), torch.tensor([0,1]), 0, 0, 255)
qc(f(2,3), w(), z(), 1, 0, 255)
qc(f(2,3), w(), z(), 5, 0, 255)
qc(f(2,3), torch.tensor([[.1,.2]]), z(), 0, 0, 255)
qc(f(2,3), w(), torch.tensor([0]).int(), 0, 0, 255)
qc(f(2,3), w().double(), z(), 0, 0, 255)
qc(f(2,3), w(), torch.tensor([0,300]).int(), 0, 0, 255)
qc(d(2,3), torch.tensor([.1,.2,.3]), torch.tensor([0,1,2]).int(), -1, 0, 5)
x=v().requires_grad_(); torch.autograd.grad((q(x, 0.1, 0, 0, 25)*torch.arange(9.)).sum(), x)
x=g(2,3); torch.autograd.grad((qc(x, w(), z(), 0, 0, 9)*f(2,3)).sum(), x)
"""

SPARSE = """
torch.sparse.softmax(s(), 1)
torch.sparse.softmax(s(), 0)
torch.sparse.softmax(s(), -1)
torch.sparse.softmax(s(), 2)
torch.sparse.log_softmax(s(), 1, dtype=torch.float64)
torch.sparse.softmax(f(2,2), 1)
torch.sparse.softmax(i(2,2).to_sparse(), 1)
torch.sparse.softmax(torch.zeros(2,2).to_sparse(), 1)
torch.sparse.softmax(f(2,3,2).to_sparse(2), 1)
torch.sparse.softmax(f(2,3,2).to_sparse(2), 2)
torch.sparse.log_softmax(f(2,3,2).to_sparse(), 0)
torch.sparse.softmax(torch.sparse_coo_tensor([[0,0,1],[1,1,0]], [1.,2.,3.], (2,2)), 1)
x=s().requires_grad_(); (torch.sparse.softmax(x, 1).to_dense()*f(3,3)).sum().backward(); x.grad
x=s().requires_grad_(); (torch.sparse.log_softmax(x, 0).to_dense()*f(3,3)).sum().backward(); x.grad
torch.sparse.spdiags(i(3,3), torch.tensor([0,-1,2]), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([0,-1,2]), (3,3))._values()
torch.sparse.spdiags(f(3,3), torch.tensor([0,-1,2]), (3,3)).is_coalesced()
torch.sparse.spdiags(f(3,3), torch.tensor([0,0,2]), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([0,1]), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([[0,1,2]]), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([0,1,2.]), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([0,1,2]), (3,3,3))
torch.sparse.spdiags(f(3), torch.tensor([1]), (3,3))
torch.sparse.spdiags(f(3), torch.tensor(1), (3,3))
torch.sparse.spdiags(f(3,3), torch.tensor([0,1,2]), (2,5))
torch.sparse.spdiags(f(3,3), torch.tensor([0,1,2]), (3,3), layout=torch.sparse_csr)
torch.sparse.spdiags(f(3,3), torch.tensor([0,1,2]), (3,3), layout=torch.strided)
"""

FAMILIES = [
    GRIDS,
    NUMBERS_OUT_OF_TENSORS,
    DTYPES,
    SHAPES,
    INDICES,
    OUT,
    ASSIGNED,
    HISTOGRAMS,
    SEGMENTS,
    DATA,
    CLASSIFIERS,
    EIGENPAIRS,
    WINDOWS,
    SIZES,
    GONE,
    REFLECTORS,
    MORE,
    QUANTISED,
    SPARSE,
]


@pytest.mark.parametrize("call", [line for calls in FAMILIES for line in calls.split("\n") if line])
def test_a_call_has_the_same_outcome(call: str) -> None:
    _check(call)


def test_ormqr_has_a_gradient_by_each_operand() -> None:
    call = (
        "a, s = torch.geqrf(d(4, 3)); o = d({0}).requires_grad_(); a.requires_grad_(); "
        "s.requires_grad_(); y = torch.ormqr(a, s, o, {1}); "
        "torch.autograd.grad((y * d({0})).sum(), (a, s, o))"
    )
    for sizes, how in (("4, 2", ""), ("2, 4", "left=False, transpose=True")):
        _check(call.format(sizes, how))


MESSAGES = """
f(2, 3, 4) + f(2, 5, 6)
f(2, 3, 4) + f(5, 1, 6)
f(2, 3) + f(4)
f(2, 3)[0, 7]
f(2, 3)[0, -7]
f(2, 3)[None, 0, 7]
f(2, 3)[..., 7]
f(2, 3)[5]
x = f(2, 3); x[0, 7] = 1.0; x
x = f(3); x.set_(f(6).untyped_storage(), 4, (3,), (1,))
x = f(3); x.set_(f(6), 4, (3,), (1,))
f(6)[2:].as_strided((6,), (1,))
torch.eig(f(2, 2))
torch.full((2,), g())
torch.tensor(['a'])
~f(3)
torch.geqrf(f(3))
"""


@pytest.mark.parametrize("call", [line for line in MESSAGES.split("\n") if line])
def test_a_message_begins_as_that_of_pytorch(call: str) -> None:
    expected, got = _outcome(call, torch), _outcome(call, graphtorch)
    assert got[0] == expected[0] != "returned"
    first = expected[1].split("\n")[0].rstrip(".")
    assert got[1].startswith(first), (first, got[1])


GRADIENTS = """
torch.autograd.gradcheck(lambda x: x * x.detach(), (d(2).requires_grad_(),))
torch.autograd.gradcheck(lambda x: (x + 1, x * x.detach()), (d(2, 1).requires_grad_(),))
torch.autograd.gradcheck(lambda x: torch.complex(x, x * x.detach()), (d(2).requires_grad_(),))
torch.autograd.gradcheck(lambda x: torch.complex(x * x.detach(), x), (d(2).requires_grad_(),))
torch.autograd.gradcheck(lambda x: x.to_sparse(), (d(2).requires_grad_(),))
torch.autograd.gradcheck(lambda x: x * 2, (f(2),))
torch.autograd.gradcheck(lambda x: x.detach() * 2, (d(2).requires_grad_(),))
"""


@pytest.mark.parametrize("call", [line for line in GRADIENTS.split("\n") if line])
def test_what_gradcheck_says_is_the_same(call: str) -> None:
    expected, got = _outcome(call, torch), _outcome(call, graphtorch)
    assert got == expected and expected[0] != "returned"


def test_gradcheck_takes_no_elements_and_refuses_what_is_no_tensor() -> None:
    for call in (
        "lambda x: x * 2, (d(0).requires_grad_(),)",
        "lambda x: 1, (d(2).requires_grad_(),)",
    ):
        _check(f"torch.autograd.gradcheck({call})")


REPRS = """
repr(torch.finfo(torch.float16))
repr(torch.finfo(torch.bfloat16))
repr(torch.finfo(torch.float32))
repr(torch.finfo(torch.float64))
repr(torch.finfo(torch.complex64))
repr(torch.iinfo(torch.uint8))
repr(torch.iinfo(torch.int8))
repr(torch.iinfo(torch.int64))
torch.finfo(torch.float32).resolution
repr(torch.optim.SGD([{'params': g(2)}, {'params': g(3), 'lr': 0.5}], lr=0.1))
repr(torch.optim.AdamW([g(2)]))
"""


@pytest.mark.parametrize("call", [line for line in REPRS.split("\n") if line])
def test_it_prints_the_same(call: str) -> None:
    _check(call)


def test_infinite_norms_of_nothing_are_refused_and_zero_is_its_two_norm() -> None:
    empty = graphtorch.zeros(0)
    assert float(graphtorch.linalg.vector_norm(empty)) == 0.0
    with pytest.raises(RuntimeError, match="does not have an identity"):
        graphtorch.linalg.vector_norm(empty, math.inf)


def test_skip_init_leaves_parameters_as_they_come() -> None:
    skip = graphtorch.nn.utils.skip_init
    layer = skip(graphtorch.nn.Linear, 2, 3, bias=False, dtype=graphtorch.float64)
    assert layer.weight.shape == (3, 2) and layer.bias is None and layer.weight.requires_grad
    assert layer.weight.device.type == "cpu" and layer.weight.dtype is graphtorch.float64
    state = graphtorch.get_rng_state()
    skip(graphtorch.nn.Conv2d, 2, 3, 3)
    assert graphtorch.equal(graphtorch.get_rng_state(), state)
    for wrong in (graphtorch.nn.ReLU, dict):
        with pytest.raises(RuntimeError, match="Module"):
            skip(wrong)
        with pytest.raises(RuntimeError, match="Module"):
            torch.nn.utils.skip_init(wrong)


def test_zero_points_in_memory_are_looked_at_by_the_call() -> None:
    x, steps = graphtorch.ones(3, 2), graphtorch.ones(2)
    for zero in ([300, 0], [0, -1]):
        with pytest.raises(RuntimeError, match="zero_point"):
            graphtorch.fake_quantize_per_channel_affine(
                x, steps, graphtorch.tensor(zero, dtype=graphtorch.int32), 1, 0, 255
            )
    pending = (graphtorch.zeros(2) + 300).to(graphtorch.int32)
    y = graphtorch.fake_quantize_per_channel_affine(x, steps, pending, 1, 0, 255)
    with pytest.raises(RuntimeError, match=r"zero_point.*test_refused_torch\.py"):
        y.tolist()
