"""uint16, uint32 and uint64 beside PyTorch, near both ends of their range, line by line and
compiled.

PyTorch supports them in part. What it computes is equal here; where it refuses, so do we, or the
result is the one that int64 gives there, modulo the dtype's range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

DTYPES = ("uint16", "uint32", "uint64")
ALL = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    *DTYPES,
)
COMPILED = {  # expressions of x and y, two tensors of the dtype, and of the module t
    "arithmetic": """
        x + y; x - y; x * y; x / y; x // y; x % y; x ** 3; x ** 0; x ** 0.5; 5 + x; 5 - x
        x - 1; x * 3; x + 1; x * -1; x / 2; x // 7; x % 7; 100 % (x | 1); 2 ** (x & 7)
        x + 70000; x + (-1); x + True; x + 1.5; x * 0.5; x * 2j; -x; abs(x); x.sign()
        x.square(); t.fmod(x, y); t.maximum(x, y); t.minimum(x, y); t.fmax(x, y)
        t.div(x, y, rounding_mode="trunc"); t.div(x, y, rounding_mode="floor"); t.gcd(x, y)
        t.add(x, y, alpha=3); t.rsub(x, y); t.addcmul(x, x, y); x.clamp(2, 100); x.clip(min=4)
        x.relu(); x.clamp(1.5, 10); t.clamp(x, min=y); x.sqrt(); x.exp(); x.sin(); x.log()
        x.sigmoid(); x.floor(); x.trunc(); x.reciprocal(); x.lerp(y, 0.5); x.frac()
        t.atan2(x, y); x.frac(); t.hypot(x, y); t.nn.functional.gelu(x); t.softmax(x, 1)
        t.softmax(x, 1, dtype=t.float64)""",
    "bits and comparisons": """
        x & y; x | y; x ^ y; ~x; x << 3; x >> 3; x << 100; x >> 100; x << (y & 7)
        x >> (y & 7); x & 3; x | 8; x ^ 255; x & -2; x == y; x != y; x < y; x <= y; x > y
        x >= y; x > 5; x < 2.5; x == 65535; x == 70000; x == -1; x != 1.5; x < float("inf")
        t.logical_and(x, y); t.logical_not(x); x.isnan(); x.isinf(); x.isfinite(); x.signbit()
        t.isin(x, y); t.isin(x, 3); t.isin(x, -1); t.equal(x, y); t.allclose(x, y)
        t.where(x != y, x, y); t.where(x != y, x, 7); t.where(x != y, x, 1.5)
        t.where(x != y, x, -1); t.where(x != y, x, 2 ** 64); t.bitwise_left_shift(x, y)
        x.bool(); x.view(t.uint8); x.view({2: t.int16, 4: t.int32, 8: t.int64}[x.itemsize])
        x.view({2: t.bfloat16, 4: t.float32, 8: t.float64}[x.itemsize]).view(x.dtype)
        x.float().view(t.uint16); t.nextafter(x, y)""",
    "reductions": """
        x.sum(); x.sum(1); x.sum(dtype=x.dtype); x.sum(dtype=t.float64); x.prod(); x.prod(0)
        x.mean(); x.mean(dtype=t.float64); x.max(); x.min(); x.max(1); x.min(0); x.amax(0)
        x.amin(1); x.aminmax(); x.argmax(); x.argmax(1); x.argmin(0); x.any(); x.all(1)
        x.count_nonzero(); x.var(); x.std(); x.median(); x.median(1); x.mode(1); x.norm()
        x.logsumexp(1); x.cumsum(1); x.cumprod(1); x.cummax(1); x.cummin(0)
        x.cumsum(1, dtype=x.dtype); x.cumprod(1, dtype=x.dtype); x.sort(dim=1, stable=True)
        x.sort(dim=1, descending=True, stable=True); x.argsort(1); x.topk(2, 1)
        x.kthvalue(2, 1); x.msort(); x.nansum(); x.nanmean(); (x != y).sum(dtype=x.dtype)
        x @ y.T; t.dot(x[0], y[0]); t.outer(x[0], y[0]); t.mv(x, y[0])
        t.bmm(x[None], y.T[None]); t.einsum("ij,kj->ik", x, y); t.diff(x); x.trace()
        x[:0].sum(); x[:0].max(); t.linalg.vector_norm(x)
        t.nn.functional.max_pool1d(x[None], 2)""",
    "indices": """
        x[:, 1::2]; x[0, 3]; x[:, t.tensor([3, 0, 5])]; x[x != y]
        x.gather(1, t.tensor([[3, 0], [1, 2]])); x.take(t.tensor([3, 0, 11]))
        x.index_select(1, t.tensor([3, 4])); x.masked_fill(x != y, 1)
        x.masked_fill(x != y, -1); x.masked_select(x != y); x.masked_scatter(x != y, y)
        x.nonzero(); x.scatter(1, t.tensor([[3, 0], [1, 2]]), y)
        x.scatter_add(1, t.tensor([[3, 0], [1, 1]]), y)
        x.scatter_reduce(1, t.tensor([[3, 0], [1, 1]]), y, "amax")
        x.index_add(1, t.tensor([3, 0]), y[:, :2])
        x.index_copy(1, t.tensor([3, 0]), y[:, :2]); x.index_fill(1, t.tensor([3, 0]), 7)
        t.cat([x, y]); x.index_put((t.tensor([0, 1]), t.tensor([2, 3])), y[0, :2])
        t.stack([x, y]); t.hstack([x, y]); t.arange(10)[x[0, :3]]
        t.arange(10).gather(0, x[0, :3]); t.nn.functional.one_hot(x[0, :3])
        t.nn.functional.embedding(x[0, :3], t.eye(3)); t.bincount(x[0, :3])
        t.searchsorted(x[0].sort()[0], y); x.flip(1); x.roll(1, 1); x.repeat(2, 1); x.tile(2)
        x.repeat_interleave(2); x.T.contiguous(); x.tril(); x.reshape(3, 4); x.unfold(1, 2, 2)
        x.diagonal(); t.diag_embed(x); x.expand(3, 2, 6).contiguous()
        t.nn.functional.pad(x, (1, 1), value=5)
        t.nn.functional.pad(x, (1, 1), mode="circular"); x.unbind()
        t.unique(x, return_inverse=True, return_counts=True); t.unique_consecutive(x)
        x.split(4, 1)""",
    "writes": """
        put(x, (0, slice(0, 3)), 9); put(x, 0, y[1]); put(x, x != y, 3); put(x, 0, -1)
        put(x, 0, 2 ** 32 - 1); put(x, 0, 1.5); x.clone().add_(y); x.clone().mul_(y)
        x.clone().add_(3); x.clone().bitwise_or_(y); x.clone().fill_(3); x.clone().fill_(-3)
        x.clone().zero_(); x.clone().copy_(y.double().clamp(0, 999)); x.clone().add_(1.5)
        x.clone().clamp_(1, 5); x.clone().fill_(2 ** 64); x.double().copy_(y)""",
    "casts": "; ".join(f"x.to(t.{d}); t.tensor([0, 1, 3, 100]).to(t.{d}).to(x.dtype)" for d in ALL),
}
MADE = {
    "creation": """
        t.full((2,), 3, dtype=x.dtype); t.full((2,), -1, dtype=x.dtype)
        t.full((2,), 2 ** 64, dtype=x.dtype); t.full((2,), 2 ** 16 - 1, dtype=x.dtype)
        t.zeros(3, dtype=x.dtype); t.ones(3, dtype=x.dtype)
        t.full((2,), 2 ** 32, dtype=x.dtype); t.eye(3, dtype=x.dtype)
        t.arange(2, 9, 3, dtype=x.dtype); t.linspace(0, 100, 5, dtype=x.dtype)
        t.full_like(x, 9); x.new_full((2,), 7); x.new_tensor([1, 2])
        t.tensor([1, 2 ** 16 - 1], dtype=x.dtype); t.tensor([-1], dtype=x.dtype)
        t.tensor(2 ** 16, dtype=x.dtype); t.tensor([x[0, 3].numpy()])
        t.tensor(2 ** 63, dtype=x.dtype); t.tensor(2 ** 64, dtype=x.dtype)
        t.tensor(True, dtype=x.dtype); t.tensor(2 ** 63); t.tensor(x); t.as_tensor(x.numpy())
        t.tensor(x.numpy()); t.zeros_like(x); t.ones_like(x)
        t.scalar_tensor(5, dtype=x.dtype); t.iinfo(x.dtype).max; x.tolist(); x.type()
        x.type("torch.UInt16Tensor"); x.is_signed(); x[0, 3].item(); int(x[0, 5])
        bool(x[0, 1]); t.randint(7, 8, (4,), dtype=x.dtype); x.clone().random_()
        t.randperm(1, dtype=x.dtype); str(x); t.zeros(3, dtype=x.dtype).bernoulli_(1.0)
        t.ones(2, dtype=t.bool) * 2 ** 63""",
    "promotion": "; ".join(
        f"x * y.to(t.{d}); x * t.tensor(3).to(t.{d}); x[0, 2] * y.to(t.{d}); x == y.to(t.{d}); "
        f"t.cat([x, y.to(t.{d})]); t.where(x != y, x, y.to(t.{d})); t.can_cast(x.dtype, "
        f"t.{d})"
        for d in ALL
    ),
}
# int64 differs, or PyTorch refuses that as well; checked below against NumPy, or in the reference's
# tests
NO_INTEGERS = ("x.frac()", "x.logsumexp", "max_pool1d", ".view(", "x.to(t.bfloat16)", "hypot")


def put(x: Any, key: Any, value: Any) -> Any:
    x = x.clone()
    x[key] = value
    return x


def expressions(table: str) -> list[str]:
    """Divided by semicolons and by lines; a bracket may go over two lines."""
    found: list[str] = []
    for part in table.replace(";", "\n").splitlines():
        if found and found[-1].count("(") > found[-1].count(")"):
            found[-1] += part
        elif part.strip():
            found.append(part.strip())
    return found


def arrays(dtype: str, bits: int | None = None) -> list[np.ndarray]:
    top = 2 ** (bits or int(dtype[4:])) - 1
    return [
        np.array(rows, dtype)
        for rows in (
            [[0, 1, 2, top, top - 1, top // 2], [top // 2 + 1, 3, 5, 7, top - 2, top // 3]],
            [[1, top, 3, 2, top - 1, top // 2], [top // 2 + 1, top, 2, 1, 9, 15]],
        )
    ]


def flat(found: Any) -> list[tuple[str, np.ndarray]]:
    """Dtype and elements of each tensor in a result; what is no tensor by its type."""
    if isinstance(found, (torch.Tensor, graphtorch.Tensor)):
        return [
            (str(found.dtype), (found.float() if "bfloat" in str(found.dtype) else found).numpy())
        ]
    if isinstance(found, (tuple, list)):
        return [part for item in found for part in flat(item)]
    return [(type(found).__name__, np.asarray(found, object))]


def outcome(
    t: Any, text: str, given: list[np.ndarray], call: Callable[..., Any] | None = None
) -> Any:
    """What an expression gives: its tensors, or the error."""
    function = evaluator(t, text)
    t.manual_seed(0)
    try:
        return flat((call or (lambda f: f))(function)(*[t.from_numpy(a.copy()) for a in given]))
    except Exception as error:
        return error


def evaluator(t: Any, text: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {"t": t, "put": put}
    exec(f"def f(x, y):\n    return ({text})", scope)
    return scope["f"]


def assert_same(text: str, found: Any, expected: Any) -> None:
    assert [d for d, _ in found] == [d for d, _ in expected], text
    for (dtype, a), (_, b) in zip(found, expected, strict=True):
        assert a.shape == b.shape, text
        if a.dtype.kind in "fc":
            rtol = {"torch.float16": 2e-3, "torch.bfloat16": 1e-2, "torch.float64": 1e-12}.get(
                dtype, 1e-5
            )
            np.testing.assert_allclose(a, b, rtol, err_msg=text)
        else:
            np.testing.assert_array_equal(a, b, err_msg=text)


def modulo(expected: Any, found: Any, dtype: str) -> Any:
    """Results of int64 as ones of an unsigned dtype, where that is what was found."""
    return [
        (d, b.astype(dtype)) if (d, c) == (f"torch.{dtype}", "torch.int64") else (c, b)
        for (d, _), (c, b) in zip(found, expected, strict=True)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [*COMPILED, *MADE])
def test_what_pytorch_computes_is_equal(group: str, dtype: str) -> None:
    for text in expressions({**COMPILED, **MADE}[group]):
        expected, found = (outcome(t, text, arrays(dtype)) for t in (torch, graphtorch))
        if not isinstance(expected, Exception):
            assert not isinstance(found, Exception), (text, found)
            assert_same(text, found, expected)
        elif not isinstance(expected, NotImplementedError):
            assert type(found) is type(expected), (text, expected, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", COMPILED)
def test_what_pytorch_refuses_is_as_of_int64(group: str, dtype: str) -> None:
    given = arrays(dtype, min(int(dtype[4:]), 61))
    count = 0
    for text in expressions(COMPILED[group]):
        found, refused = outcome(graphtorch, text, given), outcome(torch, text, given)
        if isinstance(found, Exception) or not isinstance(refused, Exception):
            continue
        if any(part in text for part in NO_INTEGERS):
            continue
        expected = outcome(
            torch, text.replace("x.dtype", "t.int64"), [a.astype(np.int64) for a in given]
        )
        assert not isinstance(expected, Exception), (text, expected)
        assert_same(text, found, modulo(expected, found, dtype))
        count += 1
    assert count >= {"casts": 0, "writes": 4}.get(group, 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", COMPILED)
def test_compiled(group: str, dtype: str) -> None:
    """All of a group that work, as one function."""
    given = arrays(dtype)
    plain = {text: outcome(graphtorch, text, given) for text in expressions(COMPILED[group])}
    plain = {text: found for text, found in plain.items() if not isinstance(found, Exception)}
    both = "[" + ", ".join(plain) + "]"
    expected = [part for found in plain.values() for part in found]
    compiled = graphtorch.compile(evaluator(graphtorch, both))
    for _ in range(2):
        found = flat(compiled(*[graphtorch.from_numpy(a.copy()) for a in given]))
        assert_same(group, found, expected)


NUMPY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "x + y": np.add,
    "x - y": np.subtract,
    "x * y": np.multiply,
    "x < y": np.less,
    "x >= y": np.greater_equal,
    "t.maximum(x, y)": np.maximum,
    "x // (y | 1)": lambda x, y: x // (y | 1),
    "-x": lambda x, y: np.negative(x),
    "x % (y | 1)": lambda x, y: x % (y | 1),
    "x >> 3": lambda x, y: x >> 3,
    "x << 3": lambda x, y: x << 3,
    "x ** 3": lambda x, y: x**3,
    "x.min(1)[0]": lambda x, y: x.min(1),
    "x.max(0)[1]": lambda x, y: x.argmax(0),
    "x.float()": lambda x, y: x.astype(np.float32),
    "x.sort(1)[0]": lambda x, y: np.sort(x, 1),
    "x.double()": lambda x, y: x.astype(float),
    "x.argsort(1)": lambda x, y: np.argsort(x, 1, kind="stable"),
    "x.cummax(1)[0]": lambda x, y: np.maximum.accumulate(x, 1),
    "x.cumsum(1, dtype=x.dtype)": lambda x, y: np.cumsum(x, 1, dtype=x.dtype),
    "x.sum(1, dtype=x.dtype)": lambda x, y: x.sum(1, dtype=x.dtype),
    "x / y": lambda x, y: x.astype(np.float32) / y.astype(np.float32),
    "(x.double() / 3).to(x.dtype)": lambda x, y: (x.astype(float) / 3).astype(x.dtype),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_upper_half_of_the_range_beside_numpy(dtype: str) -> None:
    """int64 does not hold it of uint64: what PyTorch refuses there is NumPy's."""
    given = arrays(dtype)
    for text, function in NUMPY.items():
        for call in (None, graphtorch.compile):
            ((_, found),) = outcome(graphtorch, text, given, call)
            expected = function(*given)
            assert found.dtype == expected.dtype, text
            np.testing.assert_array_equal(found, expected, err_msg=text)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_pass_by_unsigned_numbers(dtype: str) -> None:
    results = []
    for t in (torch, graphtorch):
        weight = t.linspace(-1, 1, 12).reshape(2, 6).requires_grad_()
        x = t.from_numpy(arrays(dtype)[0] % 1000)
        (weight * x.float() + weight.square() * x.to(t.uint8).float()).sum().backward()
        results.append(weight.grad.numpy())
        with pytest.raises(RuntimeError, match="floating point"):
            x.requires_grad_()
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_shared_with_numpy(dtype: str) -> None:
    array = arrays(dtype)[0]
    x = graphtorch.from_numpy(array)
    x[0, 0] = 7
    array[1, 1] = 8
    assert array[0, 0] == 7 and x[1, 1] == 8 and x.numpy().dtype == array.dtype
    assert graphtorch.tensor(array.T).dtype is getattr(graphtorch, dtype)
    assert graphtorch.tensor([array[0, 3], array[0, 1]]).dtype is x.dtype


SHARED = """
    t.where(x == x, x, 300); t.where(x == x, x, -300); x.masked_fill(x == x, 300)
    x.clamp(min=300); x.clamp(-1, 9); x.index_fill(0, t.tensor([0]), 2 ** 40)
    x.masked_fill(x == x, 1e10); x.masked_fill(x == x, float("nan")); t.isin(x, -56)
    t.isin(x, 512 + 1); t.isin(x, t.tensor(-56)); x.lerp(y, 0.5); x.nanmean(); t.histc(x, 4)
    t.arange(10)[x]; t.arange(10)[:, None][x]; put(t.arange(10), x, 3); t.arange(10)[x[0]]
    t.arange(10).take(x); t.unravel_index(x, (2, 3)); t.repeat_interleave(t.arange(3), x)
    x * 2 ** 64; x == -(2 ** 70); x + 2 ** 63; t.full_like(x, 2 ** 64)
    t.tensor([2 ** 63], dtype=x.dtype); t.tensor(-(2 ** 63) - 1); t.tensor([[x[0].numpy()]])
"""


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_numbers_and_indices_of_other_integers(dtype: str) -> None:
    """What the wide unsigned dtypes brought up for all: the same results, or errors of the same
    type."""
    given = [np.array([1, 0, 2], dtype), np.array([3, 1, 0], dtype)]
    for text in expressions(SHARED):
        expected, found = (outcome(t, text, given) for t in (torch, graphtorch))
        if isinstance(expected, Exception):
            assert type(found) is type(expected), (text, expected, found)
        else:
            assert not isinstance(found, Exception), (text, found)
            assert_same(text, found, expected)
