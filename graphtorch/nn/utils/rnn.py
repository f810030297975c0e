"""Sequences of different lengths: padded, packed, and lists of tensors.

Packed data holds the steps of all sequences one after the other: at step t the rows of those that
are that long, the longest sequence first. `batch_sizes[t]` says how many these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..._deferred.tensor import Tensor
from ..._ops.accept import accepting
from ..._ops.base import FUNCTIONS
from ..._ops.creation import from_array
from ..._types import DTYPES
from ..functional import pad
from ..functional.recurrent import known_sizes


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Packed data [sum of lengths, *], batch sizes [longest], and the permutations to and from the
    order by length (None where the sequences came in that order). Made by `pack_padded_sequence`
    and `pack_sequence`.
    """

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:  # PackedSequence((data, batch_sizes))
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise AssertionError(
                    "Expected data to be a list or tuple of length 2: (data, batch_sizes)"
                )
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. Make a PackedSequence with pack_sequence "
                "or pack_padded_sequence, which see to that"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _each(self, change: Callable[[Tensor], Tensor]) -> PackedSequence:
        """With `change` applied to everything but the batch sizes, which stay on the CPU."""
        indices = (
            None if t is None else change(t) for t in (self.sorted_indices, self.unsorted_indices)
        )
        return type(self)(change(self.data), self.batch_sizes, *indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Data and indices moved, and the data cast, as ``Tensor.to`` does; itself where nothing
        changes."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        indices = self.sorted_indices, self.unsorted_indices
        moved = (None if t is None else t.to(data.device) for t in indices)
        return type(self)(data, self.batch_sizes, *moved)

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the CPU."""
        return self.to(*args, **{"device": "cpu", **kwargs})

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the current GPU."""
        return self.to(*args, **{"device": "cuda", **kwargs})

    def pin_memory(self) -> PackedSequence:
        """In page-locked memory."""
        return self._each(lambda t: t.pin_memory())

    def double(self) -> PackedSequence:
        """Data as float64."""
        return self.to(DTYPES["double"])

    def float(self) -> PackedSequence:
        """Data as float32."""
        return self.to(DTYPES["float"])

    def half(self) -> PackedSequence:
        """Data as float16."""
        return self.to(DTYPES["half"])

    def long(self) -> PackedSequence:
        """Data as int64."""
        return self.to(DTYPES["long"])

    def int(self) -> PackedSequence:
        """Data as int32."""
        return self.to(DTYPES["int"])

    def short(self) -> PackedSequence:
        """Data as int16."""
        return self.to(DTYPES["short"])

    def char(self) -> PackedSequence:
        """Data as int8."""
        return self.to(DTYPES["int8"])

    def byte(self) -> PackedSequence:
        """Data as uint8."""
        return self.to(DTYPES["uint8"])

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda

    def is_pinned(self) -> bool:
        """Whether the data is in page-locked memory."""
        return self.data.is_pinned()


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation [N] that undoes `permutation`; None for None."""
    if permutation is None:
        return None
    places = FUNCTIONS["arange"](
        0, permutation.numel(), dtype=permutation.dtype, device=permutation.device
    )
    return FUNCTIONS["empty_like"](permutation).scatter_(0, permutation, places)


# ------------------------------------------------------------------------------------------ packing


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack the first ``lengths[n]`` steps of each sequence of input [T, N, *] ([N, T, *] with
    batch_first).

    Raises:
        RuntimeError: a length is 0 or less or larger than T, there is not one for each sequence, or
            they do not fall although `enforce_sorted` asks for it.
    """
    if isinstance(lengths, str):
        raise TypeError("new(): invalid data type 'str'")
    if isinstance(lengths, (int, float)) or (isinstance(lengths, Tensor) and lengths.ndim != 1):
        raise RuntimeError(
            "'lengths' argument should be a 1D CPU int64 tensor, but got "
            f"{getattr(lengths, 'ndim', 0)}D"
        )
    given = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if any(isinstance(n, Tensor) and n.numel() != 1 for n in given):
        raise TypeError("only integer tensors of a single element can be converted to an index")
    sizes = np.asarray([int(n) for n in given], np.int64)
    order = None
    if not enforce_sorted:
        at = np.argsort(-sizes, kind="stable")
        sizes = sizes[at]
        order = from_array(at, place=input.device)
        input = input.index_select(0 if batch_first else 1, order)
    steps = input.transpose(0, 1) if batch_first else input
    _check_lengths(steps, sizes, batch_first)
    batch = sizes[None, :] > np.arange(int(sizes[0]))[:, None]
    rows = np.flatnonzero(batch)
    flat = steps[: int(sizes[0])].reshape(batch.size, *steps.shape[2:])
    return PackedSequence(
        flat.index_select(0, from_array(rows, place=flat.device)),
        from_array(batch.sum(1)),
        order,
        None,
    )


def _check_lengths(steps: Tensor, sizes: np.ndarray, batch_first: bool) -> None:
    if steps.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if len(sizes) != steps.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} "
            f"(batch_size={steps.shape[1]})"
        )
    if (sizes <= 0).any():
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in "
            "'lengths' that is <= 0"
        )
    if (np.diff(sizes) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is "
            "True. You can pass `enforce_sorted=False` to pack_padded_sequence "
            "and/or pack_sequence to sidestep this requirement if you do not need "
            "ONNX exportability."
        )
    if sizes[0] > steps.shape[0]:
        raise RuntimeError(
            f"a sequence of length {sizes[0]} is longer than the input of shape "
            f"{list(steps.transpose(0, 1).shape if batch_first else steps.shape)}"
        )


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The opposite of `pack_padded_sequence`: padded [T, N, *] (or [N, T, *]) and the lengths [N].

    Args:
        total_length: the number of steps T; that of the longest sequence by default.
    """
    sizes = known_sizes(sequence.batch_sizes)
    longest = len(sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being "
            f"{longest}"
        )
    batch = np.arange(sizes[0])[None, :] < sizes[:, None]
    rows = np.where(batch, (np.cumsum(sizes) - sizes)[:, None] + np.arange(sizes[0])[None, :], 0)
    data = sequence.data
    padded = data.index_select(0, from_array(rows.reshape(-1), place=data.device))
    padded = padded.reshape(*rows.shape, *data.shape[1:])
    mask = from_array(batch.reshape(*batch.shape, *[1] * (data.dim() - 1)), place=data.device)
    padded = FUNCTIONS["where"](mask, padded, _fill(padding_value, data))
    if total_length is not None and total_length > longest:
        padded = _lengthened(padded, total_length, padding_value, "right")
    lengths = from_array(batch.sum(0))
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu()]
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def _fill(value: float, data: Tensor) -> Tensor:
    return data.new_full((), value)


def pack_sequence(sequences: list[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of tensors [L, *], the longest first unless `enforce_sorted` is off."""
    lengths = [v.size(0) for v in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The opposite of `pack_sequence`."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


# ------------------------------------------------------------------------------------------ padding


def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors [L, *] of different lengths as one [T, N, *] ([N, T, *] with batch_first), filled up
    with `padding_value` on `padding_side` ("right" or "left")."""
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    given = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    for i, s in enumerate(given):
        if not isinstance(s, Tensor):
            raise TypeError(
                f"expected Tensor as element {i} in argument 0, but got {type(s).__name__}"
            )
    first, longest = given[0], max(s.size(0) for s in given)
    for s in given:
        if s.shape[1:] != first.shape[1:]:
            raise RuntimeError(
                f"pad_sequence: all sequences must agree in every size but the first, but got "
                f"{list(first.shape)} and {list(s.shape)}"
            )
    equal = [_lengthened(s.to(first.dtype), longest, padding_value, padding_side) for s in given]
    return FUNCTIONS["stack"](equal, 0 if batch_first else 1)


def _lengthened(x: Tensor, length: int, value: float, side: str) -> Tensor:
    """`x` with its first size filled up to `length`."""
    missing = length - x.size(0)
    if not missing:
        return x
    return pad(
        x, [0] * (2 * x.dim() - 2) + ([missing, 0] if side == "left" else [0, missing]), value=value
    )


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The first ``lengths[n]`` steps of each sequence of a padded [T, N, *] ([N, T, *] with
    batch_first)."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    if len(lengths) != rows.shape[0]:
        raise ValueError(
            f"expected one length for each of {rows.shape[0]} sequences, but got {len(lengths)}"
        )
    return [row[:length] for row, length in zip(rows.unbind(0), lengths.tolist(), strict=True)]


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

for _name in __all__:
    globals()[_name] = accepting(_name, globals()[_name], __name__)
