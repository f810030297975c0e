"""Functions of functions, as PyTorch's module of this name: gradients, Jacobians, maps over a batch.

Arguments and results may be nests of tuples, lists and dicts. `vmap` calls the function once for each entry
of the batch and stacks the results: what was recorded is one graph, in which equal pieces are found.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ._captured.capture import rebuild, tensors_in
from ._deferred.tensor import Tensor
from ._ops.base import FUNCTIONS, axis_of
from .autograd.engine import grad as _gradients_of
from .autograd.functional import jvp as _jvp
from .autograd.grad_mode import enable_grad, is_grad_enabled
from .autograd.nodes import AccumulateGrad
from .nn import Module
from .random import get_rng_state, set_rng_state

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "stack_module_state",
    "vjp", "vmap",
]  # fmt: skip

Function = Callable[..., Any]


class _State(threading.local):
    """Of a thread: how many transforms are running, and the grad mode outside the outermost one."""

    depth = 0
    enabled = True


_state = _State()


# ------------------------------------------------------------------------------------------ modules


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call `module` with other tensors in the place of its parameters and buffers.

    Args:
        parameter_and_buffer_dicts: names, as `named_parameters` and `named_buffers` give them, and tensors;
            or several such dicts. Buffers that the call assigns anew are found in it afterwards.
        args, kwargs: of the call; one argument need not be in a tuple.
        tie_weights: whether a tensor known by several names is replaced under all of them by one entry.
        strict: whether every parameter and buffer has to be given, and nothing else.

    Raises:
        TypeError: no dict. ValueError: one name, or tied ones, given twice with different tensors.
        RuntimeError: with `strict`, names that do not fit.
    """
    given = parameter_and_buffer_dicts
    if isinstance(given, Mapping):
        tensors: Any = given
    elif isinstance(given, Sequence) and all(isinstance(d, Mapping) for d in given):
        names = [name for d in given for name in d]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(
                f"{twice[:1]} appeared in multiple dictionaries; behavior of functional call is ambiguous"
            )
        tensors = {name: t for d in given for name, t in d.items()}
    else:
        raise TypeError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(given)}"
        )
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, tensors, tie_weights, strict):
        return module(*args, **(kwargs or {}))


@contextmanager
def _replaced(module: Module, tensors: Any, tie: bool, strict: bool) -> Iterator[None]:
    own: dict[str, tuple[dict[str, Any], str]] = {}
    alike: dict[int, list[str]] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    full = f"{prefix}.{name}" if prefix else name
                    own[full] = table, name
                    alike.setdefault(id(tensor), []).append(full)
    wanted = dict(tensors)
    unknown = [name for name in wanted if name not in own]
    if strict:
        given = set(wanted)
        if tie:
            given |= {n for names in alike.values() if given & set(names) for n in names}
        missing = [name for name in own if name not in given]
        if unknown or missing:
            about = [
                f"{what} key(s): {', '.join(map(repr, names))}"
                for what, names in (("Unexpected", unknown), ("Missing", missing))
                if names
            ]
            raise RuntimeError(
                f"Error(s) in reparametrizing for {type(module).__name__}:\n\t" + ".\n\t".join(about)
            )
    if unknown:
        raise AttributeError(f"{type(module).__name__} has no parameter or buffer {unknown[0]!r}")
    if tie:
        for names in alike.values():
            found = [n for n in names if n in wanted]
            if any(wanted[n] is not wanted[found[0]] for n in found):
                raise ValueError(
                    f"functional_call got multiple values for keys {sorted(names)}, which are tied. "
                    "Consider using tie_weights=False"
                )
            wanted.update((n, wanted[found[0]]) for n in names if found)
    before = {name: own[name][0][own[name][1]] for name in wanted}
    for name, tensor in wanted.items():
        own[name][0][own[name][1]] = tensor
    try:
        yield
    finally:
        for name, tensor in before.items():
            table, key = own[name]
            if name in tensors and table[key] is not tensors[name] and isinstance(tensors, dict):
                tensors[name] = table[key]
            table[key] = tensor


def stack_module_state(models: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and buffers of several modules of one class, each stacked along a new first dimension.

    Raises:
        RuntimeError: no module, or modules of different classes or modes.
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    tables = [dict(m.named_parameters()) for m in models], [dict(m.named_buffers()) for m in models]
    parameters, buffers = (
        {name: FUNCTIONS["stack"]([t[name] for t in table]).detach() for name in table[0]} for table in tables
    )
    for name, stacked in parameters.items():
        stacked.requires_grad_(tables[0][0][name].requires_grad)
    return parameters, buffers


# ------------------------------------------------------------------------------------------ gradients


@contextmanager
def _transform() -> Iterator[None]:
    if not _state.depth:
        _state.enabled = is_grad_enabled()
    _state.depth += 1
    try:
        with enable_grad():
            yield
    finally:
        _state.depth -= 1


def _point(tree: Any, made: list[Tensor]) -> Any:
    """The nest with tensors to differentiate by, which keep their history; they are added to `made`."""

    def fresh(x: Tensor) -> Tensor:
        made.append(x.view_as(x) if x.requires_grad else x.detach().requires_grad_())
        return made[-1]

    return rebuild(tree, fresh)


def _is_observed(outputs: Sequence[Tensor], args: Any, point: Sequence[Tensor]) -> bool:
    """Whether somebody outside may differentiate: another transform, or autograd by what requires grad."""
    if not _state.enabled:
        return False
    if _state.depth > 1 or any(x.requires_grad for x in tensors_in(args)):
        return True
    own = {id(x) for x in point}
    seen: set[Any] = set()
    stack = [x.grad_fn for x in outputs]
    while stack:
        fn = stack.pop()
        if fn is None or fn in seen:
            continue
        seen.add(fn)
        if isinstance(fn, AccumulateGrad) and id(fn.variable) not in own:
            return True
        stack.extend(edge[0] for edge in fn.edges if edge is not None)
    return False


def _enter(run: Function) -> Function:
    """`run` inside a transform."""

    @functools.wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _transform():
            return run(*args, **kwargs)

    return call


def _chosen(args: tuple[Any, ...], argnums: Any, name: str) -> tuple[int, ...]:
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(n, int) for n in numbers):
        raise RuntimeError(f"{name}: argnums must be an int or a tuple of ints, got {argnums!r}")
    for n in numbers:
        if not -len(args) <= n < len(args):
            raise RuntimeError(f"{name}: got argnum={n}, but only {len(args)} positional inputs")
    return tuple(n % len(args) for n in numbers)


def _with_point(args: tuple[Any, ...], numbers: Sequence[int]) -> tuple[list[Any], list[Tensor]]:
    made: list[Tensor] = []
    given = list(args)
    for n in numbers:
        given[n] = _point(args[n], made)
    return given, made


def _filled(found: Sequence[Any], point: Sequence[Tensor], keep: bool) -> list[Tensor]:
    zero = FUNCTIONS["zeros_like"]
    return [
        zero(x.detach()) if g is None else g if keep else g.detach()
        for g, x in zip(found, point, strict=True)
    ]


def _like(args: tuple[Any, ...], argnums: Any, numbers: Sequence[int], tensors: Sequence[Any]) -> Any:
    """`tensors` in the nests of the chosen arguments."""
    left = iter(tensors)
    nests = tuple(rebuild(args[n], lambda _: next(left)) for n in numbers)
    return nests if isinstance(argnums, tuple) else nests[0]


def grad_and_value(func: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """A function that gives (gradient, value) of `func`, or (gradient, (value, aux)).

    Args:
        func: gives one number, a 0-d float tensor; with `has_aux` a pair of it and anything.
        argnums: by which arguments, nests of tensors, to differentiate.
    """

    @_enter
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums, "grad")
        given, point = _with_point(args, numbers)
        value = func(*given, **kwargs)
        aux = None
        if has_aux:
            value, aux = value
        if not isinstance(value, Tensor):
            raise RuntimeError(
                f"Expected the function differentiated to return a Tensor, got {type(value).__name__}"
            )
        if value.ndim:
            raise RuntimeError(
                "Expected the function differentiated to return a scalar tensor, got a tensor "
                f"with {value.ndim} dims"
            )
        keep = _is_observed([value], args, point)
        found: Sequence[Any] = [None] * len(point)
        if value.requires_grad:
            found = _gradients_of(value, point, create_graph=keep, allow_unused=True)
        gradient = _like(args, argnums, numbers, _filled(found, point, keep))
        if not keep:
            value, aux = value.detach(), rebuild(aux, lambda t: t.detach())
        return gradient, ((value, aux) if has_aux else value)

    return functools.wraps(func)(run)


def grad(func: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """A function that gives the gradient of `func`, or (gradient, aux); see `grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return run


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """(outputs, pull), or (outputs, pull, aux): ``pull(cotangents)`` gives the products with the Jacobian's
    transpose, one nest for each of `primals`."""

    @_enter
    def forward() -> Any:
        made: list[Tensor] = []
        given = [_point(p, made) for p in primals]
        outputs = func(*given)
        aux = None
        if has_aux:
            outputs, aux = outputs
        return made, outputs, aux, _is_observed(tensors_in(outputs), primals, made)

    point, outputs, aux, keep = forward()

    def pull(*cotangents: Any) -> Any:
        seeds = tensors_in(cotangents)
        results = tensors_in(outputs)
        if len(seeds) != len(results):
            raise RuntimeError(
                f"Expected pytree structure of cotangents to be that of the outputs: {len(results)} "
                f"tensors, got {len(seeds)}"
            )
        pairs = [(r, s) for r, s in zip(results, seeds, strict=True) if r.requires_grad]
        found: Sequence[Any] = [None] * len(point)
        if pairs:
            with enable_grad():
                found = _gradients_of(
                    [r for r, _ in pairs],
                    point,
                    [s for _, s in pairs],
                    retain_graph=True,
                    create_graph=keep or any(s.requires_grad for s in seeds),
                    allow_unused=True,
                )
        left = iter(_filled(found, point, keep or any(s.requires_grad for s in seeds)))
        nests = tuple(rebuild(p, lambda _: next(left)) for p in primals)
        return nests[0] if len(primals) == 1 and not isinstance(primals[0], tuple) else nests

    shown = outputs if keep else rebuild(outputs, lambda t: t.detach())
    return (shown, pull, aux) if has_aux else (shown, pull)


def jvp(func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> Any:
    """(outputs, products of the Jacobian with `tangents`), or these and aux.

    Raises:
        RuntimeError: tangents that do not have the shapes of `primals`.
    """
    aux: list[Any] = []

    def flat(*tensors: Tensor) -> Any:
        left = iter(tensors)
        outputs = func(*[rebuild(p, lambda _: next(left)) for p in primals])
        if has_aux:
            outputs, extra = outputs
            aux[:] = [extra]
        nest[:] = [outputs]
        return tuple(tensors_in(outputs))

    nest: list[Any] = []
    inputs, vectors = tuple(tensors_in(primals)), tuple(tensors_in(tangents))
    keep = bool(_state.depth) or any(t.requires_grad for t in (*inputs, *vectors))
    outputs, products = _enter(lambda: _jvp(flat, inputs, vectors, create_graph=keep, strict=strict))()
    left, right = iter(outputs), iter(products)
    shown = rebuild(nest[0], lambda _: next(left)), rebuild(nest[0], lambda _: next(right))
    return (*shown, aux[0]) if has_aux else shown


def jacrev(
    func: Function, argnums: Any = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Function:
    """A function that gives the Jacobian of `func`: for each result, and argument, a tensor of both shapes.

    Args:
        argnums: by which arguments to differentiate.
        chunk_size: accepted; rows are computed one by one.
    """

    @_enter
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums, "jacrev")
        given, point = _with_point(args, numbers)
        outputs = func(*given, **kwargs)
        aux = None
        if has_aux:
            outputs, aux = outputs
        keep = _is_observed(tensors_in(outputs), args, point)

        def of(output: Tensor) -> Any:
            rows: list[list[Tensor]] = []
            flat = output.reshape(-1)
            for i in range(flat.numel()):
                found: Sequence[Any] = [None] * len(point)
                if output.requires_grad:
                    found = _gradients_of(
                        flat[i], point, retain_graph=True, create_graph=keep, allow_unused=True
                    )
                rows.append(_filled(found, point, keep))
            columns = [
                FUNCTIONS["stack"]([row[j] for row in rows]).reshape((*output.shape, *x.shape))
                if rows
                else FUNCTIONS["zeros"]((*output.shape, *x.shape))
                for j, x in enumerate(point)
            ]
            return _like(args, argnums, numbers, columns)

        jacobian = rebuild(outputs, of)
        if has_aux:
            return jacobian, aux if keep else rebuild(aux, lambda t: t.detach())
        return jacobian

    return functools.wraps(func)(run)


def jacfwd(func: Function, argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error") -> Function:
    """As `jacrev`: the same matrix (PyTorch computes it column by column)."""
    return jacrev(func, argnums, has_aux=has_aux)


def hessian(func: Function, argnums: Any = 0) -> Function:
    """A function that gives the second derivatives of `func`: the Jacobian of its Jacobian."""
    return jacfwd(jacrev(func, argnums), argnums)


# ------------------------------------------------------------------------------------------ maps over a batch


def vmap(
    func: Function,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Function:
    """A function that maps `func` over a dimension of its arguments.

    Args:
        in_dims: which dimension of each tensor is the batch: an int, None for an argument that all entries
            share, or a nest of those like the arguments.
        out_dims: where the results have the batch, in the same way.
        randomness: ``same`` draws equal numbers for each entry; otherwise each draws its own.
        chunk_size: accepted; entries are computed one by one.

    Raises:
        ValueError: no tensor with a batch, or batches of different sizes.
    """

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        dims = _spread(in_dims, args, "in_dims")
        tensors = tensors_in(args)
        sizes = set()
        batch: list[int | None] = []
        for tensor, dim in zip(tensors, dims, strict=True):
            if dim is not None and not tensor.ndim:
                raise ValueError(f"vmap: in_dim={dim} for a tensor without dimensions")
            batch.append(None if dim is None else axis_of(dim, tensor.ndim))
            if dim is not None:
                sizes.add(tensor.shape[dim])
        mapped = [t for t in tensors_in(kwargs) if t.ndim]
        if len(sizes) != 1 and not (not sizes and mapped):
            raise ValueError(
                "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                f"{sorted(sizes)} for the mapped dimension"
                if sizes
                else "vmap: in_dims maps over no tensor: at least one argument needs a batch dimension"
            )
        size = sizes.pop() if sizes else mapped[0].shape[0]
        if not size:
            raise ValueError(
                "vmap: the mapped dimension has size 0: there is no entry to call the function with"
            )
        results = []
        state = get_rng_state() if randomness == "same" else None
        for i in range(size):
            if state is not None:
                set_rng_state(state)
            left = iter(zip(tensors, batch, strict=True))

            def entry(_: Tensor, i: int = i, left: Any = left) -> Tensor:
                tensor, dim = next(left)
                return tensor if dim is None else tensor.select(dim, i)  # type: ignore[no-any-return]

            given = rebuild(args, entry)
            named = rebuild(kwargs, functools.partial(_entry_of, i))
            results.append(func(*given, **named))
        return _stacked(results, out_dims)

    return run


def _entry_of(i: int, tensor: Tensor) -> Tensor:
    return tensor.select(0, i) if tensor.ndim else tensor


def _spread(dims: Any, tree: Any, name: str) -> list[int | None]:
    """`dims`, a nest that ends where it speaks of a whole part of `tree`, for each tensor of `tree`."""
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool)):
        return [dims] * len(tensors_in(tree))
    if isinstance(dims, dict) and isinstance(tree, dict) and dims.keys() == tree.keys():
        return [d for key in tree for d in _spread(dims[key], tree[key], name)]
    if isinstance(dims, (tuple, list)) and isinstance(tree, (tuple, list)) and len(dims) == len(tree):
        return [d for one, part in zip(dims, tree, strict=True) for d in _spread(one, part, name)]
    raise ValueError(
        f"vmap: {name}={dims!r} does not fit the arguments: give an int, None, or a nest of these "
        "with the structure of the arguments"
    )


def _stacked(results: list[Any], out_dims: Any) -> Any:
    first = results[0]
    if not isinstance(first, (Tensor, tuple, list, dict)):
        raise ValueError(f"vmap: `func` must only return Tensors, got type {type(first)}")
    dims = iter(_spread(out_dims, first, "out_dims"))
    columns = iter(list(zip(*[tensors_in(r) for r in results], strict=True)))

    def together(_: Tensor) -> Tensor:
        dim, column = next(dims), next(columns)
        if dim is None:
            return column[0]  # type: ignore[no-any-return]
        return FUNCTIONS["stack"](column, dim)  # type: ignore[no-any-return]

    return rebuild(first, together)
