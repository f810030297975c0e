"""Functions of functions, as PyTorch's module of this name: gradients, Jacobians, maps over a
batch.

Arguments and results may be nests of tuples, lists and dicts. Jacobians are products with all unit
vectors, mapped by `vmap` (in `_captured.vmap`).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ._captured.capture import rebuild, tensors_in
from ._captured.vmap import debug_unwrap, vmap
from ._deferred.storage import recorder
from ._deferred.tensor import Tensor
from ._ops.base import FUNCTIONS
from ._ops.rearrange import rearrange
from .autograd.engine import grad as _gradients_of
from .autograd.functional import jvp as _jvp
from .autograd.grad_mode import enable_grad, is_grad_enabled
from .autograd.nodes import AccumulateGrad
from .nn import Module
from .nn.modules.batchnorm import _BatchNorm

__all__ = [
    "debug_unwrap", "functional_call", "functionalize", "grad", "grad_and_value", "hessian",
    "jacfwd", "jacrev", "jvp", "linearize", "rearrange", "replace_all_batch_norm_modules_",
    "stack_module_state", "vjp", "vmap",
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
        parameter_and_buffer_dicts: names, as `named_parameters` and `named_buffers` give them, and
            tensors; or several such dicts. Buffers that the call assigns anew are found in it
            afterwards.
        args, kwargs: of the call; one argument need not be in a tuple.
        tie_weights: whether a tensor known by several names is replaced under all of them by one
            entry.
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
                f"{twice[:1]} appeared in multiple dictionaries; behavior of functional call is "
                "ambiguous"
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
                f"Error(s) in reparametrizing for {type(module).__name__}:\n\t"
                + ".\n\t".join(about)
            )
    if unknown:
        raise AttributeError(f"{type(module).__name__} has no parameter or buffer {unknown[0]!r}")
    if tie:
        for names in alike.values():
            found = [n for n in names if n in wanted]
            if any(wanted[n] is not wanted[found[0]] for n in found):
                raise ValueError(
                    f"functional_call got multiple values for keys {sorted(names)}, which are "
                    "tied. Consider using tie_weights=False"
                )
            wanted.update((n, wanted[found[0]]) for n in names if found)
    before = {name: own[name][0][own[name][1]] for name in wanted}
    if recorder.capture is not None:
        recorder.capture.about_to_replace(module.modules())
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
    """The parameters and buffers of several modules of one class, each stacked along a new first
    dimension.

    Raises:
        RuntimeError: no module, or modules of different classes or modes.
    """
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise RuntimeError(
            "stack_module_state: Expected all models to have the same training/eval mode."
        )
    if len({type(m) for m in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    tables = [dict(m.named_parameters()) for m in models], [dict(m.named_buffers()) for m in models]
    parameters, buffers = (
        {name: FUNCTIONS["stack"]([t[name] for t in table]).detach() for name in table[0]}
        for table in tables
    )
    for name, stacked in parameters.items():
        stacked.requires_grad_(tables[0][0][name].requires_grad)
    return parameters, buffers


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Make batch norms in `root` forget their running statistics, which `vmap` could not write."""
    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root


# ---------------------------------------------------------------------------------------- gradients


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
    """The nest with tensors to differentiate by, which keep their history; they are added to
    `made`."""

    def fresh(x: Tensor) -> Tensor:
        made.append(x.view_as(x) if x.requires_grad else x.detach().requires_grad_())
        return made[-1]

    return rebuild(tree, fresh)


def _is_observed(outputs: Sequence[Tensor], args: Any, point: Sequence[Tensor]) -> bool:
    """Whether somebody outside may differentiate: another transform, or autograd by what requires
    grad."""
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


def _like(
    args: tuple[Any, ...], argnums: Any, numbers: Sequence[int], tensors: Sequence[Any]
) -> Any:
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
                "Expected the function differentiated to return a Tensor, got "
                f"{type(value).__name__}"
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

    return functools.wraps(func, updated=())(run)


def grad(func: Function, argnums: Any = 0, has_aux: bool = False) -> Function:
    """A function that gives the gradient of `func`, or (gradient, aux); see `grad_and_value`."""
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return run


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """(outputs, pull), or (outputs, pull, aux): ``pull(cotangents)`` gives the products with the
    Jacobian's transpose, one nest for each of `primals`."""

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
                "Expected pytree structure of cotangents to be that of the outputs: "
                f"{len(results)} tensors, got {len(seeds)}"
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
        return tuple(rebuild(p, lambda _: next(left)) for p in primals)

    shown = outputs if keep else rebuild(outputs, lambda t: t.detach())
    return (shown, pull, aux) if has_aux else (shown, pull)


def jvp(
    func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> Any:
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
        results = tensors_in(outputs)
        nest[:] = [outputs, _is_observed(results, (primals, tangents), tensors)]
        return tuple(results)

    nest: list[Any] = []
    inputs, vectors = tuple(tensors_in(primals)), tuple(tensors_in(tangents))
    outputs, products = _enter(
        lambda: _jvp(flat, inputs, vectors, create_graph=True, strict=strict)
    )()
    made, keep = nest
    if not keep:
        outputs, products = ([t.detach() for t in found] for found in (outputs, products))
        aux = rebuild(aux, lambda t: t.detach())
    left, right = iter(outputs), iter(products)
    shown = rebuild(made, lambda _: next(left)), rebuild(made, lambda _: next(right))
    return (*shown, aux[0]) if has_aux else shown


def jacrev(
    func: Function, argnums: Any = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Function:
    """A function that gives the Jacobian of `func`: for each result, and argument, a tensor of both
    shapes.

    Rows are pulled back all at once: the pull is mapped over the unit vectors of the result.

    Args:
        argnums: by which arguments to differentiate.
        chunk_size: how many rows at a time; None for all.
    """
    _check_chunks(chunk_size)

    @_enter
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums, "jacrev")
        given, point = _with_point(args, numbers)
        outputs = func(*given, **kwargs)
        aux = None
        if has_aux:
            outputs, aux = outputs
        _check_outputs("jacrev", outputs)
        keep = _is_observed(tensors_in(outputs), args, point)

        def of(output: Tensor) -> Any:
            if not output.requires_grad:
                rows = [_zero_block(output, x) for x in point]
            else:
                pull = functools.partial(_pulled, output, point, keep)
                found = vmap(pull, chunk_size=chunk_size)(_units(output))
                rows = [
                    r.reshape((*output.shape, *x.shape)) for r, x in zip(found, point, strict=True)
                ]
            return _like(args, argnums, numbers, rows)

        jacobian = rebuild(outputs, of)
        if has_aux:
            return jacobian, aux if keep else rebuild(aux, lambda t: t.detach())
        return jacobian

    return functools.wraps(func, updated=())(run)


def _check_chunks(chunk_size: int | None) -> None:
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"jacrev: `chunk_size` should be greater than 0. (got {chunk_size})")


def _check_outputs(name: str, outputs: Any) -> None:
    if not tensors_in(outputs):
        raise RuntimeError(
            f"{name}: Expected f to return Tensors, got {type(outputs).__name__}: return a tensor, "
            "or a nest of tensors"
        )


def _units(x: Tensor) -> Tensor:
    """The unit vectors of the shape of `x`, along a new first dimension."""
    size = x.numel()
    return FUNCTIONS["eye"](size, dtype=x.dtype, device=x.device).reshape((size, *x.shape))  # type: ignore[no-any-return]


def _zero_block(output: Tensor, x: Tensor) -> Tensor:
    return FUNCTIONS["zeros"]((*output.shape, *x.shape), dtype=x.dtype, device=x.device)  # type: ignore[no-any-return]


def _pulled(
    output: Tensor, point: Sequence[Tensor], keep: bool, cotangent: Tensor
) -> tuple[Tensor, ...]:
    """The products of `cotangent` with the Jacobian of `output`."""
    found = _gradients_of(
        output, point, cotangent, retain_graph=True, create_graph=keep, allow_unused=True
    )
    return tuple(_filled(found, point, keep))


def jacfwd(
    func: Function, argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Function:
    """As `jacrev`, column by column, all at once: cheaper where there are fewer arguments than
    results.

    Args:
        randomness: as of `vmap`; the function is called once, whatever it says.
    """

    @_enter
    def run(*args: Any, **kwargs: Any) -> Any:
        numbers = _chosen(args, argnums, "jacfwd")
        given, point = _with_point(args, numbers)
        outputs = func(*given, **kwargs)
        aux = None
        if has_aux:
            outputs, aux = outputs
        _check_outputs("jacfwd", outputs)
        results = tensors_in(outputs)
        keep = _is_observed(results, args, point)
        push = Push(results, point, keep)
        columns = [
            vmap(functools.partial(push.along, i), out_dims=-1)(_units(x))
            for i, x in enumerate(point)
        ]
        blocks = iter(
            [
                [c[j].reshape((*y.shape, *x.shape)) for c, x in zip(columns, point, strict=True)]
                for j, y in enumerate(results)
            ]
        )
        jacobian = rebuild(outputs, lambda _: _like(args, argnums, numbers, next(blocks)))
        if has_aux:
            return jacobian, aux if keep else rebuild(aux, lambda t: t.detach())
        return jacobian

    return functools.wraps(func, updated=())(run)


class Push:
    """Products of the Jacobian of `results` by `point` with tangents: the pull is linear in the
    cotangents, and its own pull is the push."""

    def __init__(self, results: Sequence[Tensor], point: Sequence[Tensor], keep: bool):
        self.results, self.point, self.keep = results, point, keep
        self.seeds = [FUNCTIONS["zeros_like"](y.detach()).requires_grad_() for y in results]
        used = [(y, s) for y, s in zip(results, self.seeds, strict=True) if y.requires_grad]
        self.pulled: Sequence[Any] = [None] * len(point)
        if used:
            self.pulled = _gradients_of(
                [y for y, _ in used],
                point,
                [s for _, s in used],
                create_graph=True,
                allow_unused=True,
            )

    def of(self, tangents: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """One product for each result; a tangent None is zero."""
        pairs = [
            (g, t)
            for g, t in zip(self.pulled, tangents, strict=True)
            if g is not None and t is not None and g.requires_grad
        ]
        found: Sequence[Any] = [None] * len(self.seeds)
        if pairs:
            with enable_grad():
                found = _gradients_of(
                    [g for g, _ in pairs],
                    self.seeds,
                    [t for _, t in pairs],
                    retain_graph=True,
                    create_graph=self.keep,
                    allow_unused=True,
                )
        return tuple(_filled(found, self.seeds, self.keep))

    def along(self, number: int, tangent: Tensor) -> tuple[Tensor, ...]:
        """`of` a tangent of one point alone."""
        return self.of([tangent if i == number else None for i in range(len(self.point))])


def hessian(func: Function, argnums: Any = 0) -> Function:
    """A function that gives the second derivatives of `func`: the Jacobian of its Jacobian."""
    return jacrev(jacrev(func, argnums), argnums)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """(outputs, push): ``push(*tangents)`` gives the product of the Jacobian at `primals` with
    tangents, and may be called any number of times; the function is called once.

    Raises:
        RuntimeError: (of the push) tangents that do not have the structure or the shapes of
            `primals`.
    """

    @_enter
    def forward() -> tuple[Any, Push]:
        made: list[Tensor] = []
        outputs = func(*[_point(p, made) for p in primals])
        results = tensors_in(outputs)
        return outputs, Push(results, made, _is_observed(results, primals, made))

    outputs, push = forward()

    def apply(*tangents: Any) -> Any:
        given = tensors_in(tangents)
        if len(tangents) != len(primals) or len(given) != len(push.point):
            raise RuntimeError(
                f"Expected the tangents to have the same argspec as the primals: {len(push.point)} "
                f"tensors, got {len(given)}"
            )
        for i, (t, p) in enumerate(zip(given, push.point, strict=True)):
            if t.shape != p.shape or t.dtype is not p.dtype:
                raise RuntimeError(
                    f"tangent:{i} with shape {t.shape} and dtype {t.dtype} in flattened pytree "
                    f"doesn't match the shape {p.shape} and dtype {p.dtype} of the corresponding "
                    "primal."
                )
        left = iter(push.of(given))
        return rebuild(outputs, lambda _: next(left))

    return (outputs if push.keep else rebuild(outputs, lambda t: t.detach())), apply


def functionalize(func: Function, *, remove: str = "mutations") -> Function:
    """`func` itself: what it records never holds a mutation or an alias, whatever its lines write.

    Args:
        remove: ``mutations`` or ``mutations_and_views``.

    Raises:
        RuntimeError: `remove` is something else.
    """
    if remove not in ("mutations", "mutations_and_views"):
        raise RuntimeError(
            "functionalize(f, remove=...)(*input_args): received unexpected value for `remove`: "
            f"expected 'mutations' or 'mutations_and_views', got {remove!r}"
        )

    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return run
