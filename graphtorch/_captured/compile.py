"""`compile`: a function recorded once and replayed with next to no Python."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from graphtorch.ir.graph import Graph
from graphtorch.ir.ops.narrow import PRECISIONS
from graphtorch.ir.ops.require import RAISED

from .._deferred.programs import Serving
from .._deferred.storage import MetaLeaf, recorder
from .._deferred.tensor import Tensor
from .._ops.autocast import state as autocast_state
from .._settings import deterministic, tf32
from .._types import default_dtype
from ..autograd.grad_mode import modes
from ..nn.modules.module import Module
from ..utils.hooks import changes
from .capture import Capture
from .direct import Direct, direct
from .entry import OTHER, Entry, Failed, Replay
from .guards import Watch
from .observed import are_observed
from .outputs import Given
from .recording import Made, record
from .segments import LEAVES, Known, Restart, Segment, Unobserved, is_refuted
from .signature import modules_of, shared_by, signature, state_of
from .sizes import Assumed, Axes, Call, SizesOf
from .status import BACKENDS, MODES, ConstraintViolationError, InvalidBackend, compiled, status
from .tracing import argument_names, stand_ins, symbolic
from .tuning import seconds_of

SIGNATURES_BOUND = 128  # kinds of call that a function keeps recordings of; the oldest goes first
ENTRIES_BOUND = 8  # recordings of one kind of call, for different states
VAIN = 3  # recordings in vain after which a kind of call runs line by line


class Kind:
    """The recordings of calls of one kind, the latest first, and what makes such calls."""

    __slots__ = ("direct", "entries", "ran")

    def __init__(self, entries: list[Entry], ran: bool):
        self.entries = entries
        self.ran = ran  # whether some recording was replayed
        self.direct: Any = _UNKNOWN  # what makes such calls; None where there is no such function


_UNKNOWN = object()


class Compiled:
    """A function that is recorded at its first call with given types, and replayed from then on."""

    def __init__(
        self,
        function: Callable[..., Any],
        dynamic: Any = None,
        fullgraph: bool = False,
        precision: str | None = None,
        tune: float = 0.0,
    ):
        self._function = function
        self._fullgraph = fullgraph
        self._precision = precision
        self._tune = tune
        self._sizes = SizesOf(function, dynamic)
        self._dynamic = dynamic
        self._entries: dict[Any, Kind] = {}
        self._segments: WeakValueDictionary[Any, Segment] = WeakValueDictionary()
        self._direct: Direct | None = None  # that of the kind that served last
        # how often recording a kind of call was in vain, and why
        self._vain: dict[Any, tuple[int, str]] = {}
        # functions whose backward pass is to run before
        self._awaited: dict[Any, frozenset[type]] = {}
        self._modules = modules_of(function)
        self._look_at_modules()
        self.recorded = 0  # graphs recorded so far
        compiled.add(self)
        functools.update_wrapper(
            self, function if not isinstance(function, Module) else function.forward
        )
        self._torchdynamo_orig_callable = function

    def __reduce__(self) -> Any:
        """A copy is made of the function, and records anew; one that stands in a module is known by
        name."""
        name, place = (
            getattr(self, "__qualname__", ""),
            sys.modules.get(getattr(self, "__module__", "")),
        )
        if (
            name
            and functools.reduce(lambda o, n: getattr(o, n, None), name.split("."), place) is self
        ):
            return name
        given = (self._function, self._dynamic, self._fullgraph, self._precision, self._tune)
        return type(self), given

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(args, kwargs)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call with these arguments."""
        direct = self._direct
        if direct is not None:
            try:
                result = direct(args, kwargs)
            except Failed as failure:
                return self._plainly(args, kwargs, failure.__cause__)
            if result is not OTHER:
                return result
        if recorder.capture is not None:  # called inside another captured function: part of it
            return self._function(*args, **kwargs)
        if MetaLeaf.used and any(
            isinstance(x, Tensor) and x.is_meta for x in (*args, *kwargs.values())
        ):
            return self._function(*args, **kwargs)  # there is nothing to compute
        if status.stance != "default" and not self._may_serve():
            return self._function(*args, **kwargs)
        if self._seen != changes.count:
            self._check_modules()
            if self._direct is not None:
                return self.call(args, kwargs)
        return self._look_up(args, kwargs)

    def _look_up(self, args: Any, kwargs: Any) -> Any:
        """The result of a call that is of another kind than the last, or in another state."""
        tensors: list[Tensor] = []
        key = self._key(args, kwargs, tensors)
        result = self._find(key, tensors, args, kwargs, {})
        if result is not OTHER:
            return result
        axes = self._sizes.axes(args, kwargs) if self._sizes.active else {}
        if axes:  # else these sizes have recordings of their own, which are the faster ones
            key = self._key(args, kwargs, [], axes)
            result = self._find(key, tensors, args, kwargs, axes)
            if result is not OTHER:
                return result
        if modes.watchers:
            return self._line_by_line(args, kwargs)
        if (key in self._vain and self._vain[key][0] >= VAIN) or not self._is_due(key):
            return self._line_by_line(args, kwargs)
        if status.stance in ("eager_on_recompile", "fail_on_recompile"):
            return self._unrecorded(args, kwargs)
        return self._record(key, tensors, args, kwargs, axes)

    def _find(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any, axes: Axes) -> Any:
        """The result of a recording under a key; OTHER where none fits."""
        kind = self._entries.get(key)
        if kind is None:
            return OTHER
        result = self._serve(kind, tensors, args, kwargs)
        if result is not OTHER:
            if kind.direct is _UNKNOWN:
                only = kind.entries[0] if len(kind.entries) == 1 else None
                serve = functools.partial(self._serve, kind)
                kind.direct = direct(self, args, kwargs, axes, only, serve)
            self._direct = kind.direct
        return result

    def _line_by_line(self, args: Any, kwargs: Any) -> Any:
        status.depth += 1
        try:
            return self._function(*args, **kwargs)
        finally:
            status.depth -= 1

    def _is_due(self, key: Any) -> bool:
        """Whether all has run that has to be seen before a kind of call is recorded."""
        if key in self._awaited and are_observed(self._awaited[key]):
            del self._awaited[key]
        return key not in self._awaited

    def _may_serve(self) -> bool:
        """Whether the stance of this thread lets calls be replayed."""
        return status.stance != "force_eager"

    def _unrecorded(self, args: Any, kwargs: Any) -> Any:
        """A call that no recording serves, where none is to be made."""
        if status.stance == "eager_on_recompile":
            return self._function(*args, **kwargs)
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        raise RuntimeError(
            "Detected recompile when torch.compile stance is 'fail_on_recompile'. filename: "
            f"'{getattr(code, 'co_filename', '')}', function name: "
            f"'{getattr(self, '__name__', '')}', line number: {getattr(code, 'co_firstlineno', 0)}"
        )

    def reset(self) -> None:
        """Forget what was recorded."""
        self._entries.clear()
        self._vain.clear()
        self._awaited.clear()
        self._direct = None
        self._sizes = SizesOf(self._function, self._dynamic)

    def _serve(self, kind: Kind, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """The result of the first recording that fits; OTHER where none does."""
        known: Known = {}
        for entry in kind.entries:
            if known and is_refuted(entry.replay.steps, known):
                continue
            state = entry.state(tensors)
            if state is None:
                continue
            try:
                result = entry.replay.run(tensors, state, known)
            except Failed as failure:
                return self._plainly(args, kwargs, failure.__cause__)
            if result is not OTHER:
                kind.ran = True
                return result
        return OTHER

    def _plainly(self, args: Any, kwargs: Any, error: BaseException | None) -> Any:
        """What the plain call gives where a program failed, and what it leaves behind: what it
        wrote before.

        Raises:
            The program's `error`, which names the line, in the place of one of its type.
        """
        try:
            return self._line_by_line(args, kwargs)
        except RAISED as own:
            if error is None or type(own) is not type(error):
                raise
        raise error

    def _key(self, args: Any, kwargs: Any, tensors: list[Tensor], axes: Axes | None = None) -> Any:
        return (
            (tuple, *[signature(a, tensors, axes) for a in args]),
            signature(kwargs, tensors, axes) if kwargs else None,
            modes.grad,
            modes.inference,
            modes.anomaly,
            modes.watchers,
            autocast_state.target,
            autocast_state.on_gpus,
            deterministic(),
            tf32(),
            _default_dtypes(),
            self._training,
            shared_by(tensors) if len(tensors) > 1 else None,
        )

    def _check_modules(self) -> None:
        """Forget the recordings if a module got other members, attributes or hooks since."""
        state = state_of(self._modules)
        if state != self._state:
            self._entries.clear()
            self._direct = None
            self._modules = modules_of(self._function)
        self._look_at_modules()

    def _look_at_modules(self) -> None:
        """Note what recordings made now depend on; valid until something is assigned to some
        module."""
        self._state = state_of(self._modules)
        self._training = tuple([m.training for m in self._modules])
        self._seen = changes.count

    def _record(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any, axes: Axes) -> Any:
        """The result of a call that no recording serves; it is recorded, if that can be.

        With symbols for sizes a recording may fail where one for these sizes would not: then fewer
        are symbols from then on.
        """
        call = Call(argument_names(self._function, args, kwargs), args, kwargs, tensors)
        if self._sizes.meet(call):
            return self(*args, **kwargs)
        if not axes:
            return self._attempt(key, call, {})
        try:
            return self._attempt(key, call, axes)
        except ConstraintViolationError:
            raise
        except Unobserved as unobserved:
            self._await(key, unobserved.functions)
            return self._line_by_line(args, kwargs)
        except (Exception, Restart) as error:
            before, reason = self._sizes.narrow(), str(error)
        try:
            result = self(*args, **kwargs)
        except BaseException:
            self._sizes.widen(before)
            raise
        if self._sizes.are_named:
            warnings.warn(
                f"compile(): {(reason or 'it failed').splitlines()[0]}. The function is recorded "
                "for each size instead, and sizes that change are found by comparing the "
                "recordings",
                stacklevel=4 if isinstance(self._function, Module) else 3,
            )
        return result

    def _attempt(self, key: Any, call: Call, axes: Axes) -> Any:
        """The result of a call, recorded with symbols for some sizes."""
        watch = Watch(self._function, (*call.args, *call.kwargs.values()), state_of, bool(axes))
        before = {m: m.training for m in self._modules}
        capture = Capture(False, self._fullgraph)
        capture.watching, capture.meets = watch.following, watch.meet_module
        stands, judge, symbols = self._stands(capture, call, axes)
        run = self._watched(key, call, axes, capture, watch, stands)
        made = record(
            capture,
            run,
            Given(call.tensors, stands),
            self._serving,
            self._segments,
            judge if stands else None,
            symbols,
        )
        if capture.off:
            self._note_vain(key, watch, capture)
            return made
        if not watch.unrepeatable and (watch.impure or not watch.is_unchanged()):
            # what its gradient does in Python has happened for this call; later ones are not to
            # leave it out
            watch.unrepeatable = True
            watch.impure = watch.impure or "a backward pass that changes what it reads"
        if watch.unrepeatable:
            self._note_vain(key, watch, capture)
        elif stands:
            self._sizes.note(judge, symbols)
            # as later calls of these sizes will have
            axes = self._sizes.axes(call.args, call.kwargs)
            key = self._key(call.args, call.kwargs, [], axes)
        # a program may update in place what nobody holds
        capture.leaves.clear()
        try:
            result = _first(made.replay, call.tensors)
        except Failed as failure:
            return self._plainly(call.args, call.kwargs, failure.__cause__)
        if not watch.unrepeatable:
            self.recorded += 1
            self._keep(key, made, watch, before, call, axes)
        return result

    @property
    def _serving(self) -> Serving:
        """Which sizes a program may serve, and how exactly. What is compiled anew in a loop is one
        function."""
        dynamic = self._dynamic if isinstance(self._dynamic, bool) else None
        function = self._function
        whose = getattr(function, "__self__", None) or getattr(function, "__code__", function)
        return Serving(dynamic, id(whose), self._precision, self._tune)

    def _watched(
        self,
        key: Any,
        call: Call,
        axes: Axes,
        capture: Capture,
        watch: Watch,
        stands: Mapping[int, Tensor],
    ) -> Callable[[], Any]:
        """What makes the call, watches its Python, and ends the capture if a replay cannot repeat
        it."""
        given = self._given(capture, call, stands)

        def run() -> Any:
            capture.root = run.__code__
            status.depth += 1
            try:
                with watch.following():
                    result = self._function(*given[0], **given[1])
            finally:
                status.depth -= 1
            if capture.off:
                return result
            known = watch.knows(result)
            watch.unrepeatable = (
                not known
                or bool(watch.impure)
                or not watch.is_unchanged()
                or self._key(call.args, call.kwargs, [], axes) != key
            )
            if watch.unrepeatable and not capture.call_off(True) and not known:
                raise RuntimeError("the function returns objects of its own making")
            return result

        return run

    def _await(self, key: Any, functions: frozenset[type]) -> None:
        """Calls of this kind run line by line until the backward passes of `functions` have run."""
        if len(self._awaited) >= SIGNATURES_BOUND:
            self._awaited.pop(next(iter(self._awaited)))
        self._awaited[key] = functions

    def _note_vain(self, key: Any, watch: Watch, capture: Capture) -> None:
        """Recording a call of this kind was in vain: after some more nobody tries again."""
        if capture.awaited:
            self._await(key, capture.awaited)
            return
        count = self._vain.pop(key, (0, ""))[0] + (
            VAIN if watch.impure or "Python" in capture.why else 1
        )
        if len(self._vain) >= SIGNATURES_BOUND:
            self._vain.pop(next(iter(self._vain)))
        self._vain[key] = count, f"calls {watch.impure}" if watch.impure else capture.why

    def _stands(
        self, capture: Capture, call: Call, axes: Axes
    ) -> tuple[dict[int, Tensor], Assumed, list[tuple[str, int, int]]]:
        """What stands for arguments with symbols for sizes, by number; who decides how those
        compare; and where they stand."""
        names = list(call.names_of_tensors())
        stands: dict[int, Tensor] = {}
        sizes: dict[str, Any] = {}
        symbols = []
        for number, tensor in enumerate(call.tensors):
            dims = axes.get(id(tensor))
            if dims:
                shape = symbolic(tensor, dims, names[number])
                stands[number] = capture.stand_in(tensor, shape, names[number])
                sizes.update((dim.name, tensor._type.shape[axis]) for axis, dim in dims.items())
                symbols += [(dim.name, number, axis) for axis, dim in dims.items()]
        return stands, Assumed(sizes), symbols

    def _given(
        self, capture: Capture, call: Call, stands: Mapping[int, Tensor]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments to record with: themselves, or what stands for those whose sizes are
        symbols."""
        numbers = itertools.count()

        def stand_in(name: str, tensor: Tensor, _: Any) -> Tensor:
            number = next(numbers)
            if number not in stands:
                capture.give(tensor, number, name)
            return stands.get(number, tensor)

        return stand_ins(call.names, call.args, call.kwargs, {}, stand_in)

    def _keep(
        self, key: Any, made: Made, watch: Watch, before: dict[Any, bool], call: Call, axes: Axes
    ) -> None:
        """Remember a recording for later calls."""
        new = {m: training for m, training in watch.modules.items() if m not in before}
        before.update(new)
        self._modules = [*self._modules, *new]
        self._look_at_modules()  # the call itself may have set some
        members = (
            t for m in self._modules for t in (*m._parameters.values(), *m._buffers.values())
        )
        guards = made.guards.with_tensors(call.tensors, watch.reached())
        bound = tuple(dict.fromkeys((*guards.bound, *[t for t in members if t is not None])))
        entry = Entry.of(made.replay, replace(guards, bound=bound), watch)
        if new:
            self._training, after = tuple(before.values()), self._training
            key = self._key(call.args, call.kwargs, [], axes)
            self._training = after
        old = self._entries.pop(key, None)
        kept = [] if old is None else [e for e in old.entries if e.alive()]
        self._direct = None
        if made.replay.steps and sum(bool(e.replay.steps) for e in kept) >= LEAVES:
            self._give_up(key)
            return
        ran = old is not None and old.ran
        if len(kept) >= ENTRIES_BOUND and not ran:
            self._vain[key] = VAIN, "what it reads in Python is another at each call"
            return
        if len(self._entries) >= SIGNATURES_BOUND:
            self._entries.pop(next(iter(self._entries)))
        self._entries[key] = Kind([entry, *kept][:ENTRIES_BOUND], ran)

    def _give_up(self, key: Any) -> None:
        """From now on calls of a kind run line by line: values that Python reads lead to ever new
        paths."""
        self._vain[key] = VAIN, f"values that it reads in Python led to more than {LEAVES} paths"
        warnings.warn(
            f"compile(): {getattr(self, '__name__', 'the function')}() took more than {LEAVES} "
            "paths, by values of tensors that it reads in Python. It runs line by line from now "
            "on; torch.where, torch.cond and tensor arithmetic in the place of .item() keep it "
            "compiled",
            stacklevel=5,
        )

    def explain(self) -> str:
        """What was compiled: for each recorded graph its kernels, memory, FLOPs and bytes."""
        entries = [e for kind in self._entries.values() for e in kind.entries]
        texts = [e.replay.explain() for e in entries]
        texts += [f"runs line by line: {why}" for _, why in self._vain.values()]
        texts += [f"runs line by line for now: {Unobserved(f)}" for f in self._awaited.values()]
        return "\n".join(dict.fromkeys(texts)) or "nothing recorded yet: call the function once"

    @property
    def graphs(self) -> list[Graph]:
        """The recorded graphs, as recorded."""
        return [e.replay.whole for kind in self._entries.values() for e in kind.entries]


class OptimizedModule(Module):
    """A module whose `forward` is compiled; parameters, buffers and state_dict are those of the
    module it wraps."""

    def __init__(
        self,
        module: Module,
        dynamic: Any = None,
        fullgraph: bool = False,
        precision: str | None = None,
        tune: float = 0.0,
    ):
        super().__init__()
        del self.__dict__["training"]  # that of `module`
        self._orig_mod = module
        compiled = Compiled(module, dynamic, fullgraph, precision, tune)
        object.__setattr__(self, "_compiled", compiled)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (
            self._forward_pre_hooks
            or self._forward_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
        ):
            return super().__call__(*args, **kwargs)
        return self._compiled.call(args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_orig_mod":
                raise
            return getattr(super().__getattr__("_orig_mod"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What is set is set on the module that this one wraps."""
        if name == "_orig_mod":
            super().__setattr__(name, value)
        elif name in self.__dict__ or (hasattr(type(self), name) and name != "training"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        (super().__delattr__ if name in self.__dict__ else self._orig_mod.__delattr__)(name)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """Whether the module that this one wraps is in training mode."""
        return self._orig_mod.training  # type: ignore[no-any-return]

    def explain(self) -> str:
        """What was compiled; see `Compiled.explain`."""
        return self._compiled.explain()

    @property
    def graphs(self) -> list[Graph]:
        """The recorded graphs."""
        return self._compiled.graphs

    @property
    def recorded(self) -> int:
        """Graphs recorded so far."""
        return self._compiled.recorded


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: Any = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
    precision: str | None = None,
    tune: bool | float = False,
) -> Any:
    """A function or module that records one call and replays it with next to no Python.

    A compiled call gives what the plain call gives, or it is not replayed. A recording serves later
    calls for which what it depends on is as it was: dtypes, shapes and flags of tensors, other
    arguments, and what the function read in Python; another call records anew. Parameters, buffers,
    gradients and optimizer state that the function touches are inputs and outputs of the graph
    without being named. Values that Python asks for lead to paths, each with a recording; calls
    that use them otherwise, or change something in Python, run line by line.

    Args:
        model: a function or `Module`; None makes a decorator. Of a class, its instances' calls are
            compiled.
        fullgraph: whether a value that is needed in Python is an error.
        dynamic: None: sizes that change from call to call become symbols, and one recording for
            each branch that Python takes by them serves all. True: all sizes are symbols from the
            first call on; False: none, and each has a program of its own. Or for an argument (by
            name or position) its axes that may vary, such as ``{"x": {0: Dim("batch", max=64)}}``.
        backend: a name of PyTorch's: all of them mean this compiler. A function is not called,
            which warns.
        mode, options: checked as PyTorch's, of which they choose between schedules; they change
            nothing here.
        disable: return `model` as it is.
        precision: of products (`linear`, `@`) of f32 with matrices that are no arguments, such as
            the weights of a `Linear`, in inference. None: f32. ``"int8"``: by whole numbers of 8
            bits, with a scale for each output of the weights, and one for each row of the input,
            taken at each call; a row with an infinity or nan gives nan. ``"bf16"``: by numbers
            rounded to bfloat16, summed in f32.
        name, recompile_limit, isolate_recompiles, shapes_spec: accepted as PyTorch's.
        tune: measure a few schedules of each matrix product and convolution when a program is made,
            and keep the fastest: for at most so many seconds a program, or 30 if True. What was
            measured is kept in the cache. For CPUs, and sizes that are known.

    Raises:
        AssertionError: `model` cannot be called.
        TypeError: `dynamic` is none of these; `tune` is neither a bool nor a number.
        ValueError: there is no such `precision`; `tune` is a number of seconds that is not positive
            and finite.
        NotImplementedError: at the first call, where `tune` is asked for on a GPU.
        InvalidBackend: (a RuntimeError) there is no backend of this name.
        RuntimeError: no such mode, or both `mode` and `options`; with `fullgraph`, at the first
            call, where the function needs a value in Python; with `precision`, where a call needs
            a gradient.
    """
    if model is None:
        return functools.partial(
            compile,
            fullgraph=fullgraph,
            dynamic=dynamic,
            backend=backend,
            mode=mode,
            options=options,
            disable=disable,
            precision=precision,
            tune=tune,
        )
    seconds = seconds_of(tune, "compile()")
    _check_arguments(model, backend, mode, options)
    check_precision("compile()", precision)
    if disable:
        return model
    _check_dynamic(dynamic)
    if inspect.isclass(model):
        call = Compiled(model.__call__, dynamic, fullgraph, precision, seconds)
        setattr(model, "__call__", call)  # noqa: B010
        return model
    kind = OptimizedModule if isinstance(model, Module) else Compiled
    return kind(model, dynamic, fullgraph, precision, seconds)


def check_precision(caller: str, precision: Any) -> None:
    """Raise ValueError where `precision` is none of those that products can be computed at."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"{caller}: precision={precision!r}, expected {', '.join(map(repr, PRECISIONS))}, or "
            "None for that of the operands"
        )


def _check_dynamic(dynamic: Any) -> None:
    if not (dynamic is None or isinstance(dynamic, (bool, Mapping))):
        raise TypeError(
            "compile(): dynamic must be True, False, None or {argument: {axis: Dim}}, not "
            f"{type(dynamic).__name__}"
        )


def _check_arguments(model: Any, backend: Any, mode: Any, options: Any) -> None:
    if mode is not None and options is not None:
        raise RuntimeError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
    if isinstance(backend, str) and backend not in BACKENDS:
        raise InvalidBackend(backend)
    if callable(backend):
        warnings.warn(
            f"compile(): the backend {getattr(backend, '__name__', backend)!r} is not called: it "
            "works on graphs of torch.fx, and functions are compiled without them",
            stacklevel=3,
        )


def _first(replay: Replay, arguments: Sequence[Tensor]) -> Any:
    """The result of the call that was recorded."""
    state = replay.read()
    assert state is not None  # it was recorded a moment ago
    return replay.run(arguments, state)


def _default_dtypes() -> Any:
    return default_dtype()
