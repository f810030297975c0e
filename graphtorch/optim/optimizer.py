"""The base of all optimizers.

An update is recorded, not run, parameter by parameter; `step` ends by running all of it as one
graph. Numbers that change from step to step (learning rate, bias corrections) enter that graph as
run-time scalars or are computed in it, so that no step compiles anything after the first.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from graphtorch.ir.dtype import f64

from .._deferred import running
from .._deferred.making import from_value
from .._deferred.storage import Leaf, RuntimeScalar, recorder
from .._deferred.tensor import Tensor
from .._deferred.write import assign, replaced
from .._ops.base import FUNCTIONS, run
from .._settings import warn_user
from .._types import DTYPES, get_default_dtype, to_ir
from ..autograd import enable_grad, no_grad
from ..utils.hooks import RemovableHandle, register

ParamsT = Iterable[Any]
_global_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
_global_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(optimizer, args, kwargs)`` before every optimizer's step; may return new (args,
    kwargs)."""
    return register(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(optimizer, args, kwargs)`` after every optimizer's step."""
    return register(_global_post_hooks, hook)


class Numbers:
    """The run-time scalars of one update, each made once for all parameters of a dtype.

    Calling it with a function of no arguments gives its number as a 0-d tensor. While a program is
    being captured, a replay calls the function again, so that a scheduler's new learning rate is
    seen.
    """

    def __init__(self, dtype: Any):
        self.dtype = dtype
        self._ir = to_ir(dtype)
        self._made: dict[Hashable, Tensor] = {}

    def __call__(self, key: Hashable, read: Callable[[], Any]) -> Tensor:
        """The number `read()` in the parameters' dtype; `key` tells numbers of one update apart."""
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._rounded(read)
        return made

    def _rounded(self, read: Callable[[], Any]) -> Tensor:
        if recorder.capture is None:
            value = read()
            # what `exact` and `to` would give, without two operations
            if not isinstance(value, Tensor):
                return from_value(Leaf.of(np.array(value, self._ir.numpy)))
        return self.exact(read).to(self.dtype)

    def wide(self, t: Tensor) -> Tensor:
        """A parameter or its state in working precision: a 0-d factor takes the dtype of what it
        scales."""
        return t if t._type.dtype is self._ir else t.to(self.dtype)

    def suit(self, tensors: Iterable[Tensor]) -> bool:
        """Whether these are of the numbers' dtype, so that none changes its own on the way."""
        dtype = self._ir
        for t in tensors:  # noqa: SIM110 - asked for every parameter
            if t._type.dtype is not dtype:
                return False
        return True

    @staticmethod
    def exact(read: Callable[[], Any]) -> Tensor:
        """The number `read()` as a float64 scalar, for arithmetic in the precision of Python's
        floats."""
        value = read()
        if isinstance(value, Tensor):
            return value.detach().double().reshape(())
        if recorder.capture is not None:
            return from_value(RuntimeScalar(lambda: float(read()), f64))
        return from_value(Leaf.of(np.array(value, np.float64)))


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` between the hooks; marks that it was called, for the schedulers."""

    @functools.wraps(step)
    def hooked(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self._in_step or "_optimizer_step_pre_hooks" not in self.__dict__:
            # a subclass that calls the step of its base, or a wrapper without one
            return step(self, *args, **kwargs)
        self._in_step = True
        try:
            for pre in (*_global_pre_hooks.values(), *self._optimizer_step_pre_hooks.values()):
                new = pre(self, args, kwargs)
                if new is None:
                    continue
                if not (isinstance(new, tuple) and len(new) == 2):
                    raise RuntimeError(
                        f"{step} must return None or a tuple of (new_args, new_kwargs), but "
                        f"got {new}."
                    )
                args, kwargs = new
            result = step(self, *args, **kwargs)
            for post in (*self._optimizer_step_post_hooks.values(), *_global_post_hooks.values()):
                post(self, args, kwargs)
        finally:
            self._in_step = False
        self._opt_called = True
        return result

    return hooked


class Optimizer:
    """Base class. A subclass overrides `_update` (and `_new_state`), or `step` altogether.

    Args:
        params: tensors, pairs (name, tensor), or dictionaries with "params" and options of their
            own.
        defaults: the options of groups that do not set them.
    """

    state: defaultdict[Tensor, Any]
    param_groups: list[dict[str, Any]]
    counters: tuple[str, ...] = ()  # 0-d state that parameters updated together share; see `_parts`
    _in_step = False
    _opt_called = False
    _optimizer_step_pre_hooks: OrderedDict[int, Any]
    _optimizer_step_post_hooks: OrderedDict[int, Any]
    _optimizer_state_dict_pre_hooks: OrderedDict[int, Any]
    _optimizer_state_dict_post_hooks: OrderedDict[int, Any]
    _optimizer_load_state_dict_pre_hooks: OrderedDict[int, Any]
    _optimizer_load_state_dict_post_hooks: OrderedDict[int, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hooks()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {params.type()}"
            )
        if defaults.get("fused"):
            if defaults.get("differentiable"):
                raise RuntimeError("`fused` does not support `differentiable`")
            if defaults.get("foreach"):
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        lr = defaults.get("lr")
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        self.state = defaultdict(dict)
        self.param_groups = []
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(dict(group) if isinstance(group, dict) else group)

    def _make_hooks(self) -> None:
        for name in (
            "step_pre",
            "step_post",
            "state_dict_pre",
            "state_dict_post",
            "load_state_dict_pre",
            "load_state_dict_post",
        ):
            self.__dict__[f"_optimizer_{name}_hooks"] = OrderedDict()

    # -- parameter groups ----------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, such as a layer that is trained from now on.

        Raises: TypeError for a group or parameters of another type, ValueError for non-leaf
        tensors, missing required options, and parameters that are in another group.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a "
                "list instead."
            )
        param_group["params"] = [params] if isinstance(params, Tensor) else list(params)
        self._split_names(param_group)
        for param in param_group["params"]:
            self._check_param(param)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization parameter "
                    f"{name}"
                )
            param_group.setdefault(name, default)
        self._check_group(param_group)
        self.param_groups.append(param_group)

    @staticmethod
    def _split_names(group: dict[str, Any]) -> None:
        """Parameters given as pairs (name, tensor): keep the names under "param_names"."""
        named = [isinstance(p, tuple) for p in group["params"]]
        if any(named):
            if not all(named):
                raise ValueError(
                    "all optimizer params should be with/without names. Some param names are "
                    "missing"
                )
            group["param_names"] = [name for name, _ in group["params"]]
            group["params"] = [param for _, param in group["params"]]

    def _check_param(self, param: Any) -> None:
        if not isinstance(param, Tensor):
            raise TypeError(
                "optimizer can only optimize Tensors, but one of the params is "
                f"{type(param).__name__}"
            )
        if not self.defaults.get("differentiable") and not (param.is_leaf or param.retains_grad):
            raise ValueError("can't optimize a non-leaf Tensor")

    def _check_group(self, group: dict[str, Any]) -> None:
        params = group["params"]
        if len(params) != len({id(p) for p in params}):
            warn_user(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error; see github.com/pytorch/pytorch/issues/40967 for "
                "more information",
            )
        taken = {id(p) for g in self.param_groups for p in g["params"]}
        if any(id(p) in taken for p in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups:
            named = "param_names" in self.param_groups[0]
            if named != ("param_names" in group):
                raise ValueError(
                    "all optimizer param groups should be with/without names. cannot add param "
                    "group with names to the "
                    f"optimizer{'' if not named else '; the others have names'}"
                )

    # -- stepping ------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or (`set_to_none` False) fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    _zeroed(param)

    @_with_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, and run what was recorded.

        Args:
            closure: clears the gradients, computes the loss and its gradients, and returns the
                loss.
        """
        if type(self)._update is Optimizer._update:
            raise NotImplementedError(f"{type(self).__name__} implements neither step nor _update")
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with enable_grad() if self.defaults.get("differentiable") else no_grad():
            running.locate()
            for group in self.param_groups:
                for params, numbers in self._parts(group):
                    self._update(group, params, numbers)
        running.flush()
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        """Record one update of `params`, which have one dtype and share their counters."""
        raise NotImplementedError(f"{type(self).__name__} has to implement _update")

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter that has none, without the counters."""
        return {}

    def _new_counter(self, name: str, group: dict[str, Any]) -> Tensor:
        return zero_counter()

    def _parts(self, group: dict[str, Any]) -> Iterator[tuple[list[Tensor], Numbers]]:
        """The parameters with gradients, split by dtype and by counters.

        PyTorch counts the steps of each parameter. Here parameters that were always updated
        together share one counter, so that the bias correction of a whole model is computed once.
        """
        active = [p for p in group["params"] if p.grad is not None]
        fresh: dict[str, Tensor] = {}
        parts: dict[Any, list[Tensor]] = {}
        counters = self.counters
        for param in active:
            self._check_grad(param)
            state = self.state[param]
            if not state:
                with existing():
                    if self.counters and not fresh:
                        fresh = {name: self._new_counter(name, group) for name in self.counters}
                    state.update(fresh)
                    state.update(self._new_state(param, group))
            key = (param.dtype, *[id(state[c]) for c in counters]) if counters else param.dtype
            parts.setdefault(key, []).append(param)
        for params in parts.values():
            dtype = params[0].dtype
            self._separate_counters(group, params)
            if dtype.is_complex:
                with self._as_real(params) as real:
                    yield real, Numbers(dtype.to_real())
            else:
                yield params, Numbers(working_dtype(dtype))

    @contextlib.contextmanager
    def _as_real(self, params: list[Tensor]) -> Iterator[list[Tensor]]:
        """Complex parameters as views of pairs of real numbers, which is how PyTorch updates
        them."""
        views = [view_as_real(p) for p in params]
        for param, view in zip(params, views, strict=True):
            view._grad = view_as_real(param.grad)
            self.state[view] = {
                k: view_as_real(v) if is_complex(v) else v for k, v in self.state[param].items()
            }
        yield views
        for param, view in zip(params, views, strict=True):
            known = self.state[param]
            for name, value in self.state.pop(view).items():  # state made during this update
                made = name not in known and isinstance(value, Tensor)
                known.setdefault(name, FUNCTIONS["view_as_complex"](value) if made else value)

    def _check_grad(self, param: Tensor) -> None:
        if param.grad.is_sparse:  # type: ignore[union-attr]
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")

    def _separate_counters(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Give `params` counters of their own where a parameter without a gradient has the same."""
        for name in self.counters:
            mine = self.state[params[0]][name]
            holders = sum(
                1 for p in group["params"] if p in self.state and self.state[p].get(name) is mine
            )
            if holders > len(params):
                copy = mine.clone()
                for param in params:
                    self.state[param][name] = copy

    # -- saving --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state by number of the parameter, and the groups with numbers in the place of
        parameters."""
        for pre in self._optimizer_state_dict_pre_hooks.values():
            pre(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for param in group["params"]:
                numbers.setdefault(id(param), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {
            numbers[id(k)] if isinstance(k, Tensor) else k: self._packed(v)
            for k, v in self.state.items()
            if v or not isinstance(v, dict)
        }
        result = {"state": state, "param_groups": groups}
        for post in self._optimizer_state_dict_post_hooks.values():
            new = post(self, result)
            result = result if new is None else new
        return result

    def _packed(self, state: Any) -> Any:
        """A parameter's state with counters of its own: other readers of the file add to them in
        place."""
        if not isinstance(state, dict) or not self.counters:
            return state
        return {
            k: v.clone() if k in self.counters and isinstance(v, Tensor) else v
            for k, v in state.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state and the options from what `state_dict` returned, here or in PyTorch.

        Raises ValueError where the groups or their numbers of parameters differ.
        """
        given = dict(state_dict)
        for pre in self._optimizer_load_state_dict_pre_hooks.values():
            new = pre(self, given)
            given = given if new is None else new
        saved = deepcopy(given["param_groups"])
        if len(saved) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(
            len(mine["params"]) != len(theirs["params"])
            for mine, theirs in zip(self.param_groups, saved, strict=True)
        ):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group"
            )
        table = {
            number: param
            for mine, theirs in zip(self.param_groups, saved, strict=True)
            for number, param in zip(theirs["params"], mine["params"], strict=True)
        }
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in given["state"].items():
            if key in table:
                state[table[key]] = {k: self._loaded(table[key], k, v) for k, v in value.items()}
            else:
                state[key] = deepcopy(value)
        for mine, theirs in zip(self.param_groups, saved, strict=True):
            names = {"param_names": mine["param_names"]} if "param_names" in mine else {}
            options = {**theirs, "params": mine["params"], **names}
            mine.clear()
            mine.update(options)
        self.__setstate__({"state": state, "param_groups": self.param_groups})
        for post in self._optimizer_load_state_dict_post_hooks.values():
            post(self)

    def _loaded(self, param: Tensor, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return deepcopy(value)
        value = value.detach()
        if key == "step" or key in self.counters:  # numbers, which stay on the CPU
            return value.clone()
        cast = param.is_floating_point() and value.is_floating_point()
        return value.to(param.device, param.dtype if cast else value.dtype, copy=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_optimizer_step_pre_hooks" not in self.__dict__:
            self._make_hooks()
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            self._share_counters(group)

    def _share_counters(self, group: dict[str, Any]) -> None:
        """After loading: parameters with equal counters share them again; see `_parts`."""
        shared: dict[Hashable, dict[str, Tensor]] = {}
        for param in group["params"]:
            state = self.state.get(param)
            if not state or not self.counters or any(c not in state for c in self.counters):
                continue
            mine = {c: as_counter(state[c]) for c in self.counters}
            key = tuple(float(v) for v in mine.values())
            state.update(shared.setdefault(key, mine))

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += [""] if i else []
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join(lines) + "\n)"

    # -- hooks ---------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` before `step`; may return new (args, kwargs)."""
        return register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """``hook(optimizer, args, kwargs)`` after `step`."""
        return register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(optimizer)`` before `state_dict`."""
        return register(self._optimizer_state_dict_pre_hooks, hook, prepend=prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` after `state_dict`; may return another one."""
        return register(self._optimizer_state_dict_post_hooks, hook, prepend=prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(optimizer, state_dict)`` before `load_state_dict`; may return another one."""
        return register(self._optimizer_load_state_dict_pre_hooks, hook, prepend=prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(optimizer)`` after `load_state_dict`."""
        return register(self._optimizer_load_state_dict_post_hooks, hook, prepend=prepend)


@contextlib.contextmanager
def existing() -> Iterator[None]:
    """Tensors made inside are older than a capture in progress: the first recorded step can be
    replayed."""
    capture, recorder.capture = recorder.capture, None
    try:
        with no_grad():
            yield
        if capture is not None:
            running.flush()
    finally:
        recorder.capture = capture


def _zeroed(param: Tensor) -> None:
    """Zeros in the place of a gradient: in its own memory, outside of any graph."""
    gradient = param.grad
    assert gradient is not None
    if gradient.grad_fn is not None or gradient.requires_grad:
        param.grad = gradient = gradient.detach()
    gradient.zero_()


def is_complex(value: Any) -> bool:
    """Whether `value` is a complex tensor."""
    return isinstance(value, Tensor) and value.dtype.is_complex


def view_as_real(t: Any) -> Tensor:
    """A complex tensor as pairs [..., 2] over the same memory."""
    return FUNCTIONS["view_as_real"](t.detach())  # type: ignore[no-any-return]


def counter_dtype() -> Any:
    """PyTorch keeps counters in float32, or in float64 where that is the default dtype."""
    usual = get_default_dtype()
    return usual if usual is DTYPES["float64"] else DTYPES["float32"]


def zero_counter(value: float = 0.0) -> Tensor:
    """A 0-d counter."""
    return FUNCTIONS["tensor"](value, dtype=counter_dtype())


def as_counter(value: Any) -> Tensor:
    """A counter from a checkpoint, where it may be a number."""
    return value if isinstance(value, Tensor) else zero_counter(float(value))


def working_dtype(dtype: Any) -> Any:
    """The dtype in which scalars meet parameters: float32 for the half-precision ones."""
    return DTYPES["float32"] if dtype.itemsize == 2 else dtype


def zeros_like(param: Tensor) -> Tensor:
    """State of the parameter's shape and dtype, filled with zeros: in memory already, so that a
    loop's first step is the same program as all later ones."""
    kind = param._type
    if recorder.capture is None and param.is_cpu and not param.is_sparse and kind.is_static:
        return from_value(Leaf.of(np.zeros(kind.shape, kind.dtype.numpy)))
    return param.detach().new_zeros(tuple(param.shape))


def check(name: str, value: Any, ok: bool) -> None:
    """Raise PyTorch's ValueError for an option out of range."""
    if not ok:
        raise ValueError(f"Invalid {name}: {value}")


def check_common(lr: Any = 0, eps: Any = 0, weight_decay: Any = 0, betas: Any = None) -> None:
    """Range checks of the options that most optimizers have. Tensors are not looked into."""
    check("learning rate", lr, isinstance(lr, Tensor) or lr >= 0.0)
    check("epsilon value", eps, eps >= 0.0)
    for i, beta in enumerate(betas or ()):
        if not isinstance(beta, Tensor) and not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    check("weight_decay value", weight_decay, weight_decay >= 0.0)


def gradient(param: Tensor, group: dict[str, Any], numbers: Numbers, decay: bool = True) -> Tensor:
    """The gradient in working precision: negated to maximise, with L2 weight decay added."""
    grad = param.grad
    assert grad is not None
    grad = numbers.wide(grad)
    if group.get("maximize"):
        grad = -grad
    if decay and group.get("weight_decay", 0) != 0:
        grad = grad + numbers("weight_decay", lambda: group["weight_decay"]) * numbers.wide(param)
    return grad


def update(
    name: str, op: Any, targets: Sequence[Tensor], operands: Sequence[Tensor], **attrs: Any
) -> None:
    """Write the results of an op to `targets`, by one node; `name` as for `run`."""
    if not replaced(op, targets, operands, attrs):
        made = run(name, op, *operands, **attrs)
        for target, new in zip(targets, made, strict=True):
            assign(target, new)


def moving(average: Tensor, new: Tensor, weight: Tensor) -> Tensor:
    """average + weight (new - average): PyTorch's ``lerp``."""
    return average + weight * (new - average)
