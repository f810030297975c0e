"""Products of vectors and matrices."""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import broadcast, numel

from .._deferred.tensor import Tensor
from .._settings import warn_once
from . import base
from .autocast import lower_precision
from .base import (
    DENSE,
    FUNCTIONS,
    METHODS,
    NO_ATTRS,
    axis_of,
    c_name,
    check_tensor,
    common_dtype,
    in_place,
    register,
    rounded_once,
    run,
    scalar,
)
from .orders import row_major
from .views import reshape


def product(a: Value, b: Value) -> Value:
    """`matmul` on values of any rank >= 1, as NumPy's ``@``."""
    left, right = a.rank == 1, b.rank == 1
    x = ops.reshape(a, shape=(1, *a.shape)) if left else a
    y = ops.reshape(b, shape=(*b.shape, 1)) if right else b
    if x.rank > 2 and y.rank == 2:  # one tall product instead of many small ones
        lead = x.shape[:-1]
        flat = ops.matmul(ops.reshape(x, shape=(numel(lead), x.shape[-1])), y)
        result = ops.reshape(flat, shape=(*lead, y.shape[-1]))
    else:
        result = ops.matmul(x, y)
    shape = result.shape
    shape = (*shape[:-2], *(() if left else shape[-2:-1]), *(() if right else shape[-1:]))
    return ops.reshape(result, shape=shape) if left or right else result


def _check_product(name: str, a: Any, b: Any) -> None:
    check_tensor(name, "input", a)
    check_tensor(name, "other", b, 2)
    if a._type.dtype is not b._type.dtype:
        raise RuntimeError(
            "expected m1 and m2 to have the same dtype, but got: "
            f"{c_name(a._type.dtype)} != {c_name(b._type.dtype)}; "
            "convert one with .to(dtype)"
        )


def _check_inner(a: Tensor, b: Tensor) -> None:
    left, right = a._type.shape, b._type.shape
    inner = right[-2] if len(right) > 1 else right[0]
    if left[-1] != inner:
        if len(left) == len(right) == 1:
            raise RuntimeError(
                f"inconsistent tensor size, expected tensor [{left[0]}] and src [{right[0]}] to "
                "have the same number of elements"
            )
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({numel(left[:-1])}x{left[-1]} and "
            f"{inner}x{right[-1] if len(right) > 1 else 1}): operand shapes are {list(left)} and "
            f"{list(right)}"
        )


# what PyTorch calls the last step of a product of so many dimensions
PRODUCTS = {(2, 2): "Mm", (2, 1): "Mv", (1, 1): "Dot", (1, 2): "SqueezeBackward4"}


@register(out=True)
@lower_precision
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product; vectors are rows or columns, leading dimensions broadcast."""
    if type(input) in DENSE and type(other) in DENSE:
        a, b = input._type, other._type
        if a.dtype is b.dtype and len(a.shape) == 2 == len(b.shape) and a.shape[1] == b.shape[0]:
            # without detours, as most are
            return base.record("Mm", ops.matmul, (input, other), NO_ATTRS)
    _check_product("matmul", input, other)
    if input.is_sparse or other.is_sparse:
        return (input if input.is_sparse else other)._combined("matmul", input, other)
    if input.ndim == 0 or other.ndim == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {input.ndim}D and "
            f"{other.ndim}D"
        )
    _check_inner(input, other)
    return run(PRODUCTS.get((input.ndim, other.ndim), "UnsafeView"), product, input, other)


def _ranks(name: str, a: Tensor, b: Tensor, ranks: tuple[int, int], words: str) -> None:
    _check_product(name, a, b)
    if (a.ndim, b.ndim) != ranks:
        raise RuntimeError(f"{words}, but got tensors of {a.ndim} and {b.ndim} dimensions")
    _check_inner(a, b)


@register(out=True)
@lower_precision
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    _ranks("mm", input, mat2, (2, 2), "mm: self and mat2 must be matrices")
    if input.is_sparse or mat2.is_sparse:
        return (input if input.is_sparse else mat2)._combined("matmul", input, mat2)
    return run("Mm", ops.matmul, input, mat2)


FUNCTIONS["spmm"] = FUNCTIONS["dsmm"] = FUNCTIONS["mm"]  # as programs with sparse matrices call it


@register(out=True)
@lower_precision
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of matrices, one for each entry of the first dimension."""
    _ranks("bmm", input, mat2, (3, 3), "batch1 and batch2 must be 3D tensors")
    if input.shape[0] != mat2.shape[0]:
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{input.shape[0]}, "
            f"{input.shape[2]}] but got: [{mat2.shape[0]}, {mat2.shape[1]}]."
        )
    return run("Bmm", ops.matmul, input, mat2)


@register(out=True)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A matrix times a vector."""
    _ranks("mv", input, vec, (2, 1), "vector + matrix @ vector expected, got a matrix and a vector")
    return run("Mv", product, input, vec)


@register("dot", out=True)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of products of two vectors."""
    _ranks("dot", input, tensor, (1, 1), "1D tensors expected")
    return run("Dot", product, input, tensor)


@register(out=True)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The sum of products, the first vector conjugated."""
    return dot(input.conj(), other)


@register(out=True)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimensions."""
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    return FUNCTIONS["tensordot"](input, other, ([-1], [-1]))


@register("outer", "ger", out=True)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of the elements of two vectors."""
    check_tensor("outer", "input", input)
    check_tensor("outer", "vec2", vec2, 2)
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(
            f"outer: Expected 1-D argument self and vec2, but got {input.ndim}-D and {vec2.ndim}-D"
        )
    return reshape(input, (-1, 1)) * vec2


def _added(
    name: str, multiply: Any, input: Tensor, a: Tensor, b: Tensor, beta: Any, alpha: Any
) -> Tensor:
    """beta * input + alpha * (a @ b)."""
    check_tensor(name, "input", input)
    rank = a.ndim + b.ndim - 2 if name != "addbmm" and a.ndim < 3 else a.ndim - (name == "addbmm")
    if input.ndim > rank:
        raise RuntimeError(
            f"expand({input.type()}, {list(input.shape)}): {name} needs an input of at most "
            f"{rank} dimensions, which broadcasts to the product, but it has {input.ndim}"
        )
    dtype = common_dtype(input, a, b)
    factors = [None if f == 1 else scalar(f, dtype) for f in (beta, alpha)]

    def apply(c: Value, x: Value, y: Value) -> Value:
        found = multiply(x, y)
        if factors[1] is not None:
            found = ops.mul(found, factors[1])
        if beta == 0:
            return found
        return ops.add(ops.mul(c, factors[0]) if factors[0] is not None else c, found)

    return run(name.capitalize(), apply, input, a, b)


@register(inplace=True, out=True)
@row_major
@lower_precision
@rounded_once
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    _ranks("addmm", mat1, mat2, (2, 2), "mat1 and mat2 must be matrices")
    return _added("addmm", ops.matmul, input, mat1, mat2, beta, alpha)


@register(inplace=True, out=True)
@rounded_once
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)."""
    _ranks("addmv", mat, vec, (2, 1), "matrix and vector expected")
    return _added("addmv", product, input, mat, vec, beta, alpha)


@register(inplace=True, out=True)
@rounded_once
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2)."""
    found = outer(vec1, vec2)
    if common_dtype(input, vec1, vec2).is_bool:
        beta, alpha = bool(beta), bool(alpha)
    found = found if alpha == 1 else found * alpha
    return found if beta == 0 else (input if beta == 1 else input * beta) + found


@register(inplace=True, out=True)
@row_major
@lower_precision
@rounded_once
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """beta * input + alpha * bmm(batch1, batch2)."""
    _ranks("baddbmm", batch1, batch2, (3, 3), "batch1 and batch2 must be 3D tensors")
    return _added("baddbmm", ops.matmul, input, batch1, batch2, beta, alpha)


@register(inplace=True, out=True)
@row_major
@lower_precision
@rounded_once
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """beta * input + alpha * the sum of bmm(batch1, batch2) over the batch."""
    _ranks("addbmm", batch1, batch2, (3, 3), "batch1 and batch2 must be 3D tensors")
    return _added(
        "addbmm",
        lambda x, y: ops.sum(ops.matmul(x, y), dims=(0,), keepdim=False),
        input,
        batch1,
        batch2,
        beta,
        alpha,
    )


@register(method=False, out=True)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over several dimensions of each."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        dims = (list(range(a.ndim - dims, a.ndim)), list(range(dims)))
    left = [
        axis_of(d, a.ndim) for d in (dims[0] if isinstance(dims[0], (list, tuple)) else [dims[0]])
    ]
    right = [
        axis_of(d, b.ndim) for d in (dims[1] if isinstance(dims[1], (list, tuple)) else [dims[1]])
    ]
    if len(left) != len(right):
        raise RuntimeError(f"both dimension lists should have same length, got {left} and {right}")
    for i, j in zip(left, right, strict=True):
        if a.shape[i] == 1 or b.shape[j] == 1:  # a size of 1 is repeated: the other is summed
            a = a.sum(i, True, dtype=a.dtype) if b.shape[j] == 1 else a
            b = b.sum(j, True, dtype=b.dtype) if a.shape[i] == 1 else b
        elif a.shape[i] != b.shape[j]:
            raise RuntimeError(
                f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} "
                f"and second has size {b.shape[j]} in dim {j}"
            )
    keep_a = [i for i in range(a.ndim) if i not in left]
    keep_b = [i for i in range(b.ndim) if i not in right]
    inside = numel(tuple(a.shape[i] for i in left))
    x = reshape(a.permute(*keep_a, *left), (numel(tuple(a.shape[i] for i in keep_a)), inside))
    y = reshape(b.permute(*right, *keep_b), (inside, numel(tuple(b.shape[i] for i in keep_b))))
    return reshape(mm(x, y), (*[a.shape[i] for i in keep_a], *[b.shape[i] for i in keep_b]))


@register(out=True)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    rank = max(input.ndim, other.ndim)
    a = (1,) * (rank - input.ndim) + tuple(input.shape)
    b = (1,) * (rank - other.ndim) + tuple(other.shape)
    # copies: as in PyTorch, factors may be written to before the backward pass
    x = reshape(FUNCTIONS["clone"](input), tuple(d for n in a for d in (n, 1)))
    y = reshape(FUNCTIONS["clone"](other), tuple(d for n in b for d in (1, n)))
    return reshape(x * y, tuple(m * n for m, n in zip(a, b, strict=True)))


@register(method=False)
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices."""
    warn_once(
        "torch.chain_matmul is deprecated and will be removed in a future PyTorch release. Use "
        "torch.linalg.multi_dot instead, which accepts a list of two or more tensors rather than "
        "multiple parameters."
    )
    result = matrices[0]
    for m in matrices[1:]:
        result = mm(result, m)
    return result


@register(out=True)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product of vectors of three elements along `dim`."""
    if dim is None:
        warn_once(
            "Using torch.cross without specifying the dim arg is deprecated.\nPlease either pass "
            "the dim explicitly or simply use torch.linalg.cross.\nThe default value of dim will "
            "change to agree with that of linalg.cross in a future release."
        )
    shape = broadcast(input._type.shape, other._type.shape)
    input, other = input.expand(shape), other.expand(shape)
    axis = (
        next((i for i, d in enumerate(shape) if d == 3), None)
        if dim is None
        else axis_of(dim, len(shape))
    )
    if axis is None:
        raise RuntimeError(f"no dimension of size 3 in input: its shape is {list(shape)}")
    if shape[axis] != 3:
        raise RuntimeError(
            "inputs dimension " + f"{dim} must have length 3: shape is {list(shape)}"
        )
    a, b = input.unbind(axis), other.unbind(axis)
    parts = [a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3] for i in range(3)]
    return FUNCTIONS["stack"](parts, axis)


@register(out=True)
def matrix_power(input: Tensor, n: int) -> Tensor:
    """A square matrix times itself; with negative `n` its inverse."""
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        raise RuntimeError(
            "linalg.matrix_power: A must be batches of square matrices, but got shape "
            f"{list(input.shape)}"
        )
    if n == 0:
        unit = FUNCTIONS["eye"](input.shape[-1], dtype=input.dtype, device=input.device)
        return FUNCTIONS["clone"](input).copy_(unit)  # it has a gradient, which is zero
    square, result = FUNCTIONS["inverse"](input) if n < 0 else input, None
    n = abs(n)
    while n:  # the squares that add up to n
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return result  # type: ignore[return-value]


def _matmul_operator(self: Any, other: Any) -> Any:
    both = isinstance(self, Tensor) and isinstance(other, Tensor)
    return matmul(self, other) if both else NotImplemented


METHODS["__matmul__"] = _matmul_operator
METHODS["__rmatmul__"] = lambda self, other: _matmul_operator(other, self)
METHODS["__imatmul__"] = in_place("__imatmul__", matmul)


# ------------------------------------------------------------------------------------------ einsum


@register(method=False)
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by Einstein's convention, such as ``"bij,bjk->bik"``; with ``...`` for
    leading dimensions."""
    if not isinstance(equation, str):
        raise TypeError(
            "einsum(): argument 'equation' (position 1) must be str, not "
            f"{type(equation).__name__}: write the dimensions of the operands as "
            "letters"
        )
    given = list(
        operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    )
    if not given:
        raise ValueError("einsum(): must specify the equation string and at least one operand")
    for i, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise TypeError(
                f"expected Tensor as element {i} in argument 1, but got {type(x).__name__}"
            )
    left, arrow, output = equation.replace(" ", "").partition("->")
    _check_subscripts(equation, left + arrow + output)
    terms = left.split(",")
    if len(terms) != len(given):
        raise RuntimeError(
            f"einsum(): the equation has {len(terms)} operands, but {len(given)} were given"
        )
    terms, output = _without_dots(terms, given, output, bool(arrow))
    label_sizes: dict[str, Any] = {}
    for term, x in zip(terms, given, strict=True):
        for label, size in zip(term, x.shape, strict=True):
            if label_sizes.get(label, 1) == 1:
                label_sizes[label] = size
            elif size not in (1, label_sizes[label]):
                raise RuntimeError(
                    f"einsum(): label {label} has sizes {label_sizes[label]} and {size}, which do "
                    "not broadcast"
                )
    factors = [_without_repeats(t, x) for t, x in zip(terms, given, strict=True)]
    term, x = factors[0]
    for i, (other, y) in enumerate(factors[1:], 1):
        later = set(output).union(*[t for t, _ in factors[i + 1 :]])
        term, x = _contract(term, x, other, y, later)
    return _final(term, x, output)


def _check_subscripts(equation: str, spaceless: str) -> None:
    for at, c in enumerate(spaceless.replace("...", "   ").replace("->", "  ")):
        if not (c in ", " or (c.isascii() and c.isalpha())):
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {at} in the equation string "
                f"{equation!r}, subscripts must be in [a-zA-Z]"
            )


def _without_dots(
    terms: list[str], given: list[Tensor], output: str, explicit: bool
) -> tuple[list[str], str]:
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if all(c not in t for t in terms)]
    most, result = 0, []
    for term, x in zip(terms, given, strict=True):
        extra = x.ndim - len(term.replace("...", ""))
        if extra < 0 or (extra and "..." not in term):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(term)}) does not match "
                f"the number of dimensions ({x.ndim}) for operand and no ellipsis was given"
            )
        most = max(most, extra)
        result.append((term, extra))
    dots = "".join(free[:most])
    named = [t.replace("...", dots[most - n :]) for t, n in result]
    if not explicit:
        letters = [c for t in named for c in t]
        output = dots + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots)
        )
    return named, output.replace("...", dots)


def _without_repeats(term: str, x: Tensor) -> tuple[str, Tensor]:
    for label in term:
        while term.count(label) > 1:
            i = term.index(label)
            j = term.index(label, i + 1)
            x = FUNCTIONS["diagonal"](x, 0, i, j)
            term = term[:i] + term[i + 1 : j] + term[j + 1 :] + label
    return term, x


def _contract(a: str, x: Tensor, b: str, y: Tensor, later: set[str]) -> tuple[str, Tensor]:
    """Multiply two operands and sum over labels that nobody needs any more, as one batched matrix
    product."""
    for label in [c for c in a if c not in b and c not in later]:
        x, a = x.sum(a.index(label), dtype=x.dtype), a.replace(label, "")
    for label in [c for c in b if c not in a and c not in later]:
        y, b = y.sum(b.index(label), dtype=y.dtype), b.replace(label, "")
    shared = [c for c in a if c in b]
    batch = [c for c in shared if c in later]
    inside = [c for c in shared if c not in later]
    only_a, only_b = [c for c in a if c not in b], [c for c in b if c not in a]
    sizes = {
        c: x.shape[a.index(c)] if x.shape[a.index(c)] != 1 or c not in b else y.shape[b.index(c)]
        for c in a
    }
    sizes.update({c: y.shape[b.index(c)] for c in only_b})
    x = x.expand(tuple(sizes[c] for c in a)).permute(
        [a.index(c) for c in (*batch, *only_a, *inside)]
    )
    y = y.expand(tuple(sizes[c] for c in b)).permute(
        [b.index(c) for c in (*batch, *inside, *only_b)]
    )
    count = [numel(tuple(sizes[c] for c in group)) for group in (batch, only_a, inside, only_b)]
    made = bmm(x.reshape(count[0], count[1], count[2]), y.reshape(count[0], count[2], count[3]))
    labels = [*batch, *only_a, *only_b]
    return "".join(labels), made.reshape(tuple(sizes[c] for c in labels))


def _final(term: str, x: Tensor, output: str) -> Tensor:
    for label in [c for c in term if c not in output]:
        x, term = x.sum(term.index(label), dtype=x.dtype), term.replace(label, "")
    missing = [c for c in output if c not in term]
    if missing:
        raise RuntimeError(
            f"einsum(): output subscript {missing[0]} does not appear in the equation for any "
            "input operand"
        )
    return x.permute([term.index(c) for c in output])
