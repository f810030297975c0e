"""``torch.library``: operators written in Python, which ``torch.ops`` offers by name.

    @torch.library.custom_op("mylib::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    double.register_autograd(lambda ctx, g: g * 2)

https://docs.pytorch.org/docs/stable/library.html
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from . import _types
from ._deferred.tensor import Tensor
from ._torch.absent import attribute_of
from .ops.operators import AUTOCAST, ENTRIES, Entry, Overload, Packet, entry_of, excluding

__all__ = [
    "CustomOpDef",
    "Library",
    "custom_op",
    "define",
    "fallthrough_kernel",
    "get_ctx",
    "get_kernel",
    "impl",
    "impl_abstract",
    "infer_schema",
    "opcheck",
    "register_autocast",
    "register_autograd",
    "register_fake",
    "register_kernel",
    "register_torch_dispatch",
    "register_vmap",
    "triton_op",
    "wrap_triton",
]

_KEYS = {
    None: "CompositeExplicitAutograd",
    "default": "CompositeExplicitAutograd",
    "cpu": "CPU",
    "cuda": "CUDA",
    "mps": "MPS",
    "xpu": "XPU",
    "meta": "Meta",
    "types": "CompositeExplicitAutograd",
}
_SCHEMA = re.compile(r"^\s*(?:(\w+)::)?(\w+)(?:\.(\w+))?\s*\(.*\)\s*->\s*.*$", re.S)


def fallthrough_kernel() -> None:
    """In the place of an implementation: take the next dispatch key.

    Raises: NotImplementedError when called.
    """
    raise NotImplementedError("fallthrough_kernel() should never be called.")


# ------------------------------------------------------------------------------------------ schemas

_ARGUMENTS: dict[Any, str] = {
    Tensor: "Tensor",
    int: "SymInt",
    float: "float",
    bool: "bool",
    str: "str",
    complex: "Scalar",
    _types.dtype: "ScalarType",
    _types.device: "Device",
}


def _schema_type(annotation: Any, what: str) -> str:
    if annotation in _ARGUMENTS:
        return _ARGUMENTS[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if type(None) in parts:
        rest = [p for p in parts if p is not type(None)]
        inner = rest[0] if len(rest) == 1 else typing.Union[tuple(rest)]
        return _schema_type(inner, what) + "?"
    if set(parts) == {int, float, bool}:
        return "Scalar"
    if origin in (list, Sequence, tuple) and parts:
        return _schema_type(parts[0], what) + "[]"
    raise ValueError(
        f"infer_schema(func): {what} has unsupported type {annotation!r}. The valid types are: "
        "Tensor, int, float, bool, str, complex, dtype, device, Number, and lists and Optional of "
        "those"
    )


def infer_schema(
    prototype_function: Callable[..., Any], /, *, mutates_args: Any, op_name: str | None = None
) -> str:
    """The schema that the annotations of a function say: ``"(Tensor x, SymInt n=2) -> Tensor"``.

    Raises:
        ValueError: an argument or the result has no annotation, or one that operators cannot have.
    """
    hints = typing.get_type_hints(prototype_function)
    parts: list[str] = []
    keywords = False
    for name, p in inspect.signature(prototype_function).parameters.items():
        if name not in hints:
            raise ValueError(f"infer_schema(func): Parameter {name} must have a type annotation.")
        text = _schema_type(hints[name], f"Parameter {name}")
        if text.startswith("Tensor") and (mutates_args == "unknown" or name in mutates_args):
            text = f"Tensor(a{len(parts)}!)" + text.removeprefix("Tensor")
        if p.kind is p.KEYWORD_ONLY and not keywords:
            keywords, parts = True, [*parts, "*"]
        default = "" if p.default is p.empty else f"={p.default!r}".replace("'", '"')
        parts.append(f"{text} {name}{default}")
    unknown = set() if mutates_args == "unknown" else set(mutates_args) - set(hints)
    if unknown:
        raise ValueError(
            f"infer_schema(func): mutates_args has {sorted(unknown)}, which are no arguments"
        )
    return (
        f"{op_name or ''}({', '.join(parts)}) -> "
        f"{_result_type(hints.get('return', inspect.Signature.empty))}"
    )


def _result_type(annotation: Any) -> str:
    if annotation in (None, type(None)):
        return "()"
    if annotation is inspect.Signature.empty:
        raise ValueError("infer_schema(func): the function needs an annotation of its result")
    if typing.get_origin(annotation) is tuple:
        return f"({', '.join(_schema_type(a, 'the result') for a in typing.get_args(annotation))})"
    return _schema_type(annotation, "the result")


# ---------------------------------------------------------------------------------------- custom_op


class CustomOpDef:
    """An operator made by `custom_op`; calling it is calling ``torch.ops.namespace.name``."""

    def __init__(self, entry: Entry, function: Callable[..., Any]):
        functools.update_wrapper(self, function, ("__doc__", "__module__"))
        self._entry, self._init_fn = entry, function
        self._qualname = entry.name
        self._namespace, _, self._name = entry.name.partition("::")
        self._opoverload = entry.packet.default

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._opoverload(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    def register_kernel(self, device_types: Any, fn: Callable[..., Any] | None = None, /) -> Any:
        """The implementation for some devices; also as a decorator."""
        return register_kernel(self, device_types, fn)

    def register_fake(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """See `register_fake`."""
        return register_fake(self, fn)  # type: ignore[no-any-return]

    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """See `register_autograd`."""
        register_autograd(self, backward, setup_context=setup_context)

    def register_autocast(self, device_type: str, cast_inputs: Any) -> None:
        """See `register_autocast`."""
        register_autocast(self, device_type, cast_inputs)

    def register_vmap(self, func: Callable[..., Any] | None = None) -> Any:
        """See `register_vmap`."""
        return register_vmap(self, func)

    def register_torch_dispatch(
        self, torch_dispatch_class: Any, fn: Callable[..., Any] | None = None, /
    ) -> Any:
        """See `register_torch_dispatch`."""
        return register_torch_dispatch(self, torch_dispatch_class, fn)

    @contextlib.contextmanager
    def set_kernel_enabled(self, device_type: str, enabled: bool = True) -> Iterator[None]:
        """Inside, the implementation that `register_kernel` gave for a device is used, or is not:
        then the function that the operator was made of is."""
        kernels, key = self._entry.implementations, _KEYS[device_type]
        before = dict(kernels)
        if not enabled:
            kernels.pop(key, None)
            kernels.setdefault("CompositeExplicitAutograd", self._init_fn)
        try:
            yield
        finally:
            self._entry.implementations = before


def custom_op(
    name: str,
    fn: Callable[..., Any] | None = None,
    /,
    *,
    mutates_args: Any = (),
    device_types: Any = None,
    schema: str | None = None,
    tags: Any = None,
) -> Any:
    """Make a function an operator; also as a decorator.

    Args:
        name: ``"namespace::name"``.
        mutates_args: the names of arguments that it writes to, or "unknown".
        device_types: "cpu", "cuda", ...: where the function runs; None is everywhere.
        schema: as `infer_schema` gives it, which is the default.

    Raises:
        RuntimeError: the name is not qualified. ValueError: no schema can be read from the
            annotations.
    """

    def decorate(function: Callable[..., Any]) -> CustomOpDef:
        if name.count("::") != 1:
            raise RuntimeError(f"custom_op: expected a name 'namespace::name', got {name!r}")
        text = infer_schema(function, mutates_args=mutates_args) if schema is None else schema
        made = ENTRIES[name] = Entry(name, name + text)
        for device in _devices(device_types):
            made.implementations[_KEYS[device]] = function
        return CustomOpDef(made, function)

    return decorate if fn is None else decorate(fn)


triton_op = custom_op


def wrap_triton(triton_kernel: Any, /) -> Any:
    """Raises RuntimeError: Triton's kernels run on GPUs."""
    raise RuntimeError(
        "wrap_triton: Triton kernels need a GPU; write the operator with tensor operations"
    )


def _devices(given: Any) -> Iterable[Any]:
    found = given if isinstance(given, (tuple, list)) else (given,)
    for one in found:
        if one not in _KEYS:
            raise ValueError(
                f"device_types: unknown device {one!r}; expected one of "
                f"{sorted(k for k in _KEYS if k)}"
            )
    return found


# ------------------------------------------------------------------------------------- registration

_Op = str | Overload | Packet | CustomOpDef


def _entry(op: Any) -> Entry:
    if isinstance(op, CustomOpDef):
        return op._entry
    if isinstance(op, (Overload, Packet)):
        return op._entry if isinstance(op, Packet) else op._overloadpacket._entry
    if not isinstance(op, str):
        raise ValueError(
            f"torch.library: expected an operator or its qualified name, got {type(op).__name__}"
        )
    return entry_of(op)


def _implementing(library: Library, name: str, key: str) -> Callable[[Any], Any]:
    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        library.impl(name, f, key)
        return f

    return register


def define(qualname: str | Library, schema: str = "", *, lib: Any = None, tags: Any = ()) -> Any:
    """Declare the operator ``namespace::name`` with a schema such as ``"(Tensor x) -> Tensor"``."""
    if isinstance(qualname, Library):
        name = qualname.define(schema)
        return _implementing(qualname, name, "")
    if not isinstance(qualname, str) or qualname.count("::") != 1:
        raise ValueError(f"define: expected a name 'namespace::name', got {qualname!r}")
    namespace, name = qualname.split("::")
    Library(namespace, "FRAGMENT").define(name + schema)
    return None


def impl(
    qualname: Any, types: Any = None, func: Callable[..., Any] | None = None, *, lib: Any = None
) -> Any:
    """The implementation of an operator for devices or a dispatch key; also as a decorator."""
    if isinstance(qualname, Library):  # of old: impl(lib, name, dispatch_key)
        return _implementing(qualname, types, str(func or ""))
    keys = types if isinstance(types, (tuple, list)) else (types,)

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        for key in keys:
            _set(_entry(qualname), str(_KEYS.get(key, key)), f)
        return f

    return register if func is None else register(func)


def _set(entry: Entry, key: str, function: Callable[..., Any]) -> None:
    if function is not fallthrough_kernel:
        entry.implementations[key] = function


def register_kernel(
    op: Any, device_types: Any, func: Callable[..., Any] | None = None, /, *, lib: Any = None
) -> Any:
    """The implementation of an operator for some devices; also as a decorator."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        for device in _devices(device_types):
            _set(_entry(op), _KEYS[device], f)
        return f

    return register if func is None else register(func)


def register_fake(
    op: Any,
    func: Callable[..., Any] | None = None,
    /,
    *,
    lib: Any = None,
    _stacklevel: int = 1,
    allow_override: bool = False,
) -> Any:
    """The function that gives a result's shape; also as a decorator.

    Kept with the operator. Nothing here asks for it: a captured call runs the operator's own code.
    """

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        _entry(op).fake = f
        return f

    return register if func is None else register(func)


impl_abstract = register_fake


def register_autograd(
    op: Any,
    backward: Callable[..., Any],
    /,
    *,
    setup_context: Callable[..., Any] | None = None,
    lib: Any = None,
) -> None:
    """The gradient of an operator.

    Args:
        backward: ``backward(ctx, *grads)`` gives a gradient, or None, for each argument.
        setup_context: ``setup_context(ctx, inputs, output)`` keeps in ``ctx`` what `backward`
            needs.

    Operators that graphtorch has itself keep their own gradient.
    """
    _entry(op).differentiate(backward, setup_context)


def register_autocast(op: Any, device_type: str, cast_inputs: Any, /, *, lib: Any = None) -> None:
    """Under autocast the operator runs with its floating-point tensors as `cast_inputs`, a
    dtype."""
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"register_autocast: unknown device type {device_type!r}")
    entry = _entry(op)

    def cast(x: Any) -> Any:
        wide = (
            isinstance(x, Tensor)
            and x.is_floating_point()
            and x.dtype is not _types.DTYPES["float64"]
        )
        return x.to(cast_inputs) if wide else x

    def call(*args: Any, **kwargs: Any) -> Any:
        with excluding(AUTOCAST):
            return entry.packet(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})

    entry.implementations["AutocastCPU" if device_type == "cpu" else "AutocastCUDA"] = call


def register_vmap(op: Any, func: Any = None, /, *, lib: Any = None) -> Any:
    """How `vmap` calls an operator; also as a decorator.

    Args:
        func: ``func(info, in_dims, *args, **kwargs)`` gives the results for all entries, and where
            these have them. `in_dims` has for each positional argument the mapped dimension or
            None, for a list of tensors a list of them; `info` has `batch_size` and `randomness`.

    Without a rule `vmap` looks into the operator's own code.
    """

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        _entry(op).vmap = f
        return f

    return register if func is None else register(func)


def register_torch_dispatch(
    op: Any, torch_dispatch_class: Any, func: Any = None, /, *, lib: Any = None
) -> Any:
    """Raises NotImplementedError: no operation is dispatched to such classes here."""
    raise NotImplementedError(
        "torch.library.register_torch_dispatch: __torch_dispatch__ is never called here, for "
        "operations are recorded; let the class have a __torch_function__, which is asked for "
        "operators too"
    )


def get_ctx() -> Any:
    """Raises RuntimeError: no fake tensors are made here."""
    raise RuntimeError(
        "torch.library.get_ctx() can only be called inside of a function that register_fake calls"
    )


def get_kernel(op: Any, dispatch_key: Any) -> Callable[..., Any]:
    """The implementation under a dispatch key. Raises RuntimeError: there is none."""
    found = _entry(op).implementations.get(str(dispatch_key))
    if found is None:
        raise RuntimeError(f"get_kernel: {_entry(op).name} has nothing under {dispatch_key}")
    return found


def opcheck(
    op: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    test_utils: Any = None,
    raise_exception: bool = True,
    atol: Any = None,
    rtol: Any = None,
) -> dict[str, str]:
    """Call an operator, and differentiate it where an argument requires grad: "SUCCESS" or the
    error for each."""
    entry, found = _entry(op), {}

    def schema() -> None:
        entry.packet(*args, **(kwargs or {}))

    def gradient() -> None:
        results = entry.packet(*args, **(kwargs or {}))
        for r in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(r, Tensor) and r.requires_grad:
                r.sum().backward(retain_graph=True)

    for name, test in (("test_schema", schema), ("test_autograd_registration", gradient)):
        try:
            test()
            found[name] = "SUCCESS"
        except Exception as error:
            if raise_exception:
                raise
            found[name] = repr(error)
    return found


class Library:
    """Operators of one namespace to declare ("DEF", "FRAGMENT") or to implement ("IMPL")."""

    def __init__(self, ns: str, kind: str, dispatch_key: str = ""):
        if kind not in ("IMPL", "DEF", "FRAGMENT"):
            raise ValueError(f"Unsupported kind: {kind}; expected 'DEF', 'FRAGMENT' or 'IMPL'")
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key
        self._op_defs: set[str] = set()

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Declare ``"name(Tensor x) -> Tensor"``; its name.

        Raises:
            RuntimeError: the text is no schema, or an "IMPL" library declares.
        """
        match = _SCHEMA.match(schema)
        if match is None:
            raise RuntimeError(
                "Library.define: expected a schema such as 'name(Tensor x) -> Tensor', got "
                f"{schema!r}"
            )
        if self.kind == "IMPL":
            raise RuntimeError(
                "Library.define: a library of kind 'IMPL' implements; declare with kind 'DEF'"
            )
        _, name, overload = match.groups()
        entry = ENTRIES.setdefault(
            f"{self.ns}::{name}", Entry(f"{self.ns}::{name}", f"{self.ns}::{schema}", ())
        )
        if (overload or "default") not in entry.overloads:
            entry.overloads = (*entry.overloads, overload or "default")
        self._op_defs.add(entry.name)
        return name

    def impl(
        self,
        op_name: Any,
        fn: Callable[..., Any],
        dispatch_key: str = "",
        *,
        with_keyset: bool = False,
        allow_override: bool = False,
    ) -> None:
        """The implementation under a dispatch key, that of the library by default.

        Raises:
            TypeError: `fn` cannot be called. RuntimeError: there is no such operator.
        """
        if not callable(fn):
            raise TypeError(
                f"Input function is required to be a callable but found type {type(fn)}"
            )
        name = op_name if isinstance(op_name, str) else _entry(op_name).name
        entry = entry_of(name if "::" in name else f"{self.ns}::{name}")
        key = dispatch_key or self.dispatch_key or "CompositeImplicitAutograd"
        _set(entry, key, functools.partial(fn, None) if with_keyset else fn)

    def fallback(self, fn: Any, dispatch_key: str = "", *, with_keyset: bool = False) -> None:
        """Raises NotImplementedError unless `fn` is `fallthrough_kernel`."""
        if fn is not fallthrough_kernel:
            raise NotImplementedError(
                "Library.fallback: operators have no fallback here; use impl for each of them"
            )

    def _register_fake(
        self, op_name: str, fn: Callable[..., Any], _stacklevel: int = 1, **options: Any
    ) -> None:
        register_fake(op_name if "::" in op_name else f"{self.ns}::{op_name}", fn)

    def _destroy(self) -> None:
        for name in self._op_defs:
            ENTRIES.pop(name, None)


@contextlib.contextmanager
def _scoped_library(*args: Any, **kwargs: Any) -> Iterator[Library]:
    """A library whose operators are gone after the ``with`` block."""
    made = Library(*args, **kwargs)
    try:
        yield made
    finally:
        made._destroy()


__getattr__ = attribute_of(__name__)
