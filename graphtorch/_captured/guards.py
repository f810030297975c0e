"""What Python a recording read, and whether it is still so.

While a function is recorded, every Python function of the user's that runs is noted. The chains of names
that its code loads and stores (``config.scale``, ``self.steps["w"]``, a closure's cell) are followed from
the call on, one *hop* after another, and what each hop found is kept: numbers and strings by value, other
objects by identity, lists, dicts and arrays by their contents. All hops become one generated function, of
about 20 ns a hop. A chain that starts at a local value (the result of a call) is no guard: what it came from
is.

Values are noted before a function's first run. Where they are others after the call, the call itself changed
them, which a replay would leave out.
"""

from __future__ import annotations

import dis
import enum
import functools
import io
import os
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .._deferred.tensor import Tensor
from .._settings import FOLDER
from .._types import device, dtype
from ..nn.modules._members import Members
from ..nn.modules.module import Module
from ..optim.optimizer import Optimizer
from .checks import ATOMS, Checks, contents, identical, same_contents

# Files of ours that keep Python numbers between calls, and are followed as the user's own are.
_STATEFUL = tuple(
    os.path.join(FOLDER, *p)
    for p in (("optim", "lr_scheduler"), ("optim", "swa_utils"), ("amp", "grad_scaler"))
)
_FOREIGN = sys.stdlib_module_names | {"graphtorch", "torch", "numpy"}
_FIXED = (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
_DEPTH = 6  # containers in containers are compared so far

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
_IMPURE_OWNERS = (random.Random, np.random.RandomState, np.random.Generator, io.IOBase)

Chain = tuple[str, str, tuple[tuple[str, Any], ...]]  # kind of root, its name, steps


class _Code:
    """What the code of a function loads and stores."""

    __slots__ = ("inner", "loads", "names", "stores", "watches_all")

    def __init__(self, code: types.CodeType):
        self.inner = {c for c in code.co_consts if isinstance(c, types.CodeType)}
        arguments = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2])
        self.names = _all_names(code)
        self.watches_all = bool({"getattr", "vars", "hasattr", "setattr"} & set(code.co_names))
        loads: dict[tuple[Chain, bool], None] = {}  # and whether what it leads to is used as a whole
        stores: dict[Chain, None] = {}
        aliases: dict[str, set[Chain]] = {}
        for _ in range(3):  # a local name stands for the chains assigned to it; those may start at others
            before = len(loads), sum(map(len, aliases.values()))
            _scan(code, arguments, aliases, loads, stores)
            if before == (len(loads), sum(map(len, aliases.values()))):
                break
        self.loads, self.stores = tuple(loads), tuple(stores)


_codes: dict[types.CodeType, _Code] = {}
_KEEPS = frozenset(("CACHE", "PRECALL", "PUSH_NULL", "RESUME", "COPY", "EXTENDED_ARG", "NOP", "KW_NAMES"))


def _scan(
    code: types.CodeType,
    arguments: set[str],
    aliases: dict[str, set[Chain]],
    loads: dict[tuple[Chain, bool], None],
    stores: dict[Chain, None],
) -> None:
    now: list[Chain] = []  # chains that the value on top may have come from
    last: list[Chain] = []  # those of the value below
    constant: Any = None
    has_constant = False

    def end(whole: bool) -> None:
        for chain in now:
            loads[chain, whole] = None

    for ins in dis.get_instructions(code):
        name = ins.opname
        if name in _KEEPS:
            continue
        if has_constant:
            has_constant = False
            if name in ("BINARY_SUBSCR", "STORE_SUBSCR") or (name == "BINARY_OP" and ins.argrepr == "[]"):
                if name == "STORE_SUBSCR":
                    for kind, root, steps in now:
                        stores[kind, root, (*steps, ("item", constant))] = None
                    now = []
                else:
                    now = [(kind, root, (*steps, ("item", constant))) for kind, root, steps in now]
                continue
            end(True)
            last, now = now, []
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            end(True)
            last, now = now, [("global", ins.argval, ())]
        elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE"):
            end(True)
            last, now = now, [("cell", ins.argval, ())]
        elif name.startswith("LOAD_FAST"):
            names = ins.argval if isinstance(ins.argval, tuple) else (ins.argval,)
            for n in names:  # some versions load two at once
                end(True)
                roots: list[Chain] = [("local", n, ())] if n in arguments else []
                last, now = now, [*roots, *aliases.get(n, ())]
        elif name in ("LOAD_ATTR", "LOAD_METHOD") and now:
            now = [(kind, root, (*steps, ("attr", ins.argval))) for kind, root, steps in now]
        elif name == "LOAD_CONST" and now and isinstance(ins.argval, (str, int)):
            constant, has_constant = ins.argval, True
        elif name in ("GET_ITER", "UNPACK_SEQUENCE") and now:
            end(True)
            now = [(kind, root, (*steps, ("each", None))) for kind, root, steps in now if len(steps) < _DEPTH]
        elif name == "FOR_ITER":
            pass  # what follows stores an element
        elif name == "BINARY_SUBSCR" or (name == "BINARY_OP" and ins.argrepr == "[]"):
            end(True)
            now = [(k, r, (*steps, ("each", None))) for k, r, steps in last if len(steps) < _DEPTH]
            last = []
        elif name == "STORE_FAST":
            end(True)
            if now:
                aliases.setdefault(ins.argval, set()).update(c for c in now if len(c[2]) < _DEPTH)
            last = []
        elif name in ("STORE_ATTR", "DELETE_ATTR"):
            for kind, root, steps in now:
                stores[kind, root, (*steps, ("attr", ins.argval))] = None
            last, now = [], []
        elif name in ("STORE_GLOBAL", "STORE_DEREF"):
            end(True)
            stores["global" if name == "STORE_GLOBAL" else "cell", ins.argval, ()] = None
            last, now = [], []
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            for chain in last:
                stores[(*chain[:2], (*chain[2], ("each", None)))] = None
            end(True)
            last, now = [], []
        else:
            end(True)
            last, now = now, []
    end(True)


class Watch:
    """Notes what Python a call reads, from `start` to `stop`.

    Attributes:
        impure: a call whose effect a replay would leave out, or "".
        modules: modules whose code ran or whose attributes were read, with their ``training`` before.
    """

    def __init__(self, function: Any, given: Iterable[Any], state_of: Callable[[Sequence[Any]], Any]):
        """Args: state_of: what of modules a recording depends on beside their tensors, to be compared."""
        self.impure = ""
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
        self._given: set[int] = set()  # containers among the arguments: the signature has what is in them
        self._take(given)

    def _take(self, given: Iterable[Any]) -> None:
        for one in given:
            self._meet(one)
            if isinstance(one, (list, tuple, dict)):
                self._given.add(id(one))
                self._take(one.values() if isinstance(one, dict) else one)

    def start(self) -> None:
        """Follow the calls of this thread. A trace function sees calls alone, and costs a fraction of a
        profile hook; a debugger keeps its own."""
        self._traced = sys.gettrace() is None
        if self._traced:
            sys.settrace(self._called)
        else:
            self._before = sys.getprofile()
            sys.setprofile(self._called)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Noted(s, self) for s in self._streams)

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
            self.impure = self.impure or "a logger"
        else:
            owner = frame.f_locals.get("self")
            if isinstance(owner, Members):
                self._module(owner)
            elif isinstance(owner, Optimizer):
                self.optimizers[id(owner)] = owner

    def _enter(self, frame: Any, code: types.CodeType) -> None:
        found = _codes.get(code)
        if found is None:
            found = _codes[code] = _Code(code)
        self._ran.add(code)
        values = frame.f_locals
        function = self._functions.get(code)
        if (
            function is None
            and code.co_freevars
            and not any(code in _codes[c].inner for c in self._ran if c in _codes)
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
        import gc

        for one in gc.get_referrers(code):
            if isinstance(one, types.FunctionType) and one.__code__ is code:
                self._functions[code] = one
                return one
        return None

    # -- chains

    def _follow(self, chain: Chain, whole: bool, roots: Any, deep: bool, stored: bool = False) -> None:
        kind, name, steps = chain
        values, function = roots[1], roots[2]
        owners: list[Any]
        cells = (
            {}
            if function is None
            else dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        )
        if kind == "local" or (kind == "cell" and name not in cells):
            if name not in values:
                return
            owners = [values[name]]
        else:
            owner, key = (roots[0], name) if kind == "global" else (cells[name], "cell_contents")
            if kind == "global" and name not in owner and not stored:
                return  # a builtin
            self._known[id(owner)] = owner
            found = self._hop(owner, "item" if kind == "global" else "attr", key, stored and not steps)
            owners = [] if found is _STOP else [found]
        for i, (step, key) in enumerate(steps):
            last = stored and i == len(steps) - 1
            reached: list[Any] = []
            for owner in owners:
                if _is_leaf(owner):
                    continue
                if step == "each":
                    self._content(owner)
                    reached += _elements(owner)
                    continue
                found = self._hop(owner, step, key, last)
                if found is not _STOP:
                    reached.append(found)
                elif isinstance(owner, (list, dict, tuple, set)):
                    self._content(owner)
            owners = reached
        if whole and not stored:
            for owner in owners:
                self._content(owner)
                if isinstance(owner, io.IOBase):
                    self.impure = self.impure or "a file"
                if deep and not _is_leaf(owner) and not isinstance(owner, (Members, Optimizer, *_FIXED)):
                    for key in list(_own(owner)):
                        self._hop(owner, "attr", key)

    def _hop(self, owner: Any, step: str, key: Any, stored: bool = False) -> Any:
        """One step from an object: what it leads to, or _STOP."""
        if step == "attr":
            if isinstance(owner, Members):
                self._module(owner)
                value, own = _member(owner, key)
                if value is not _STOP:
                    self._meet(value)
                    if not own:
                        self._of_class(owner, key)
                return value
            if isinstance(owner, Optimizer):
                self.optimizers[id(owner)] = owner
            if isinstance(owner, types.ModuleType) and owner.__name__.partition(".")[0] in _FOREIGN:
                value = owner.__dict__.get(key)
                self._note_impure(value)
                return value if isinstance(value, types.ModuleType) else _STOP
            if isinstance(owner, _IMPURE_OWNERS) and owner not in self._streams:
                self.impure = self.impure or f"{type(owner).__name__}.{key}"
            if not _is_plain_attribute(owner, key) and not stored:
                return _STOP
        try:
            value = getattr(owner, key) if step == "attr" else owner[key]
        except Exception:
            if not stored:
                return _STOP
            value = _MISSING
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)) and step == "attr":
            if isinstance(value, types.MethodType):
                self._meet(value)
                self._of_class(owner, key)
            return _STOP
        self._note_impure(value)
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
        return value

    def _note_impure(self, value: Any) -> None:
        if self.impure or not callable(value):
            return
        try:
            impure = value in _IMPURE
        except TypeError:
            impure = False
        if impure or isinstance(getattr(value, "__self__", None), _IMPURE_OWNERS):
            self.impure = getattr(value, "__qualname__", str(value))

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

    def _module(self, module: Any) -> None:
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
        """Whether a result can be given again: what is neither a tensor nor plain is older than the call."""
        if isinstance(result, dict):
            return all(map(self.knows, result.values()))
        if isinstance(result, (tuple, list)):
            return all(map(self.knows, result))
        plain = isinstance(result, (*ATOMS, Tensor, *_FIXED, dtype, device, enum.Enum))
        return plain or id(result) in self._known

    def is_unchanged(self) -> bool:
        """Whether the call itself left everything as it was: else a replay would leave out what it did."""
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
        codes = [_codes[c] for c in self._ran]
        names = None if any(c.watches_all for c in codes) else frozenset().union(*[c.names for c in codes])
        for module in self.modules:
            _write_module(checks, module, names)
        for optimizer in self.optimizers.values():
            checks.add(f"{checks.const(_OptimizerGuard(optimizer))}()")


def _write_module(checks: Checks, module: Any, names: frozenset[str] | None) -> None:
    """A module has the members and hooks it has now, and those attributes that the code that ran may have
    read: `names` (None: any) or what code of ours reads. `Members` counts what is set; this sees what is
    written straight into ``__dict__`` as well."""
    if names is not None:
        names |= _names_in(type(module))  # type: ignore[arg-type]
    own = module.__dict__
    name = checks.const(own)
    checks.add(f"len({name}) == {len(own)}")
    ours = type(module).__module__.startswith("graphtorch.")  # whose code is not followed
    for key, value in own.items():
        text = f"{name}[{key!r}]"
        if key in _MEMBERS:
            _write_members(checks, text, value)
        elif key in _HOOKS:
            checks.identical(text, list(value.values()))
        elif key not in _UNCALLED and (names is None or key in names):
            checks.value(text, value)
            flat = isinstance(value, tuple) and all(isinstance(v, ATOMS) for v in value)  # it never changes
            if ours and not flat and isinstance(value, (list, dict, set, tuple)):
                checks.contents(text, contents(value))


@functools.cache
def _names_in(kind: type) -> frozenset[str]:
    """The names that methods of a class of modules load, where its code is ours and so is not followed."""
    found: set[str] = set()
    for one in kind.__mro__:
        if one is Module:
            break
        for name, method in vars(one).items():
            if isinstance(method, types.FunctionType) and name not in _NOT_CALLED:
                found.update(_all_names(method.__code__))
    return frozenset(found)


def _all_names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(*[_all_names(c) for c in code.co_consts if isinstance(c, types.CodeType)])


_NOT_CALLED = frozenset(("__init__", "__repr__", "extra_repr", "reset_parameters", "__setstate__"))


def _write_members(checks: Checks, text: str, table: dict[str, Any]) -> None:
    if not table:
        checks.add(f"not {text}")
        return
    if all(type(v).__eq__ is object.__eq__ for v in table.values()):  # modules: their order matters
        checks.add(f"[*{text}.values()] == {checks.const(list(table.values()))}")
        return
    if len(table) > _FEW:
        checks.identical(text, list(table.values()))
        return
    checks.add(f"len(t := {text}) == {len(table)}")
    for key, value in table.items():
        checks.add(f"t[{key!r}] is {checks.const(value)}")


_MEMBERS = frozenset(("_parameters", "_buffers", "_modules"))
_HOOKS = frozenset(("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"))
# What calls do not read, or only where one of the hooks is there.
_UNCALLED = frozenset((
    "_non_persistent_buffers_set", "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_is_full_backward_hook", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
))
_FEW = 6  # members that are compared one by one, in the text
_OURS, _USERS, _METHOD, _EMITS = range(4)
_STOP: Any = object()
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
    if root in ("llvmlite", "ml_dtypes"):
        return _OURS
    if root == "graphtorch":
        if file.startswith(_STATEFUL):
            return _USERS
        return _METHOD if code.co_name in ("forward", "__call__", "step", "zero_grad") else _OURS
    if str(frame.f_globals.get("__name__")).startswith("namedtuple_"):
        return _OURS
    if code.co_qualname == "Logger.handle" and frame.f_globals.get("__name__") == "logging":
        return _EMITS
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
    """An attribute of a module without running code, and whether it is its own: `compile` guards those."""
    own = module.__dict__
    if name in own:
        return own[name], True
    for table in (module._parameters, module._buffers, module._modules):
        if name in table:
            return table[name], True
    return getattr(type(module), name) if _is_plain_attribute(module, name) else _STOP, False


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
    if isinstance(owner, types.FunctionType) and name in ("__code__", "__defaults__", "__kwdefaults__"):
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
            self._watch.impure = self._watch.impure or "print"
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _OptimizerGuard:
    """Whether an optimizer has the groups, options and state it had; some numbers are read anew."""

    __slots__ = ("groups", "hooks", "options", "owner", "params", "states", "values")

    def __init__(self, owner: Optimizer):
        self.owner = owner
        self.groups = list(owner.param_groups)
        self.options = [_options(owner, g) for g in self.groups]
        self.params = [list(g["params"]) for g in self.groups]
        self.states = list(owner.state.values())
        self.values = [list(s.values()) if isinstance(s, dict) else [] for s in self.states]
        self.hooks = _hooks_of(owner)

    def __call__(self) -> bool:
        owner = self.owner
        if not identical(owner.param_groups, self.groups) or not identical(
            owner.state.values(), self.states
        ):
            return False
        for group, options, params in zip(self.groups, self.options, self.params):  # noqa: B905
            if not identical(group["params"], params):
                return False
            for name, before, kept, sign in options:
                now = group.get(name, _STOP)
                if now is before and kept is before:
                    continue
                if not ((sign and _sign(now) == _sign(before)) or same_contents(now, kept)):
                    return False
        for state, values in zip(self.states, self.values):  # noqa: B905
            if isinstance(state, dict):
                if len(state) != len(values):
                    return False
                for now, before in zip(state.values(), values):  # noqa: B905
                    if now is not before and (isinstance(before, Tensor) or isinstance(now, Tensor)):
                        return False
        return self.hooks == _hooks_of(owner)


def _hooks_of(owner: Optimizer) -> Any:
    return tuple(owner._optimizer_step_pre_hooks), tuple(owner._optimizer_step_post_hooks)


# Numbers that our optimizers read at each replay (`Numbers`): a recording depends on their signs alone.
_READ_ANEW = {"lr", "weight_decay", "momentum", "dampening", "betas", "eps", "alpha", "rho"}
_READ_ANEW |= {"beta2_decay", "d", "etas", "step_sizes", "lr_decay", "momentum_decay", "lambd", "t0"}
_UNREAD = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


def _options(owner: Optimizer, group: dict[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    """What of a group a recording depends on: name, value, a copy of a container, whether by sign alone."""
    if type(owner).__name__ in ("SparseAdam", "LBFGS") or not type(owner).__module__.startswith(
        "graphtorch."
    ):
        return [(k, v, contents(v), False) for k, v in group.items() if k != "params"]
    anew = _READ_ANEW
    if type(owner).__name__ in ("Muon", "Adafactor"):
        anew = {"lr", "weight_decay"}
    return [
        (k, v, v if isinstance(v, tuple) and k in anew else contents(v), k in anew)
        for k, v in group.items()
        if k not in _UNREAD
    ]


def _sign(value: Any) -> Any:
    if isinstance(value, float):
        return "float", (value > 0) - (value < 0)
    return [_sign(v) for v in value] if isinstance(value, (list, tuple)) else value
