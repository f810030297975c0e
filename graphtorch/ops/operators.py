"""Operators by name: what ``torch.ops.namespace.name`` is, and how a call finds its implementation.

An operator has implementations under PyTorch's dispatch keys. A call takes the first that applies:
autocast (where it is on), autograd (where an argument requires grad), then the CPU's or one for all
devices. https://docs.pytorch.org/docs/stable/library.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops.autocast import is_autocast_enabled
from .._ops.overriding import NOBODY, overridden, overriding
from ..autograd.function import Function
from ..autograd.grad_mode import modes, no_grad

AUTOGRAD = ("Autograd", "AutogradCPU")
AUTOCAST = ("AutocastCPU",)
KERNELS = ("CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd", "")


class Excluded(threading.local):
    """Dispatch keys that calls in this thread pass over."""

    keys: frozenset[str] = frozenset()


excluded = Excluded()


class excluding:
    """Inside a ``with`` block calls pass over dispatch keys."""

    def __init__(self, keys: Any):
        self._keys = frozenset(keys)

    def __enter__(self) -> None:
        self._before = excluded.keys
        excluded.keys = self._before | self._keys

    def __exit__(self, *exc: object) -> None:
        excluded.keys = self._before


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among arguments, those in lists too."""
    found = []
    for x in values:
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, (tuple, list)):
            found += [t for t in x if isinstance(t, Tensor)]
    return found


class Overload:
    """One signature of an operator, ``torch.ops.aten.add.Tensor``; called as the operator is."""

    def __init__(self, packet: Packet, overload: str):
        self._overloadpacket, self._overloadname = packet, overload
        self.namespace, _, self.__name__ = packet._qualified_op_name.partition("::")
        self._name = packet._qualified_op_name + ("" if overload == "default" else f".{overload}")
        self.__name__ += f".{overload}"
        self.__qualname__ = self.__name__
        self.__module__ = f"torch.ops.{self.namespace}"

    @property
    def overloadpacket(self) -> Packet:
        return self._overloadpacket

    def name(self) -> str:
        """``"aten::add.Tensor"``."""
        return self._name

    @property
    def _schema(self) -> str:
        return self._overloadpacket._entry.schema or f"{self._name}(...)"

    @property
    def op(self) -> Callable[..., Any]:
        return self._overloadpacket

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._overloadpacket._entry(self, args, kwargs)

    def redispatch(self, keyset: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what comes below autograd."""
        with excluding((*AUTOGRAD, *AUTOCAST)):
            return self(*args, **kwargs)

    def __repr__(self) -> str:
        packet = self._overloadpacket.__name__
        return f"<OpOverload(op='{self.namespace}.{packet}', overload='{self._overloadname}')>"

    def __str__(self) -> str:
        return f"{self.namespace}.{self.__name__}"

    def __hash__(self) -> int:
        return hash(self._name)

    def __reduce__(self) -> Any:
        return _found, (self.namespace, self._overloadpacket.__name__, self._overloadname)

    def __deepcopy__(self, memo: Any) -> Overload:
        return self


class Packet:
    """All signatures of one operator, ``torch.ops.aten.add``."""

    def __init__(self, entry: Entry):
        self._entry, self._qualified_op_name = entry, entry.name
        self.__name__ = self.__qualname__ = entry.name.partition("::")[2]
        self.__module__ = f"torch.ops.{entry.name.partition('::')[0]}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._entry(self, args, kwargs)

    def overloads(self) -> list[str]:
        """The names of the signatures."""
        return list(self._entry.overloads)

    def __iter__(self) -> Iterator[str]:
        return iter(self.overloads())

    def __getattr__(self, key: str) -> Overload:
        if key not in self._entry.overloads:
            raise AttributeError(
                f"The underlying op of '{self._qualified_op_name}' has no overload name {key!r}; "
                f"it has {', '.join(self._entry.overloads)}"
            )
        made = Overload(self, key)
        self.__dict__[key] = made
        return made

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op='{self._qualified_op_name.replace('::', '.')}')>"

    def __str__(self) -> str:
        return self._qualified_op_name.replace("::", ".")

    def __reduce__(self) -> Any:
        return _found, (*self._qualified_op_name.split("::"), None)

    def __deepcopy__(self, memo: Any) -> Packet:
        return self


class Entry:
    """What is known of an operator.

    Attributes:
        schema: as it was defined, "" where it was not.
        implementations: by dispatch key.
        backward, setup: what `register_autograd` was given.
        vmap: what `register_vmap` was given.
        function: the `Function` of calls that are differentiated.
        fake: what `register_fake` was given: shapes without elements. Nothing here asks for it.
        differentiable: whether the implementation is made of operations that have gradients.
    """

    def __init__(
        self,
        name: str,
        schema: str = "",
        overloads: tuple[str, ...] = ("default",),
        differentiable: bool = False,
    ):
        self.name, self.schema, self.overloads = name, schema, overloads
        self.differentiable = differentiable
        self.implementations: dict[str, Callable[..., Any]] = {}
        self.backward: Callable[..., Any] | None = None
        self.setup: Callable[..., Any] | None = None
        self.vmap: Callable[..., Any] | None = None
        self.fake: Callable[..., Any] | None = None
        self.packet = Packet(self)
        self.function: Any = _Differentiated

    def differentiate(self, backward: Callable[..., Any], setup: Callable[..., Any] | None) -> None:
        """The gradient of calls from now on; its function is known by the operator, and as the
        user's own."""
        self.backward, self.setup = backward, setup
        name = f"GeneratedBackwardFor_{self.name.replace('::', '_')}_default"
        module = getattr(backward, "__module__", None) or __name__
        self.function = type(name, (_Differentiated,), {"__module__": module})

    def __call__(self, caller: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if overriding:
            answer = overridden(caller, args, kwargs)
            if answer is not NOBODY:
                return answer
        if self.vmap is not None and recorder.capture is not None:
            answer = recorder.capture.by_rule(self.vmap, args, kwargs)
            if answer is not NotImplemented:
                return answer
        for key in self._above():
            found = self.implementations.get(key)
            if found is not None and key not in excluded.keys:
                return found(*args, **kwargs)
        kernel = self.kernel()
        tensors = tensors_in((*args, *kwargs.values()))
        if self.differentiable or not modes.grad or not any(t.requires_grad for t in tensors):
            return kernel(*args, **kwargs)
        if "CompositeImplicitAutograd" in self.implementations and self.backward is None:
            return kernel(*args, **kwargs)
        return _differentiably(self, kernel, args, kwargs)

    def _above(self) -> tuple[str, ...]:
        if len(self.implementations) < 2:
            return ()
        return (*(AUTOCAST if is_autocast_enabled("cpu") else ()), *AUTOGRAD)

    def kernel(self) -> Callable[..., Any]:
        """The implementation for CPUs.

        Raises:
            NotImplementedError: there is none.
        """
        for key in KERNELS:
            if key in self.implementations:
                return self.implementations[key]
        raise NotImplementedError(
            f"Could not run '{self.name}' with arguments from the 'CPU' backend: it is declared, "
            "but has no Python "
            "implementation here (compiled extensions of PyTorch cannot be loaded); give it one "
            f"with torch.library.impl('{self.name}', 'CPU')"
        )


def _differentiably(
    entry: Entry, kernel: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A call under autograd: tensors in lists are spread out, since a `Function` sees only its own
    arguments."""
    flat: list[Any] = []
    shape: list[Any] = []
    for x in (*args, *kwargs.values()):
        several = isinstance(x, (tuple, list)) and any(isinstance(t, Tensor) for t in x)
        shape.append((type(x), len(x)) if several else None)
        flat += x if several else [x]
    return entry.function.apply(entry, kernel, shape, len(args), tuple(kwargs), *flat)


def _gathered(shape: list[Any], flat: Any) -> list[Any]:
    values = iter(flat)
    return [next(values) if s is None else s[0](next(values) for _ in range(s[1])) for s in shape]


class _Differentiated(Function):
    """A call of an operator whose gradient `register_autograd` gave, or that has none."""

    of_operator = True

    @staticmethod
    def forward(
        ctx: Any, entry: Entry, kernel: Any, shape: Any, count: int, names: Any, *flat: Any
    ) -> Any:
        ctx._operator, ctx._shape = entry, shape
        given = _gathered(shape, flat)
        args, kwargs = given[:count], dict(zip(names, given[count:], strict=True))
        with no_grad():
            result = kernel(*args, **kwargs)
        if entry.setup is not None:
            extra = {"keyword_only_inputs": kwargs} if kwargs else {}
            entry.setup(ctx, tuple(args), result, **extra)
        return tuple(result) if isinstance(result, list) else result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        entry = ctx._operator
        if entry.backward is None:
            raise RuntimeError(
                f"Trying to backward through {entry.name}.default but no autograd formula was "
                "registered. Please "
                "use register_autograd to add one."
            )
        found = entry.backward(ctx, *gradients)
        found = list(found) if isinstance(found, (tuple, list)) else [found]
        flat: list[Any] = [None] * 5
        for s, g in zip(ctx._shape, found + [None] * (len(ctx._shape) - len(found)), strict=True):
            flat += [g] if s is None else (g if g is not None else [None] * s[1])
        return tuple(flat)


# ------------------------------------------------------------------------------------- the registry

ENTRIES: dict[str, Entry] = {}  # by qualified name, "aten::add"


def entry_of(name: str) -> Entry:
    """The operator of a qualified name.

    Raises:
        RuntimeError: there is none, or the name is not qualified.
    """
    base = name.partition(".")[0]
    namespace, _, short = base.partition("::")
    if not short:
        raise RuntimeError(
            f"expected a qualified operator name such as 'mylib::{name}', got {name!r}"
        )
    found = ENTRIES.get(base) or lookup(namespace, short)
    if found is None:
        raise RuntimeError(
            f"operator {base} does not exist: define it with torch.library.define or custom_op"
        )
    return found


def lookup(namespace: str, name: str) -> Entry | None:
    """The operator of a namespace, made where it is one of ours; None where there is none."""
    found = ENTRIES.get(f"{namespace}::{name}")
    if found is None and namespace in FINDERS:
        found = FINDERS[namespace](name)
        if found is not None:
            ENTRIES[found.name] = found
    return found


# for each namespace of ours, what makes its operators
FINDERS: dict[str, Callable[[str], Entry | None]] = {}


def _found(namespace: str, name: str, overload: str | None) -> Any:
    packet = entry_of(f"{namespace}::{name}").packet
    return packet if overload is None else getattr(packet, overload)
