"""Parameters computed from others: ``register_parametrization(module, "weight", Symmetric())``.

The attribute becomes a property of a subclass of the module's class; what it is computed from is
stored in ``module.parametrizations.<name>.original`` (``original0``, ``original1``, ... where it is
several).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from ..._deferred.tensor import Tensor
from ...autograd import no_grad
from ..modules import Module, ModuleDict, ModuleList
from ..parameter import Parameter

_nested = 0  # depth of `cached()` blocks
_cache: dict[tuple[int, str], Tensor | None] = {}


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Within it, a parametrized tensor is computed at its first use only."""
    global _nested
    _nested += 1
    try:
        yield
    finally:
        _nested -= 1
        if not _nested:
            _cache.clear()


def _register(owner: Any, name: str, original: Tensor) -> None:
    if isinstance(original, Parameter):
        owner.register_parameter(name, original)
    else:
        owner.register_buffer(name, original)


def _check_same(given: Any, made: Any, how: str, the: str = "") -> None:
    if not isinstance(made, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(made).__name__}.")
    if made.dtype is not given.dtype:
        raise ValueError(
            "Registering a parametrization may not change the dtype of the tensor, unless "
            f"{the}`unsafe` flag is enabled.\nunparametrized dtype: {given.dtype}\n"
            f"{how} dtype: {made.dtype}"
        )
    if made.shape != given.shape:
        raise ValueError(
            "Registering a parametrization may not change the shape of the tensor, unless "
            f"{the}`unsafe` flag is enabled.\nunparametrized shape: {given.shape}\n"
            f"{how} shape: {made.shape}"
        )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, in the order of their application, and the tensors they
    start from.

    Args:
        modules: the parametrizations.
        original: the tensor before any of them; their ``right_inverse``, where they have one, is
            applied.
        unsafe: whether they may change its dtype or shape.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False):
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        start = self._inverted(original, False)
        self.is_tensor = isinstance(start, Tensor)
        if self.is_tensor:
            self._keep("original", original, start)
        else:
            self.ntensors = len(start)
            for i, part in enumerate(start):
                if not isinstance(part, Tensor):
                    raise ValueError(
                        f"'right_inverse' must return a Tensor or a Sequence of tensors, got "
                        f"{type(part).__name__} at position {i}"
                    )
                _register(
                    self,
                    f"original{i}",
                    Parameter(part, original.requires_grad)
                    if isinstance(original, Parameter)
                    else part,
                )
        if not unsafe:
            _check_same(original, self(), "parametrized")

    def _keep(self, name: str, original: Tensor, start: Tensor) -> None:
        """Register `original` itself, with the elements of `start`: optimizers that hold it stay
        right."""
        if start.dtype is not original.dtype and not self.unsafe:
            raise ValueError(
                "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                f"original.dtype: {original.dtype}\n"
                f"right_inverse(original).dtype: {start.dtype}"
            )
        if start is not original:
            with no_grad():
                original.data = start.detach()
        _register(self, name, original)

    def _inverted(self, value: Any, all_of_them: bool) -> Any:
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
                elif all_of_them:
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement right_inverse."
                    )
        if not isinstance(value, (Tensor, Sequence)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, "
                f"tuple...). Got {type(value).__name__}"
            )
        return value

    def originals(self) -> tuple[Tensor, ...]:
        """The tensors that the parametrized one is computed from."""
        if self.is_tensor:
            return (self.original,)
        return tuple(getattr(self, f"original{i}") for i in range(self.ntensors))

    def right_inverse(self, value: Tensor) -> None:
        """Change the originals so that the parametrized tensor becomes `value`."""
        start = self._inverted(value, True)
        parts = (start,) if self.is_tensor else tuple(start)
        if len(parts) != len(self.originals()):
            raise ValueError(
                f"'right_inverse' returned {len(parts)} tensors where {self.ntensors} are kept"
            )
        with no_grad():
            for own, part in zip(self.originals(), parts, strict=True):
                if part.dtype is not own.dtype:
                    raise ValueError(
                        f"The tensor returned by `right_inverse` has dtype {part.dtype} while "
                        f"the original has dtype {own.dtype}"
                    )
                own.data = part.detach().clone()

    def forward(self) -> Tensor:
        first, *rest = self
        value = first(*self.originals())
        for module in rest:
            value = module(value)
        return value


def _class_with(module: Module) -> type:
    """A subclass of the module's class, with room for properties."""
    base = type(module)

    def refuse(self: Any) -> Any:
        raise RuntimeError(
            "Serialization of parametrized modules is only supported through state_dict(). "
            "See https://pytorch.org/docs/stable/notes/serialization.html"
        )

    def deep_copy(self: Any, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            made = memo[id(self)] = self.__new__(type(self))
            made.__dict__ = copy.deepcopy(self.__dict__, memo)
            made.__class__ = _copied_class(type(self))
        return memo[id(self)]

    return type(
        f"Parametrized{base.__name__}",
        (base,),
        {"__getstate__": refuse, "__deepcopy__": deep_copy, "__module__": base.__module__},
    )


def _copied_class(cls: type) -> type:
    """A class of its own for a copy, so that removing a parametrization there changes nothing
    here."""
    return type(cls.__name__, cls.__bases__, dict(cls.__dict__))


def _property_of(name: str) -> property:
    def get(self: Any) -> Tensor:
        if not _nested:
            return self.parametrizations[name]()
        key = id(self), name
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]  # type: ignore[return-value]

    def set(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, set)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Compute ``module.<tensor_name>`` by ``parametrization(original)`` from now on; several
    compose.

    Args:
        parametrization: a module whose `forward` takes the original (or originals) and returns the
            tensor. A method ``right_inverse(tensor)`` makes the attribute assignable and gives the
            first original.
        unsafe: allow it to change dtype or shape.

    Raises:
        ValueError: no parameter or buffer of that name, or its dtype or shape would change.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        _append(module, tensor_name, parametrization, unsafe)
        return module
    if tensor_name not in module._buffers and tensor_name not in module._parameters:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element "
            f"with name '{tensor_name}'"
        )
    made = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.__class__ = _class_with(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _property_of(tensor_name))
    module.parametrizations[tensor_name] = made
    return module


def _append(module: Any, name: str, parametrization: Module, unsafe: bool) -> None:
    chain = module.parametrizations[name]
    if not unsafe:
        value = getattr(module, name)
        _check_same(value, parametrization(value), "parametrized", "the ")
        if hasattr(parametrization, "right_inverse"):
            _check_same(value, parametrization.right_inverse(value), "right_inverse", "the ")
    chain.append(parametrization)
    chain.unsafe |= unsafe


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or its tensor of that name, is parametrized."""
    found = getattr(module, "parametrizations", None)
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Make ``module.<tensor_name>`` an ordinary tensor again.

    Args:
        leave_parametrized: keep its present elements; False brings back the original, where there
            is one.

    Raises:
        ValueError: it is not parametrized, or has several originals and `leave_parametrized` is
            False.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain: Any = module.parametrizations[tensor_name]  # type: ignore[operator,index]
    if chain.is_tensor:
        original = chain.original
        if leave_parametrized:
            with no_grad():
                original.data = getattr(module, tensor_name).detach()
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach(), True) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]  # type: ignore[operator,arg-type]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The module's class as it was before any of its tensors was parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Give `to_module` the parametrizations of `from_module` (all, or one tensor's) and its
    tensors."""
    if not is_parametrized(from_module):
        return to_module
    names = [tensor_name] if tensor_name is not None else [*from_module.parametrizations]  # type: ignore
    for name in names:
        if name not in to_module._parameters and name not in to_module._buffers:
            _register(to_module, name, getattr(from_module, name).detach().clone())
        source: Any = from_module.parametrizations[name]  # type: ignore[operator,index]
        for one in source:
            register_parametrization(to_module, name, one, unsafe=True)
        target: Any = to_module.parametrizations[name]  # type: ignore[operator,index]
        for theirs, own in zip(source.originals(), target.originals(), strict=True):
            own.data = theirs.detach().clone()
    return to_module
