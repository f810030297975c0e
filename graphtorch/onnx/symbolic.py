"""``torch.onnx.symbolic_helper`` and ``symbolic_opset<N>``: names for functions that write
TorchScript as ONNX.

Libraries register such functions for their operators as they are imported. The exporter here reads
graphtorch's own graph, in which those operators are ordinary ones, and so calls none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._torch.absent import attribute_of

symbolic_functions: dict[tuple[str, int], Callable[..., Any]] = {}


def parse_args(*arg_descriptors: str) -> Callable[[Any], Any]:
    """Says how a symbolic function takes its arguments; the function itself."""
    return lambda fn: fn


def quantized_args(*args: Any, **options: Any) -> Callable[[Any], Any]:
    """Says which arguments of a symbolic function may be quantized; the function itself."""
    return lambda fn: fn


def register_custom_op_symbolic(
    symbolic_name: str, symbolic_fn: Callable[..., Any], opset_version: int
) -> None:
    """Keep the function that writes the TorchScript operator ``domain::op``; see the module's text.

    Raises:
        ValueError: the name is not of that form.
    """
    if symbolic_name.startswith("::"):
        symbolic_name = "aten" + symbolic_name
    if symbolic_name.count("::") != 1 or not all(symbolic_name.split("::")):
        raise ValueError(
            f"Failed to register operator {symbolic_name}. The symbolic name must match the format "
            "domain::name, and should start with a letter and contain only alphanumerical "
            "characters"
        )
    symbolic_functions[symbolic_name, opset_version] = symbolic_fn


def unregister_custom_op_symbolic(symbolic_name: str, opset_version: int) -> None:
    """Keep it no longer."""
    symbolic_functions.pop((symbolic_name, opset_version), None)


__getattr__ = attribute_of(__name__)
