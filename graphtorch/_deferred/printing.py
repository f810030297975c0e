"""How tensors print: as PyTorch prints them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _types
from .storage import recorder

_options: dict[str, Any] = {
    "precision": 4,
    "threshold": 1000,
    "edgeitems": 3,
    "linewidth": 80,
    "sci_mode": None,
}
_PROFILES = {"default": (4, 1000, 3, 80), "short": (2, 1000, 2, 80), "full": (4, math.inf, 3, 80)}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits, size from which tensors are summarised, items at the edges, line width, scientific
    notation."""
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"unknown profile {profile!r}: expected default, short or full")
        _options.update(
            zip(
                ("precision", "threshold", "edgeitems", "linewidth"),
                _PROFILES[profile],
                strict=True,
            )
        )
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _options.update({k: v for k, v in given.items() if v is not None})
    _options["sci_mode"] = sci_mode


class Formatter:
    """Formats the numbers of one tensor to one width."""

    def __init__(self, array: np.ndarray):
        self.floating = array.dtype.kind == "f"
        self.integral = True
        self.scientific = False
        self.width = 1
        if not self.floating:
            self.width = max((len(self._plain(v)) for v in array.reshape(-1)), default=1)
            return
        finite = array[np.isfinite(array) & (array != 0)].astype(np.float64)
        if finite.size == 0:
            return
        size = np.abs(finite)
        low, high = size.min(), size.max()
        self.integral = bool((finite == np.ceil(finite)).all())
        self.scientific = bool(
            high / low > 1000 or high > 1e8 or (not self.integral and low < 1e-4)
        )
        if self.integral:
            self.scientific = bool(high / low > 1000 or high > 1e8)
        if _options["sci_mode"] is not None:
            self.scientific = _options["sci_mode"]
        # nan and inf may stick out, as in PyTorch
        self.width = max(len(self._number(v)) for v in finite)

    @staticmethod
    def _plain(value: Any) -> str:
        return str(bool(value)) if isinstance(value, (bool, np.bool_)) else str(value)

    def _number(self, value: Any) -> str:
        value = float(value)
        if not math.isfinite(value):
            return str(value)
        if self.scientific:
            return f"{value:.{_options['precision']}e}"
        return f"{value:.0f}." if self.integral else f"{value:.{_options['precision']}f}"

    def __call__(self, value: Any) -> str:
        text = self._number(value) if self.floating else self._plain(value)
        return text.rjust(self.width)


class ComplexFormatter:
    """Formats complex numbers: both parts to one width each."""

    def __init__(self, array: np.ndarray):
        self.real, self.imag = Formatter(array.real), Formatter(array.imag)
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: Any) -> str:
        imag = self.imag(value.imag).lstrip()
        text = imag + "j" if imag[0] in "+-" else "+" + imag + "j"
        return self.real(value.real) + text


def _shown(array: np.ndarray) -> np.ndarray:
    """Only the elements that a summary prints."""
    edge = _options["edgeitems"]
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            array = np.concatenate(
                [np.take(array, range(edge), axis), np.take(array, range(size - edge, size), axis)],
                axis,
            )
    return array


def _vector(array: np.ndarray, indent: int, form: Any, summarize: bool) -> str:
    per_line = max(1, int((_options["linewidth"] - indent) // (form.width + 2)))
    edge = _options["edgeitems"]
    if summarize and not edge:
        words = ["..."]
    elif summarize and array.shape[0] > 2 * edge:
        words = [*map(form, array[:edge]), " ...", *map(form, array[-edge:])]
    else:
        words = [form(v) for v in array]
    lines = [words[i : i + per_line] for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(", ".join(line) for line in lines) + "]"


def _nested(array: np.ndarray, indent: int, form: Any, summarize: bool) -> str:
    if array.ndim == 0:
        return form(array[()])
    if array.ndim == 1:
        return _vector(array, indent, form, summarize)
    edge = _options["edgeitems"]
    if summarize and array.shape[0] > 2 * edge:
        rows = [_nested(array[i], indent + 1, form, summarize) for i in range(edge)]
        rows.append("...")
        rows += [
            _nested(array[i], indent + 1, form, summarize)
            for i in range(array.shape[0] - edge, array.shape[0])
        ]
    else:
        rows = [_nested(array[i], indent + 1, form, summarize) for i in range(array.shape[0])]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def _elements(array: np.ndarray, indent: int) -> str:
    if (
        array.dtype not in (np.float32, np.float64, np.complex64, np.complex128)
        and array.dtype.kind not in "biu"
    ):
        array = array.astype(np.float32)  # f16 and bf16
    summarize = array.size > _options["threshold"]
    sample = _shown(array) if summarize else array
    form = ComplexFormatter(sample) if array.dtype.kind == "c" else Formatter(sample)
    return _nested(array, indent, form, summarize)


def tensor_text(self: Any, *, tensor_contents: str | None = None) -> str:
    """What ``repr(tensor)`` gives."""
    if recorder.capture is not None:
        found: str | None = recorder.capture.text(self)
        if found is not None:
            return found
    kind = type(self).__name__
    prefix = "tensor(" if kind in ("Tensor", "Parameter") else f"{kind}("
    indent = len(prefix)
    suffixes = _device(self)
    dtype = self.dtype
    usual = dtype.ir in (_types.default_dtype(), _types.default_dtype().complex) or dtype.name in (
        "int64",
        "bool",
    )
    if tensor_contents is not None:
        text = tensor_contents
    elif self.is_meta:
        suffixes += ["device='meta'", f"size={tuple(self.shape)}"]
        usual = dtype.ir is _types.default_dtype()
        text = "..."
    elif self.numel() == 0:
        if self.ndim != 1:
            suffixes.append(f"size={tuple(self.shape)}")
        usual = dtype.ir is _types.default_dtype()
        text = "[]"
    else:
        if not _options["edgeitems"]:  # nothing else would show the size of a summary
            suffixes.append(f"size={tuple(self.shape)}")
        text = _elements(self._array(), indent)
    if not usual:
        suffixes.append(f"dtype={dtype}")
    fn = self.grad_fn
    if fn is not None:
        suffixes.append(f"grad_fn=<{fn.name()}>")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + text, suffixes, indent)


def _device(self: Any) -> list[str]:
    """The suffix that tells where elements are, if not on the CPU."""
    return [f"device='{self.device}'"] if self.is_cuda else []


def sparse_text(self: Any) -> str:
    """What ``repr`` of a sparse COO tensor gives."""
    prefix = "tensor("
    indent = len(prefix)
    parts = []
    for name, part in (("indices", self._indices()), ("values", self._values())):
        head = f"{name}=tensor("
        shown = _elements(part._array(), indent + len(head)) if part.numel() else "[]"
        parts.append(head + shown + ("" if part.numel() else f", size={tuple(part.shape)}") + ")")
    suffixes = [*_device(self), f"size={tuple(self.shape)}", f"nnz={self._nnz()}"]
    usual = (_types.default_dtype(), _types.default_dtype().complex)
    if self.dtype.ir not in usual and self.dtype.name not in ("int64", "bool"):
        suffixes.append(f"dtype={self.dtype}")
    suffixes.append(f"layout={self.layout}")
    fn = self.grad_fn
    if fn is not None:
        suffixes.append(f"grad_fn=<{fn.name()}>")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    body = (",\n" + " " * indent).join(parts)
    return _with_suffixes(prefix + body, suffixes, indent, new_line=True)


def _with_suffixes(text: str, suffixes: list[str], indent: int, new_line: bool = False) -> str:
    line_length = len(text) - text.rfind("\n") + 1
    for i, suffix in enumerate(suffixes):
        if (new_line and i == 0) or line_length + len(suffix) + 2 > _options["linewidth"]:
            text += ",\n" + " " * indent + suffix
            line_length = indent + len(suffix)
        else:
            text += ", " + suffix
            line_length += len(suffix) + 2
    return text + ")"
