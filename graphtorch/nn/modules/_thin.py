"""Layers that only keep arguments for a function: made from a table, with explicit signatures.

`thin("Name", function, lambda a, b=1: None, doc)` makes a module class whose constructor has the
lambda's signature, whose attributes are those arguments, and whose `forward` passes them on by
name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from .module import Module


def thin(
    name: str,
    function: Callable[..., Any],
    signature: Callable[..., Any],
    doc: str,
    *,
    shown: str | Callable[[Any], str] = "",
    base: type[Module] = Module,
    unused: tuple[str, ...] = (),
    added: tuple[str, ...] = (),
) -> Any:
    """A module class over `function`.

    Args:
        signature: a function with the constructor's parameters; its body is not used.
        shown: `extra_repr`: a format string over the attributes, or a function of the module.
        unused: attributes that `function` does not take.
        added: further attributes, such as ``training``, that it takes.
    """
    parameters = list(inspect.signature(signature).parameters.values())
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    full = inspect.Signature([own, *parameters])
    names = tuple(p.name for p in parameters)
    passed = tuple(n for n in names if n not in unused) + added

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            given = full.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{name}.__init__() {error}: expected {inspect.Signature(parameters)}"
            ) from None
        base.__init__(self)
        given.apply_defaults()
        for key in names:
            setattr(self, key, given.arguments[key])

    def forward(self: Any, *inputs: Tensor) -> Any:
        return function(*inputs, **{key: getattr(self, key) for key in passed})

    def extra_repr(self: Any) -> str:
        return (
            shown(self)
            if callable(shown)
            else shown.format(**{key: getattr(self, key) for key in names})
        )

    __init__.__signature__ = full  # type: ignore[attr-defined]
    # pickles name the class by the file that binds it
    caller = sys._getframe(1).f_globals["__name__"]
    return type(
        name,
        (base,),
        {
            "__init__": __init__,
            "forward": forward,
            "extra_repr": extra_repr,
            "__doc__": doc,
            "__module__": caller,
        },
    )


def inplace_note(self: Any) -> str:
    """``inplace=True`` where it is."""
    return "inplace=True" if self.inplace else ""


def with_inplace(shown: str) -> Callable[[Any], str]:
    """`shown` as a format string over the module's attributes, then ``inplace=True`` where it
    is."""

    def text(self: Any) -> str:
        return shown.format(self=self) + (", inplace=True" if self.inplace else "")

    return text
