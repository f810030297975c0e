"""Products with Jacobians and Hessians, and these themselves, laid out as PyTorch's module of this
name.

Each takes a function of tensors and the point at which it is differentiated. `jvp` and `hvp`
differentiate the backward pass (the "double backwards trick"): a product with the Jacobian is the
gradient, by the cotangent, of the product with its transpose.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .engine import grad
from .grad_mode import enable_grad, is_grad_enabled

Func = Callable[..., Any]
__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


# ---------------------------------------------------------------------------------------- arguments


def _as_tuple(given: Any, argument: str, name: str) -> tuple[bool, tuple[Any, ...]]:
    """Whether several tensors were given, and all of them as a tuple."""
    several = isinstance(given, (tuple, list))
    tensors = tuple(given) if several else (given,)
    for i, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            place = f"value at index {i}" if several else f"given {argument}"
            raise TypeError(
                f"The {argument} given to {name} must be either a Tensor or a tuple of Tensors but "
                f"the {place} has type {type(t)}."
            )
    return several, tensors


def _prepared(inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """The point: copies that require grad and, with `create_graph`, keep their history."""
    made = []
    for x in inputs:
        if create_graph:
            made.append(x.view_as(x) if x.requires_grad else x.detach().requires_grad_())
        else:
            made.append(x.detach().requires_grad_())
    return tuple(made)


def _checked_vector(
    v: Any, like: Sequence[Tensor], several: bool, name: str, what: str
) -> tuple[Tensor, ...]:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"The vector v can only be None if {what}")
        return (FUNCTIONS["ones_like"](like[0]),)
    _, vectors = _as_tuple(v, "v", name)
    vectors = tuple(x.detach() if not x.requires_grad else x for x in vectors)
    if len(vectors) != len(like):
        raise RuntimeError(
            f"v is a tuple of invalid length: should be {len(like)} but got {len(vectors)}."
        )
    for i, (a, b) in enumerate(zip(vectors, like, strict=True)):
        if a.shape != b.shape:
            prefix = f"Entry {i} in " if several else ""
            raise RuntimeError(
                f"{prefix}v has invalid size: should be {b.shape} but got {a.shape}."
            )
    return vectors


def _strictly(
    found: Sequence[Any], strict: bool, like: Sequence[Tensor], what: str
) -> tuple[Tensor, ...]:
    """Zeros where nothing arrived; with `strict` that is an error."""
    result = []
    for i, (g, x) in enumerate(zip(found, like, strict=True)):
        if g is None:
            if strict:
                raise RuntimeError(what.format(i=i))
            g = FUNCTIONS["zeros_like"](x)
        result.append(g)
    return tuple(result)


INDEPENDENT = (
    "The output of the user-provided function is independent of input {i}. This is not allowed in "
    "strict mode."
)


def _run(
    func: Func, inputs: Sequence[Tensor], name: str, strict: bool
) -> tuple[bool, tuple[Tensor, ...]]:
    several, outputs = _as_tuple(func(*inputs), "outputs of the user-provided function", name)
    for i, out in enumerate(outputs):
        if strict and not out.requires_grad:
            raise RuntimeError(
                f"Output {i} of the user-provided function does not require gradients. The outputs "
                "must be computed in a differentiable manner from the input when running in strict "
                "mode."
            )
    return several, outputs


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Any, create_graph: bool
) -> tuple[Any, ...]:
    pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    return grad(
        [o for o, _ in pairs],
        list(inputs),
        [s for _, s in pairs],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )


def _delivered(values: Sequence[Tensor], several: bool, create_graph: bool) -> Any:
    made = tuple(v if create_graph else v.detach() for v in values)
    return made if several else made[0]


# ----------------------------------------------------------------------------------------- products


def vjp(
    func: Func, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> Any:
    """(outputs, v^T J): the products of a vector `v` with the Jacobian of `func` at `inputs`.

    Args:
        v: of the outputs' shapes; may be left out for a single output of one element.
        create_graph: whether the results can be differentiated.
        strict: whether an input or output that plays no part is an error.
    """
    with enable_grad():
        several_in, given = _as_tuple(inputs, "inputs", "vjp")
        point = _prepared(given, create_graph)
        several_out, outputs = _run(func, point, "vjp", strict)
        vectors = _checked_vector(
            v,
            outputs,
            several_out,
            "vjp",
            "the user-provided function returns a single Tensor with a single element.",
        )
    keeps = create_graph or is_grad_enabled()
    with enable_grad():
        found = _gradients(outputs, point, vectors, keeps)
        product = _strictly(found, strict, point, INDEPENDENT)
    return _delivered(outputs, several_out, create_graph), _delivered(
        product, several_in, create_graph
    )


def jvp(
    func: Func, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> Any:
    """(outputs, J v): the product of the Jacobian of `func` at `inputs` with a vector `v`; see
    `vjp`."""
    with enable_grad():
        several_in, given = _as_tuple(inputs, "inputs", "jvp")
        point = _prepared(given, create_graph)
        vectors = _checked_vector(
            v,
            point,
            several_in,
            "jvp",
            "the input to the user-provided function is a single Tensor with a single element.",
        )
        several_out, outputs = _run(func, point, "jvp", strict)
        product = _pushed(outputs, point, vectors, create_graph, strict)
    return _delivered(outputs, several_out, create_graph), _delivered(
        product, several_out, create_graph
    )


def _pushed(
    outputs: Sequence[Tensor],
    point: Sequence[Tensor],
    vectors: Sequence[Tensor],
    create_graph: bool,
    strict: bool,
) -> tuple[Tensor, ...]:
    """J v as the gradient of v^T (J^T c) by c, which it is linear in."""
    seeds = tuple(FUNCTIONS["zeros_like"](o).requires_grad_() for o in outputs)
    pulled = _strictly(_gradients(outputs, point, seeds, True), strict, point, INDEPENDENT)
    found = _gradients(pulled, seeds, vectors, create_graph)
    return _strictly(found, strict, outputs, INDEPENDENT)


def vhp(
    func: Func, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> Any:
    """(output, v^T H): the products of a vector `v` with the Hessian of a scalar `func` at
    `inputs`."""
    with enable_grad():
        several, given = _as_tuple(inputs, "inputs", "vhp")
        point = _prepared(given, create_graph)
        vectors = _checked_vector(
            v,
            point,
            several,
            "vhp",
            "the input to the user-provided function is a single Tensor with a single element.",
        )
        output = _scalar(func, point, "vhp", strict)
        first = _strictly(_gradients((output,), point, (None,), True), strict, point, INDEPENDENT)
        product = _strictly(
            _gradients(first, point, vectors, create_graph), strict, point, INDEPENDENT
        )
    return _delivered((output,), False, create_graph), _delivered(product, several, create_graph)


def hvp(
    func: Func, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> Any:
    """(output, H v): the product of the Hessian of a scalar `func` at `inputs` with a vector
    `v`."""
    with enable_grad():
        several, given = _as_tuple(inputs, "inputs", "hvp")
        point = _prepared(given, create_graph)
        vectors = _checked_vector(
            v,
            point,
            several,
            "hvp",
            "the input to the user-provided function is a single Tensor with a single element.",
        )
        output = _scalar(func, point, "hvp", strict)
        first = _strictly(_gradients((output,), point, (None,), True), strict, point, INDEPENDENT)
        product = _pushed(first, point, vectors, create_graph, strict)
    return _delivered((output,), False, create_graph), _delivered(product, several, create_graph)


def _scalar(func: Func, point: Sequence[Tensor], name: str, strict: bool) -> Tensor:
    several, outputs = _run(func, point, name, strict)
    if several or len(outputs) != 1:
        raise RuntimeError(f"The function given to {name} should return a single Tensor")
    if outputs[0].numel() != 1:
        raise RuntimeError(
            f"The Tensor returned by the function given to {name} should contain a single element"
        )
    return outputs[0].reshape(()) if outputs[0].ndim else outputs[0]


# ----------------------------------------------------------------------------------------- matrices


def jacobian(
    func: Func,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func` at `inputs`: for each output and input a tensor of both shapes
    together.

    Nested by outputs, then inputs, where there are several of them.

    Args:
        vectorize: all rows at once, by `vmap`; one after the other without it.
        strategy: "forward-mode" is accepted, and computes the same.
    """
    if strict and vectorize:
        raise RuntimeError(
            "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not "
            "supported together. Please either set `strict=False` or `vectorize=False`."
        )
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your '
            'function has more outputs than inputs, "forward-mode" tends to be more performant. '
            'Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode" and create_graph:
        raise NotImplementedError(
            "torch.autograd.functional.jacobian: `create_graph=True` and "
            '`strategy="forward-mode"` are not supported together (yet). Please either '
            'set `create_graph=False` or `strategy="reverse-mode"`.'
        )
    with enable_grad():
        several_in, given = _as_tuple(inputs, "inputs", "jacobian")
        point = _prepared(given, create_graph)
        several_out, outputs = _run(func, point, "jacobian", strict)
        of = _all_rows if vectorize else functools.partial(_row_by_row, strict=strict)
        rows = [of(out, point, create_graph) for out in outputs]
    nested = tuple(_delivered(row, several_in, create_graph) for row in rows)
    return nested if several_out else nested[0]


def _all_rows(out: Tensor, point: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    shapes = [(*out.shape, *x.shape) for x in point]
    if not out.requires_grad:
        return [x.new_zeros(shape) for x, shape in zip(point, shapes, strict=True)]
    units = FUNCTIONS["eye"](out.numel(), dtype=out.dtype, device=out.device)
    units = units.reshape((out.numel(), *out.shape))
    found = grad(
        out, list(point), units, True, create_graph, allow_unused=True, is_grads_batched=True
    )
    return [
        x.new_zeros(shape) if g is None else g.reshape(shape)
        for g, x, shape in zip(found, point, shapes, strict=True)
    ]


def _row_by_row(
    out: Tensor, point: Sequence[Tensor], create_graph: bool, strict: bool
) -> list[Tensor]:
    columns: list[list[Tensor]] = [[] for _ in point]
    flat = out.reshape(-1)
    for at in range(out.numel()):
        found = _gradients((flat[at],), point, (None,), create_graph)
        for column, g in zip(columns, _strictly(found, strict, point, INDEPENDENT), strict=True):
            column.append(g)
    made = []
    for column, x in zip(columns, point, strict=True):
        shape = (*out.shape, *x.shape)
        made.append(FUNCTIONS["stack"](column).reshape(shape) if column else x.new_zeros(shape))
    return made


def hessian(
    func: Func,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a scalar `func`: for each pair of inputs a tensor of both shapes together."""
    several, given = _as_tuple(inputs, "inputs", "hessian")

    def gradient(*point: Tensor) -> tuple[Tensor, ...]:
        output = _scalar(func, point, "hessian", strict)
        return _strictly(_gradients((output,), point, (None,), True), strict, point, INDEPENDENT)

    found = jacobian(gradient, tuple(given), create_graph, strict, vectorize)
    return found if several else found[0][0]
