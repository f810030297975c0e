"""Guards of modules and optimizers, whose code is not followed."""

from __future__ import annotations

import functools
import types
from typing import Any

from .._deferred.door import ITEM, LENGTH, PART, PART_LENGTH, PART_VALUES
from .._deferred.tensor import Tensor
from ..nn.modules.module import Module
from ..optim.optimizer import Optimizer
from .chains import all_names
from .checks import ATOMS, Checks, contents, identical, same_contents


def write_module(checks: Checks, module: Any, names: frozenset[str] | None) -> None:
    """A module has the members and hooks it has now, and those attributes that the code that ran
    may have read: `names` (None: any) or what code of ours reads. `Members` counts what is set;
    this sees
    what is written straight into ``__dict__`` as well."""
    if names is not None:
        names |= _names_in(type(module))  # type: ignore[arg-type]
    own = module.__dict__
    name = checks.const(own)
    checks.add(f"len({name}) == {len(own)}", (LENGTH, own, None, None, len(own)))
    ours = type(module).__module__.startswith("graphtorch.")  # whose code is not followed
    for key, value in own.items():
        text = f"{name}[{key!r}]"
        if key in _MEMBERS:
            _write_members(checks, text, value, own, key)
        elif key in _HOOKS and not value:
            checks.add(f"not {text}", (PART_LENGTH, own, key, None, 0))
        elif key in _HOOKS:
            checks.identical(text, list(value.values()))
        elif key not in _UNCALLED and (names is None or key in names):
            checks.value(text, value, (ITEM, own, key, None, value))
            # it never changes
            flat = isinstance(value, tuple) and all(isinstance(v, ATOMS) for v in value)
            if ours and not flat and isinstance(value, (list, dict, set, tuple)):
                checks.contents(text, contents(value), value)


@functools.cache
def _names_in(kind: type) -> frozenset[str]:
    """The names that methods of a class of modules load, where its code is ours and so is not
    followed."""
    found: set[str] = set()
    for one in kind.__mro__:
        if one is Module:
            break
        for name, method in vars(one).items():
            if isinstance(method, types.FunctionType) and name not in _NOT_CALLED:
                found.update(all_names(method.__code__))
    return frozenset(found)


_NOT_CALLED = frozenset(("__init__", "__repr__", "extra_repr", "reset_parameters", "__setstate__"))


def _write_members(
    checks: Checks, text: str, table: dict[str, Any], own: dict[str, Any], name: str
) -> None:
    """Args: text: what stands for `table`, which is ``own[name]``."""
    length = PART_LENGTH, own, name, None, len(table)
    if not table:
        checks.add(f"not {text}", length)
        return
    if all(type(v).__eq__ is object.__eq__ for v in table.values()):  # modules: their order matters
        values = list(table.values())
        rows = [(PART_VALUES, own, name, None, values)] if type(table) is dict else []
        checks.add(f"[*{text}.values()] == {checks.const(values)}", *rows)
        return
    if len(table) > _FEW:
        checks.identical(text, list(table.values()))
        return
    checks.add(f"len(t := {text}) == {len(table)}", length)
    for key, value in table.items():
        checks.add(f"t[{key!r}] is {checks.const(value)}", (PART, own, name, key, value))


_MEMBERS = frozenset(("_parameters", "_buffers", "_modules"))
_HOOKS = frozenset(
    ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
)
# What calls do not read, or only where one of the hooks is there.
_UNCALLED = frozenset(
    (
        "_non_persistent_buffers_set",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_is_full_backward_hook",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    )
)
_FEW = 6  # members that are compared one by one, in the text
STOP: Any = object()


class OptimizerGuard:
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
                now = group.get(name, STOP)
                if now is before and kept is before:
                    continue
                if not ((sign and _sign(now) == _sign(before)) or same_contents(now, kept)):
                    return False
        for state, values in zip(self.states, self.values):  # noqa: B905
            if isinstance(state, dict):
                if len(state) != len(values):
                    return False
                for now, before in zip(state.values(), values):  # noqa: B905
                    if now is not before and (
                        isinstance(before, Tensor) or isinstance(now, Tensor)
                    ):
                        return False
        return self.hooks == _hooks_of(owner)


def _hooks_of(owner: Optimizer) -> Any:
    return tuple(owner._optimizer_step_pre_hooks), tuple(owner._optimizer_step_post_hooks)


# Numbers that our optimizers read at each replay (`Numbers`): a recording depends on their signs
# alone.
_READ_ANEW = {"lr", "weight_decay", "momentum", "dampening", "betas", "eps", "alpha", "rho"}
_READ_ANEW |= {
    "beta2_decay",
    "d",
    "etas",
    "step_sizes",
    "lr_decay",
    "momentum_decay",
    "lambd",
    "t0",
}
_UNREAD = {
    "params",
    "param_names",
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
}


def _options(owner: Optimizer, group: dict[str, Any]) -> list[tuple[str, Any, Any, bool]]:
    """What of a group a recording depends on: name, value, a copy of a container, whether by sign
    alone."""
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
