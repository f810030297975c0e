"""Tensors that a module owns: parameters, buffers, and their kinds that wait for a shape."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .._deferred.tensor import Tensor
from .._files.pickling import is_internal, set_attributes, user_attributes
from .._ops.base import DENSE, FUNCTIONS
from .._ops.devices import chosen
from .._ops.overriding import disabled, overrides


class _Owned(type(Tensor)):  # type: ignore[misc]
    """`isinstance(t, Parameter)` also holds for a tensor that carries the mark of the class."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or (
            isinstance(instance, Tensor) and getattr(instance, cls._mark, False) is True
        )


class Parameter(Tensor, metaclass=_Owned):
    """A tensor that a `Module` lists among its parameters once it is assigned as an attribute.

    Args:
        data: a tensor of any shape; None gives an empty one. Memory is shared with it.
        requires_grad: whether gradients are accumulated; only floating-point and complex ones can.
    """

    _mark = "_is_param"
    __torch_function__ = staticmethod(disabled)

    def __new__(
        cls, data: Tensor | None = None, requires_grad: bool = True, **workings: Any
    ) -> Any:
        # `type(p)(data, **vars(p))` makes a parameter like `p` in PyTorch, whose tensors keep
        # nothing there
        unknown = next((name for name in workings if not is_internal(name)), None)
        if unknown is not None:
            raise TypeError(f"Parameter.__new__() got an unexpected keyword argument '{unknown}'")
        if not isinstance(requires_grad, bool):
            raise TypeError(
                "Parameter(): argument 'requires_grad' (position 2) must be bool, not "
                f"{type(requires_grad).__name__}"
            )
        return _owned(cls, data, requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True, **workings: Any):
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        return memo[id(self)]

    def __repr__(self, **kwargs: Any) -> str:
        return "Parameter containing:\n" + super().__repr__(**kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild_parameter, (
            self.detach(),
            self.requires_grad,
            OrderedDict(),
            user_attributes(self),
        )


DENSE.add(Parameter)


class Buffer(Tensor, metaclass=_Owned):
    """A tensor that a `Module` lists among its buffers once it is assigned as an attribute.

    Args:
        data: a tensor of any shape; None gives an empty one.
        persistent: whether it is part of the module's ``state_dict``.
    """

    _mark = "_is_buffer"
    __torch_function__ = staticmethod(disabled)

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Any:
        made = _owned(cls, data, False)
        made.persistent = persistent
        return made

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        pass

    __deepcopy__ = Parameter.__deepcopy__


class _Uninitialized:
    """A parameter or buffer of a lazy module before its first call: it has a dtype but no shape."""

    _plain: type
    data: Any

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Turn into an ordinary tensor of `shape`, with arbitrary contents."""
        device = self.data.device if device is None else device
        self.data = FUNCTIONS["empty"](tuple(shape), device=device, dtype=dtype or self.data.dtype)
        self.__class__ = self._plain

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    def __repr__(self, **kwargs: Any) -> str:
        return f"<{type(self).__name__}>"

    def share_memory_(self) -> Any:
        raise RuntimeError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to "
            "initialize the parameters before calling `module.share_memory()`."
        )


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape the first call of its (lazy) module decides."""

    _plain = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        return _owned(cls, _empty(dtype, device), requires_grad)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None):
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.device, self.data.dtype)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return UninitializedParameter, (self.requires_grad,)


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer whose shape the first call of its (lazy) module decides."""

    _plain = Buffer

    def __new__(
        cls,
        requires_grad: bool = False,
        device: Any = None,
        dtype: Any = None,
        persistent: bool = True,
    ) -> Any:
        made = _owned(cls, _empty(dtype, device), requires_grad)
        made.persistent = persistent
        return made

    def __init__(
        self,
        requires_grad: bool = False,
        device: Any = None,
        dtype: Any = None,
        persistent: bool = True,
    ):
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = type(self)(
                device=self.device, dtype=self.data.dtype, persistent=self.persistent
            )
        return memo[id(self)]


def is_lazy(param: Any) -> bool:
    """Whether `param` still waits for its shape."""
    return isinstance(param, _Uninitialized)


def _empty(dtype: Any = None, device: Any = None) -> Tensor:
    return FUNCTIONS["empty"](0, device=chosen(device), dtype=dtype)


def _owned(cls: type, data: Tensor | None, requires_grad: bool) -> Any:
    if data is None:
        data = _empty()
    if not isinstance(data, Tensor):
        raise AttributeError(
            f"'{type(data).__name__}' object has no attribute 'detach': "
            f"{cls.__name__}(data) takes a Tensor or None; wrap it with "
            "torch.tensor(...)"
        )
    if requires_grad and not (data.dtype.is_floating_point or data.dtype.is_complex):
        raise RuntimeError(
            "Only Tensors of floating point and complex dtype can require gradients, "
            f"got {data.dtype}: pass requires_grad=False"
        )
    return (
        _marked(cls, data, requires_grad)
        if overrides(type(data))
        else Tensor._make_subclass(cls, data, requires_grad)
    )


def _marked(cls: Any, data: Tensor, requires_grad: bool) -> Any:
    """A tensor of a class that says what operations on it are stays of that class; it carries a
    mark."""
    made = data.detach().requires_grad_(requires_grad)
    if type(made) is not type(data):
        raise RuntimeError(
            f"Creating a {cls.__name__} from an instance of type {type(data).__name__} requires "
            "that detach() returns an instance of the same type, but type "
            f"{type(made).__name__} was found instead."
        )
    setattr(made, cls._mark, True)
    return made


def _rebuild_parameter(
    data: Tensor, requires_grad: bool, backward_hooks: Any, attributes: Any = None
) -> Parameter:
    return set_attributes(Parameter(data, requires_grad), attributes)  # type: ignore[no-any-return]
