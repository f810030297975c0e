"""What all distributions have in common."""

from __future__ import annotations

import weakref
from typing import Any

from .._deferred.tensor import Tensor
from .._settings import warn_user
from .._types import Size
from ..autograd.grad_mode import no_grad
from . import constraints
from .utils import lazy_property

__all__ = ["Distribution"]


class Distribution:
    """A batch of distributions over events of one shape.

    Args:
        batch_shape: of the independent distributions, whose parameters may differ.
        event_shape: of one sample of one of them.
        validate_args: whether to check the parameters, and the values given to `log_prob`. By
            default what `set_default_validate_args` said last; at first True, but not under
            ``python -O``.

    Raises:
        ValueError: a parameter is outside of its set in `arg_constraints`.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    _drawn: tuple[weakref.ref[Tensor], int] | None = None  # the last sample and its version

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from now on check their arguments."""
        if value not in (True, False):
            raise ValueError
        Distribution._validate_args = value

    def __init__(
        self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None
    ):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._validate_parameters()

    def _validate_parameters(self) -> None:
        try:
            sets = self.arg_constraints
        except NotImplementedError:
            warn_user(
                f"{type(self)} does not define `arg_constraints`. Please set `arg_constraints = "
                "{}` or initialize the distribution with `validate_args=False` to turn "
                "off validation.",
            )
            return
        names = [
            name
            for name, constraint in sets.items()
            if not constraints.is_dependent(constraint) and not self._is_derived(name)
        ]
        broken = constraints.first_broken([(sets[name], getattr(self, name)) for name in names])
        if broken is None:
            return
        name = names[broken]
        value = getattr(self, name)
        raise ValueError(
            f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of "
            f"distribution {self!r} to satisfy the constraint {sets[name]!r}, but found invalid "
            f"values:\n{value}"
        )

    def _is_derived(self, name: str) -> bool:
        """Whether a parameter follows from another one and was not computed yet."""
        return name not in self.__dict__ and isinstance(
            getattr(type(self), name, None), lazy_property
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with its parameters expanded to another batch shape."""
        raise NotImplementedError

    @property
    def batch_shape(self) -> Size:
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of a single sample."""
        return self._event_shape

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """The sets in which the parameters lie."""
        raise NotImplementedError

    @property
    def support(self) -> Any:
        """The set in which the samples lie."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean of the distribution."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The likeliest value."""
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Tensor:
        """The variance of the distribution."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of the distribution."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, of shape sample_shape + batch_shape + event_shape, through which no gradient
        flows."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that are differentiable functions of the parameters."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Tensor:
        """`n` draws (deprecated: ``sample((n,))``)."""
        warn_user("sample_n(n) will be deprecated. Use .sample((n,)) instead", FutureWarning)
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability (density) of `value`."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a sample up to `value`."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution, along a new first dimension."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """exp of the entropy."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _note(self, drawn: Tensor) -> Tensor:
        """`drawn`, which `log_prob` need not check: it lies in the support, being a sample."""
        self._drawn = weakref.ref(drawn), drawn._version
        return drawn

    def _validate_sample(self, value: Tensor) -> None:
        """Raise ValueError unless `value` has a shape and elements that samples can have."""
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        if (
            self._drawn is not None
            and self._drawn[0]() is value
            and self._drawn[1] == value._version
        ):
            return
        first = len(value.shape) - len(self._event_shape)
        if value.shape[first:] != self._event_shape:
            raise ValueError(
                f"The right-most size of value must match event_shape: {value.shape} vs "
                f"{self._event_shape}."
            )
        expected = self._batch_shape + self._event_shape
        for i, j in zip(reversed(value.shape), reversed(expected), strict=False):
            if i != 1 and j != 1 and i != j:
                raise ValueError(
                    f"Value is not broadcastable with batch_shape+event_shape: {value.shape} vs "
                    f"{expected}."
                )
        try:
            support = self.support
        except NotImplementedError:
            warn_user(
                f"{type(self)} does not define `support` to enable sample validation. Please "
                "initialize the distribution with `validate_args=False` to turn off "
                "validation.",
            )
            return
        if constraints.first_broken([(support, value)]) is not None:
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) "
                f"to be within the support ({support!r}) of the distribution {self!r}, but found "
                f"invalid values:\n{value}"
            )

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        """The instance that `expand` fills: a new one without its constructor run, or the one
        given."""
        if _instance is None and type(self).__init__ is not cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(
                f"Subclass {type(self).__name__} of {cls.__name__} that defines a "
                "custom __init__ method must also define a custom .expand() "
                "method."
            )
        return type(self).__new__(type(self)) if _instance is None else _instance

    def _expanded(self, cls: type, batch_shape: Any, _instance: Any, *names: str) -> Any:
        """`expand` of a class whose attributes of these names, if there, have the batch's shape."""
        new = self._get_checked_instance(cls, _instance)
        batch_shape = Size(batch_shape)
        for name in names:
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand(batch_shape))
        return self._finished(new, batch_shape)

    def _finished(self, new: Any, batch_shape: Any, event_shape: Any = None) -> Any:
        """`new`, whose parameters are set, with the shapes of a distribution and this one's
        validation."""
        event_shape = self._event_shape if event_shape is None else event_shape
        Distribution.__init__(new, batch_shape, event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_drawn"}

    def __repr__(self) -> str:
        shown = {
            name: self.__dict__[name] for name in self.arg_constraints if name in self.__dict__
        }
        inside = ", ".join(
            f"{name}: {t if t.numel() == 1 else t.shape}" for name, t in shown.items()
        )
        return f"{type(self).__name__}({inside})"
