"""Saving a module's tensors into a dictionary, and loading them back."""

from __future__ import annotations

import itertools
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from typing import Any

from ..._deferred.tensor import Tensor
from ...autograd import no_grad
from ...utils.hooks import RemovableHandle, register
from ..parameter import Parameter, is_lazy
from ._members import Members

_EXTRA_STATE_KEY_SUFFIX = "_extra_state"


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What ``load_state_dict`` returns: the keys that had no counterpart on the other side."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class StateDict(Members):
    """`state_dict` and `load_state_dict` with their hooks. Keys are dotted names, as in PyTorch."""

    _version: int = 1
    _state_dict_hooks: OrderedDict[int, Any]
    _state_dict_pre_hooks: OrderedDict[int, Any]
    _load_state_dict_pre_hooks: OrderedDict[int, Any]
    _load_state_dict_post_hooks: OrderedDict[int, Any]

    def get_extra_state(self) -> Any:
        """Override (with `set_extra_state`) to keep further picklable state in ``state_dict``."""
        raise RuntimeError(
            "Reached a code path in Module.get_extra_state() that should never be called."
        )

    def set_extra_state(self, state: Any) -> None:
        """Override to take back what `get_extra_state` returned."""
        raise RuntimeError(
            "Reached a code path in Module.set_extra_state() that should never be called."
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write this module's own tensors, not its children's, into `destination`."""
        own = (
            (n, t) for n, t in self._buffers.items() if n not in self._non_persistent_buffers_set
        )
        for name, tensor in itertools.chain(self._parameters.items(), own):
            if tensor is not None:
                destination[prefix + name] = (
                    tensor if keep_vars or is_lazy(tensor) else tensor.detach()
                )
        if type(self).get_extra_state is not StateDict.get_extra_state:
            destination[prefix + _EXTRA_STATE_KEY_SUFFIX] = self.get_extra_state()

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """An ordered dictionary from dotted names to parameters and persistent buffers.

        The tensors share memory with the module; `keep_vars` keeps the parameters themselves
        instead of detached ones.
        """
        given: tuple[Any, ...] = (destination, prefix, keep_vars)
        destination, prefix, keep_vars = (*args, *given[len(args) :])
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for pre in self._state_dict_pre_hooks.values():
            pre(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            result = hook(self, destination, prefix, metadata)
            if result is not None:
                if getattr(hook, "_from_public_api", False):
                    raise RuntimeError("state_dict post-hook must return None")
                destination = result
        return destination

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """``hook(module, prefix, keep_vars)`` runs before `state_dict`."""
        return register(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata)`` runs after `state_dict`, in
        place."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return register(self._state_dict_hooks, hook)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(
                "Cannot register the same function as the state dict post hook that was "
                "previously registered via register_state_dict_post_hook"
            )
        return register(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected,
        errors)``."""
        return register(self._load_state_dict_pre_hooks, (hook, True))

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., None], with_module: bool = False
    ) -> RemovableHandle:
        return register(self._load_state_dict_pre_hooks, (hook, with_module))

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """``hook(module, incompatible_keys)`` runs after loading; it may edit the two lists."""
        return register(self._load_state_dict_post_hooks, hook)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy tensors from `state_dict` into this module and all below it.

        Args:
            state_dict: dotted names to tensors, as `state_dict` returns.
            strict: whether missing and unexpected keys are errors.
            assign: put the given tensors in place of the module's own instead of copying into
                those.

        Raises: TypeError when it is not a mapping; RuntimeError listing everything that did not
            fit.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        metadata = getattr(state_dict, "_metadata", None)
        given = OrderedDict(state_dict)
        if metadata is not None:
            given._metadata = metadata  # type: ignore[attr-defined]
        report: tuple[list[str], list[str], list[str]] = ([], [], [])
        self._load_tree(given, "", metadata, assign, strict, report)
        missing, unexpected, errors = report
        if strict and unexpected:
            errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
        if strict and missing:
            errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        return _IncompatibleKeys(missing, unexpected)

    def _load_tree(
        self,
        given: Any,
        prefix: str,
        metadata: Any,
        assign: bool,
        strict: bool,
        report: tuple[list[str], list[str], list[str]],
    ) -> None:
        local = {} if metadata is None else metadata.get(prefix[:-1], {})
        if assign:
            local["assign_to_params_buffers"] = True
        self._load_from_state_dict(given, prefix, local, True, *report)
        for name, child in self._modules.items():
            if child is not None:
                path = f"{prefix}{name}."
                part = OrderedDict((k, v) for k, v in given.items() if k.startswith(path))
                child._load_tree(part, path, metadata, assign, strict, report)
        keys = _IncompatibleKeys(report[0], report[1])
        for hook in self._load_state_dict_post_hooks.values():
            if hook(self, keys) is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not "
                    "expected to return new values, if incompatible_keys need to "
                    "be modified, it should be done inplace."
                )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load this module's own tensors; children follow by themselves."""
        for hook, with_module in self._load_state_dict_pre_hooks.values():
            hook(
                *((self,) if with_module else ()),
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
        persistent = {
            n: t for n, t in self._buffers.items() if n not in self._non_persistent_buffers_set
        }
        own = {n: t for n, t in (*self._parameters.items(), *persistent.items()) if t is not None}
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, mine in own.items():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            problem = self._load_one(key, name, mine, state_dict[key], assign)
            if problem:
                error_msgs.append(problem)
        self._load_extra(state_dict, prefix, strict, missing_keys, unexpected_keys)
        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != prefix + _EXTRA_STATE_KEY_SUFFIX:
                    name, dot, _ = key[len(prefix) :].partition(".")
                    if (name not in self._modules) if dot else (name not in own):
                        unexpected_keys.append(key)

    def _load_one(self, key: str, name: str, mine: Any, given: Any, assign: bool) -> str | None:
        """Load one tensor; returns what is wrong with it."""
        if not isinstance(given, Tensor):
            return (
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like '
                "object "
                f"from checkpoint but received {type(given)}"
            )
        lazy = is_lazy(mine)
        if not lazy and mine.dim() == 0 and tuple(given.shape) == (1,):
            given = given[0]  # checkpoints of PyTorch 0.3 and before kept 0-d tensors as 1-d
        if not lazy and tuple(given.shape) != tuple(mine.shape):
            return (
                f"size mismatch for {key}: copying a param with shape {given.shape} from "
                f"checkpoint, the shape in current model is {mine.shape}."
            )
        if lazy and not is_lazy(given):
            with no_grad():
                mine.materialize(given.shape)
        try:
            with no_grad():
                if assign:
                    self._assign(name, mine, given)
                elif not is_lazy(given):
                    mine.copy_(given)
        except Exception as error:  # every misfit is reported together, as PyTorch does
            return (
                f'While copying the parameter named "{key}", whose dimensions in the model are '
                f"{mine.size()} "
                f"and whose dimensions in the checkpoint are {given.size()}, an exception "
                f"occurred : {error.args}."
            )
        return None

    def _assign(self, name: str, mine: Any, given: Any) -> None:
        if isinstance(mine, Parameter):
            given = (
                given.requires_grad_(mine.requires_grad)
                if isinstance(given, Parameter)
                else Parameter(given, mine.requires_grad)
            )
        setattr(self, name, given)

    def _load_extra(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
    ) -> None:
        key = prefix + _EXTRA_STATE_KEY_SUFFIX
        if type(self).set_extra_state is not StateDict.set_extra_state:
            if key in state_dict:
                self.set_extra_state(state_dict[key])
            elif strict:
                missing_keys.append(key)
        elif strict and key in state_dict:
            unexpected_keys.append(key)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{k}"' for k in keys)
