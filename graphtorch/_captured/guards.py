"""What Python a recording read, and whether it is still so.

While a function is recorded, every Python function of the user's that runs is noted. The chains of
names that its code loads and stores (``config.scale``, ``self.steps["w"]``, a closure's cell) are
followed from the call on, one *hop* after another, and what each hop found is kept: numbers and
strings by value, other objects by identity, lists, dicts and arrays by their contents. All hops
become one generated function, of about 20 ns a hop. A chain that starts at a local value (the
result of a call) is no guard: what it came from is.

Values are noted before a function's first run. Where they are others after the call, the call
itself changed them, which a replay would leave out.
"""

from __future__ import annotations

import enum
import gc
import io
import os
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from graphtorch.ir.shape import SymInt

from .._deferred.tensor import Tensor
from .._settings import FOLDER
from .._types import device, dtype
from ..nn.modules._members import Members
from ..optim.optimizer import Optimizer
from .chains import Chain, Code, codes
from .checks import ATOMS, Checks, contents
from .owners import STOP, OptimizerGuard, write_module
from .segments import Restart

# Files of ours that keep Python numbers between calls, and are followed as the user's own are.
_STATEFUL = tuple(
    os.path.join(FOLDER, *p)
    for p in (("optim", "lr_scheduler"), ("optim", "swa_utils"), ("amp", "grad_scaler"))
)
_FOREIGN = sys.stdlib_module_names | {"graphtorch", "torch", "numpy"}
_FIXED = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
# Calls whose result, or effect, a replay would leave out.
_IMPURE = frozenset(
    (
        print,
        input,
        open,
        time.time,
        time.perf_counter,
        time.monotonic,
        time.process_time,
        time.time_ns,
        time.perf_counter_ns,
        time.sleep,
        os.urandom,
        os.getenv,
    )
)


def _is_impure(owner: object) -> bool:
    """Whether methods of an object depend on more than their arguments: streams and files."""
    if isinstance(owner, (random.Random, io.IOBase)):
        return True
    # NumPy loads it at its first use, without which nobody has such a stream
    numbers = sys.modules.get("numpy.random")
    return numbers is not None and isinstance(owner, (numbers.RandomState, numbers.Generator))


class Watch:
    """Notes what Python a call reads, from `start` to `stop`.

    Attributes:
        impure: a call whose effect a replay would leave out, or "".
        unrepeatable: whether what was seen afterwards says that a replay could not do what the call
            did.
        modules: modules whose code ran or whose attributes were read, with their ``training``
            before.
    """

    def __init__(
        self,
        function: Any,
        given: Iterable[Any],
        state_of: Callable[[Sequence[Any]], Any],
        repeats: bool = False,
    ):
        """Args:
        state_of: what of modules a recording depends on beside their tensors, to be compared.
        repeats: whether the call may have to be made again, so that a `Restart` is raised before it
            changes something in Python.
        """
        self.impure = ""
        self.unrepeatable = False
        self._repeats = repeats
        self._state_of = state_of
        self._states: dict[int, Any] = {}
        self.modules: dict[Any, bool] = {}
        self.optimizers: dict[int, Optimizer] = {}
        self._hops: dict[
            tuple[int, str, Any], tuple[Any, Any, bool]
        ] = {}  # owner, value, whether held weakly
        self._contents: dict[int, tuple[Any, Any]] = {}
        self._known: dict[int, Any] = {}  # objects that are older than the call
        self._functions: dict[types.CodeType, types.FunctionType] = {}
        self._done: set[tuple[types.CodeType, tuple[int, ...]]] = set()
        self._ran: set[types.CodeType] = set()
        self._kinds: dict[types.CodeType, int] = {}
        self._before: Any = None
        self._traced = False
        self._streams: tuple[Any, ...] = ()
        self._meet(function)
        # containers among the arguments: the signature has what is in them
        self._given: set[int] = set()
        self._take(given)

    def _take(self, given: Iterable[Any]) -> None:
        for one in given:
            self._meet(one)
            if isinstance(one, (list, tuple, dict)):
                self._given.add(id(one))
                self._take(one.values() if isinstance(one, dict) else one)

    def start(self) -> None:
        """Follow the calls of this thread. A trace function sees calls alone, and costs a fraction
        of a profile hook; a debugger keeps its own."""
        self._traced = sys.gettrace() is None
        if self._traced:
            sys.settrace(self._called)
        else:
            self._before = sys.getprofile()
            sys.setprofile(self._called)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Noted(s, self) for s in self._streams)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow what runs inside."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop following."""
        if self._traced:
            sys.settrace(None)
        else:
            sys.setprofile(self._before)
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            if isinstance(getattr(sys, name), _Noted):
                setattr(sys, name, stream)

    # -- what runs

    def _called(self, frame: Any, event: str, arg: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        kind = self._kinds.get(code)
        if kind is None:
            kind = self._kinds[code] = _kind_of(frame)
        if not kind:
            return
        if kind == _USERS:
            self._enter(frame, code)
        elif kind == _EMITS:
            self._note("a logger")
        else:
            owner = frame.f_locals.get("self")
            if isinstance(owner, Members):
                self.meet_module(owner)
            elif isinstance(owner, Optimizer):
                self.optimizers[id(owner)] = owner

    def _enter(self, frame: Any, code: types.CodeType) -> None:
        found = codes.get(code)
        if found is None:
            found = codes[code] = Code(code)
        self._ran.add(code)
        values = frame.f_locals
        function = self._functions.get(code)
        if (
            function is None
            and code.co_freevars
            and not any(code in codes[c].inner for c in self._ran if c in codes)
        ):
            function = self._function_of(code)
        names = [c[1] for c, _ in found.loads if c[0] != "global"]
        names += [c[1] for c in found.stores if c[0] != "global"]
        key = code, tuple([id(values.get(n)) for n in dict.fromkeys(names)])
        if key in self._done:
            return
        self._done.add(key)
        roots = (frame.f_globals, values, function)
        for chain, whole in found.loads:
            self._follow(chain, whole, roots, found.watches_all)
        for chain in found.stores:
            self._follow(chain, False, roots, False, True)
        if function is not None:
            for name in ("__code__", "__defaults__", "__kwdefaults__"):
                self._known[id(function)] = function
                self._hop(function, "attr", name)
        owner = values.get(code.co_varnames[0]) if code.co_argcount else None
        if owner is not None and not isinstance(owner, Tensor):
            self._of_class(owner, code.co_name)

    def _of_class(self, owner: Any, name: str) -> None:
        """A method that was found by its name."""
        for kind in type(owner).__mro__:
            if name in kind.__dict__:
                self._known[id(kind)] = kind
                self._hop(kind, "attr", name)
                return

    def _function_of(self, code: types.CodeType) -> types.FunctionType | None:
        for one in gc.get_referrers(code):
            if isinstance(one, types.FunctionType) and one.__code__ is code:
                self._functions[code] = one
                return one
        return None

    # -- chains

    def _start(self, chain: Chain, roots: Any, stored: bool) -> list[Any]:
        """What the name of a chain stands for: nothing, or one object."""
        kind, name, steps = chain
        values, function = roots[1], roots[2]
        cells = (
            {}
            if function is None
            else dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        )
        if kind == "local" or (kind == "cell" and name not in cells):
            return [values[name]] if name in values else []
        owner, key = (roots[0], name) if kind == "global" else (cells[name], "cell_contents")
        if kind == "global" and name not in owner and not stored:
            return []  # a builtin
        self._known[id(owner)] = owner
        found = self._hop(owner, "item" if kind == "global" else "attr", key, stored and not steps)
        return [] if found is STOP else [found]

    def _follow(
        self, chain: Chain, whole: bool, roots: Any, deep: bool, stored: bool = False
    ) -> None:
        steps = chain[2]
        owners = self._start(chain, roots, stored)
        for i, (step, key) in enumerate(steps):
            last = stored and i == len(steps) - 1
            reached: list[Any] = []
            for owner in owners:
                if _is_leaf(owner):
                    continue
                if step == "each":
                    self._about_to_change(owner, "an element", last)
                    self._content(owner)
                    reached += _elements(owner)
                    continue
                found = self._hop(owner, step, key, last)
                if found is not STOP:
                    reached.append(found)
                elif isinstance(owner, (list, dict, tuple, set)):
                    self._content(owner)
            owners = reached
        if whole and not stored:
            for owner in owners:
                self._content(owner)
                if isinstance(owner, io.IOBase):
                    self._note("a file")
                if (
                    deep
                    and not _is_leaf(owner)
                    and not isinstance(owner, (Members, Optimizer, *_FIXED))
                ):
                    for key in list(_own(owner)):
                        self._hop(owner, "attr", key)

    def _hop(self, owner: Any, step: str, key: Any, stored: bool = False) -> Any:
        """One step from an object: what it leads to, or STOP."""
        self._about_to_change(owner, key, stored)
        if step == "attr":
            if isinstance(owner, Members):
                return self._of_module(owner, key)
            if isinstance(owner, types.ModuleType) and owner.__name__.partition(".")[0] in _FOREIGN:
                value = owner.__dict__.get(key)
                self._note_impure(value)
                return value if isinstance(value, types.ModuleType) else STOP
            if not self._is_read(owner, key) and not stored:
                return STOP
        try:
            value = getattr(owner, key) if step == "attr" else owner[key]
        except Exception:
            if not stored:
                return STOP
            value = _MISSING
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)) and step == "attr":
            if isinstance(value, types.MethodType):
                self._meet(value)
                self._of_class(owner, key)
            return STOP
        self._note_impure(value)
        self._keep(owner, step, key, value)
        return value

    def _of_module(self, owner: Any, name: str) -> Any:
        """An attribute of a module of layers."""
        self.meet_module(owner)
        value, own = _member(owner, name)
        if value is not STOP:
            self._meet(value)
            if not own:
                self._of_class(owner, name)
        return value

    def _is_read(self, owner: Any, name: str) -> bool:
        """Whether an attribute can be read as the code does; that some owners change by that is
        noted."""
        if isinstance(owner, Optimizer):
            self.optimizers[id(owner)] = owner
        if _is_impure(owner) and owner not in self._streams:
            self._note(f"{type(owner).__name__}.{name}")
        return _is_plain_attribute(owner, name)

    def _keep(self, owner: Any, step: str, key: Any, value: Any) -> None:
        """Note what a hop led to, to compare it later."""
        place = id(owner), step, key
        if id(owner) in self._given:
            self._meet(value)
        elif place not in self._hops:
            if id(owner) in self._known:
                self._meet(value)
                self._hops[place] = owner, value, False
            else:
                ref, fixed = _weak(owner), isinstance(value, (*ATOMS, *_FIXED)) or value is _MISSING
                if ref is not None and (fixed or _weak(value) is not None):
                    self._hops[place] = ref, value if fixed else _weak(value), True

    def _note_impure(self, value: Any) -> None:
        if self.impure or not callable(value):
            return
        try:
            impure = value in _IMPURE
        except TypeError:
            impure = False
        if impure or _is_impure(getattr(value, "__self__", None)):
            self._note(getattr(value, "__qualname__", str(value)))

    def _note(self, impure: str) -> None:
        """A replay would leave out a call of this."""
        self.impure = self.impure or impure
        if self._repeats:
            raise Restart(_UNREPEATABLE + impure)

    def _about_to_change(self, owner: Any, key: Any, stored: bool) -> None:
        """Code is about to run that stores to an object, or calls a method of a container: of older
        ones."""
        changes = stored or (isinstance(owner, (list, dict, set)) and key in _CHANGING)
        if self._repeats and changes and id(owner) in self._known:
            raise Restart(f"{_UNREPEATABLE}{type(owner).__name__}.{key}")

    def _meet(self, value: Any) -> None:
        """An object that is older than the call."""
        if isinstance(value, ATOMS):
            return
        self._known[id(value)] = value
        if isinstance(value, types.MethodType):
            self._meet(value.__self__)
            value = value.__func__
        if isinstance(value, types.FunctionType):
            self._functions.setdefault(value.__code__, value)
            for one in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                self._known[id(one)] = one
        wrapped = _own(value).get("__wrapped__")
        if wrapped is not None:  # by a decorator, or compiled by itself
            self._meet(wrapped)
        if isinstance(value, partial):
            self._meet(value.func)
            for one in (*value.args, *value.keywords.values()):
                self._meet(one)

    def meet_module(self, module: Any) -> None:
        """A module is read; what it is now is what it has to be at another call."""
        if module not in self.modules:
            self.modules[module] = module.training
            self._states[id(module)] = self._state_of([module])
            self._known[id(module)] = module
            forward = getattr(type(module), "forward", None)
            if isinstance(forward, types.FunctionType):
                self._functions.setdefault(forward.__code__, forward)

    def _content(self, owner: Any) -> None:
        place = id(owner)
        if (
            place in self._known
            and place not in self._contents
            and place not in self._given
            and isinstance(owner, (list, tuple, dict, set, frozenset, np.ndarray))
        ):
            if isinstance(owner, tuple) and all(isinstance(v, ATOMS) for v in owner):
                return  # never changes
            self._contents[place] = owner, contents(owner)
            for one in _elements(owner):
                self._meet(one)

    # -- afterwards

    def reached(self) -> list[Any]:
        """The tensors that names, containers, modules and optimizers led to."""
        found = [v for _, v, weak in self._hops.values() if not weak]
        for owner, _ in self._contents.values():
            found += _elements(owner)
        for module in self.modules:
            found += [*module._parameters.values(), *module._buffers.values()]
        for optimizer in self.optimizers.values():
            found += [p for group in optimizer.param_groups for p in group["params"]]
        return list(dict.fromkeys(t for t in found if isinstance(t, Tensor)))

    def knows(self, result: Any) -> bool:
        """Whether a result can be given again: what is neither a tensor nor plain is older than the
        call."""
        if isinstance(result, dict):
            return all(map(self.knows, result.values()))
        if isinstance(result, (tuple, list)):
            return all(map(self.knows, result))
        plain = isinstance(result, (*ATOMS, Tensor, *_FIXED, dtype, device, enum.Enum))
        return plain or isinstance(result, SymInt) or id(result) in self._known

    def is_unchanged(self) -> bool:
        """Whether the call itself left everything as it was: else a replay would leave out what it
        did."""
        checks = Checks()
        self.write(checks, False)
        return (
            all(
                m.training is t and self._state_of([m]) == self._states[id(m)]
                for m, t in self.modules.items()
            )
            and checks.function()()
        )

    def write(self, checks: Checks, all_of_it: bool = True) -> None:
        """The conditions under which everything is still as it was before the call.

        Args:
            all_of_it: those of modules and optimizers as well, as they are now.
        """
        for (_, step, key), (owner, value, weak) in self._hops.items():
            if weak:
                owner = owner()
                if not isinstance(value, (*ATOMS, *_FIXED)) and value is not _MISSING:
                    value = value()
                    if value is None:
                        continue
                if owner is None:
                    continue  # made during the call, and gone
            c = checks.const(owner)
            if value is _MISSING:
                checks.space["missing"] = _missing
                checks.add(f"missing({c}, {step!r}, {key!r})")
            else:
                checks.value(f"{c}.{key}" if step == "attr" else f"{c}[{key!r}]", value)
        for owner, content in self._contents.values():
            checks.contents(checks.const(owner), content)
        if not all_of_it:
            return
        ran = [codes[c] for c in self._ran]
        names = (
            None if any(c.watches_all for c in ran) else frozenset().union(*[c.names for c in ran])
        )
        for module in self.modules:
            write_module(checks, module, names)
        for optimizer in self.optimizers.values():
            checks.add(f"{checks.const(OptimizerGuard(optimizer))}()")


_UNREPEATABLE = "the function does something in Python that a replay could not repeat: "
_OURS, _USERS, _METHOD, _EMITS = range(4)
_CHANGING = frozenset(
    (
        "append",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "clear",
        "sort",
        "reverse",
        "add",
        "discard",
        "update",
        "setdefault",
        "appendleft",
        "popleft",
    )
)
_MISSING: Any = object()  # in the place of a value that is not there, where the code stores one


def _missing(owner: Any, step: str, key: Any) -> bool:
    try:
        _ = getattr(owner, key) if step == "attr" else owner[key]
    except (AttributeError, LookupError, ValueError):
        return True
    return False


def _kind_of(frame: Any) -> int:
    """Whose code a frame runs: the user's, a method of ours that is noted, or any other."""
    code, file = frame.f_code, frame.f_code.co_filename
    root = str(frame.f_globals.get("__name__")).partition(".")[0]
    if root in ("llvmlite", "ml_dtypes", "threadpoolctl"):
        return _OURS
    if root == "graphtorch":
        if file.startswith(_STATEFUL):
            return _USERS
        return _METHOD if code.co_name in ("forward", "__call__", "step", "zero_grad") else _OURS
    if str(frame.f_globals.get("__name__")).startswith("namedtuple_"):
        return _OURS
    if code.co_qualname == "Logger.handle" and frame.f_globals.get("__name__") == "logging":
        return _EMITS
    if any(getattr(c, "__code__", None) is code for c in gc.callbacks):
        return _OURS  # it runs whenever memory is swept, in the middle of whatever that is
    library = file.startswith(_LIBRARY) and "site-packages" not in file[len(_LIBRARY[0]) :]
    return _OURS if library or file.startswith((_NUMPY, "<frozen")) else _USERS


_LIBRARY = (os.path.dirname(os.__file__) + os.sep,)
_NUMPY = os.path.dirname(np.__file__) + os.sep


def _weak(owner: Any) -> Any:
    try:
        return weakref.ref(owner)
    except TypeError:
        return None


def _is_leaf(value: Any) -> bool:
    """Whether nothing that is reached from it is a guard."""
    return isinstance(value, (*ATOMS, Tensor, types.FunctionType, types.BuiltinFunctionType))


def _elements(owner: Any) -> list[Any]:
    if isinstance(owner, dict):
        return list(owner.values())
    if isinstance(owner, Members):
        return list(owner._modules.values())
    return list(owner) if isinstance(owner, (list, tuple)) else []


def _member(module: Any, name: str) -> tuple[Any, bool]:
    """An attribute of a module without running code, and whether it is its own: `compile` guards
    those."""
    own = module.__dict__
    if name in own:
        return own[name], True
    for table in (module._parameters, module._buffers, module._modules):
        if name in table:
            return table[name], True
    return getattr(type(module), name) if _is_plain_attribute(module, name) else STOP, False


def _own(owner: Any) -> Any:
    """The dictionary of an object's own attributes."""
    try:
        return object.__getattribute__(owner, "__dict__")
    except (AttributeError, TypeError):
        return {}


def _is_plain_attribute(owner: Any, name: str) -> bool:
    """Whether reading it runs no code of the user's."""
    if isinstance(owner, (types.ModuleType, types.CellType)):
        return True
    if isinstance(owner, types.FunctionType) and name in (
        "__code__",
        "__defaults__",
        "__kwdefaults__",
    ):
        return True
    if isinstance(owner, type):
        return any(name in k.__dict__ for k in owner.__mro__)
    if name in _own(owner):
        return True
    for kind in type(owner).__mro__:
        if name in kind.__dict__:
            found = kind.__dict__[name]
            return not hasattr(found, "__get__") or isinstance(
                found, (types.FunctionType, types.MemberDescriptorType, staticmethod, classmethod)
            )
    return False


class _Noted:
    """An output stream that tells a watch what is written to it by the thread that is watched."""

    def __init__(self, stream: Any, watch: Watch):
        self._stream, self._watch, self._thread = stream, watch, threading.get_ident()

    def write(self, text: Any) -> Any:
        """Write on, and note that."""
        if threading.get_ident() == self._thread:
            self._watch._note("print")
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
