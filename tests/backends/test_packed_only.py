"""Weights that are in packed memory only: what may be put away, and how it comes back."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contracting import graph_of
from graphtorch.backends import packed_only
from graphtorch.backends.buffer import Buffer, Held, size_class
from graphtorch.backends.llvm import compiler
from graphtorch.backends.llvm.executable import Executable
from graphtorch.backends.llvm.prologue import Packed
from graphtorch.backends.packed_only import PackedOnly
from graphtorch.backends.record import Record
from graphtorch.ir import ops
from graphtorch.ir.dtype import bf16, f32, f64
from graphtorch.ir.graph import Value

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there pages are given back")


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_only, "LEAST", 1)


class Holder:
    """What a `Leaf` is to a buffer."""

    def __init__(self, buffer: Buffer):
        self.buffer = buffer


def turned(x: Value) -> Value:
    return ops.permute(x, dims=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def times(x: Value, w: Value) -> Value:
    return ops.matmul(x, w)


def times_turned(x: Value, w: Value) -> Value:
    return ops.matmul(x, turned(w))


def convolved(x: Value, w: Value) -> Value:
    return ops.conv(x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)


def bits(shape: tuple[int, ...], dtype: Any = np.float32) -> Buffer:
    """Elements of all kinds: among them NaNs that signal, and others with a payload."""
    rng = np.random.default_rng(7)
    made = Buffer.empty(packed_only_dtype(dtype), shape)
    array = made.numpy()
    array[...] = rng.standard_normal(shape)
    words = array.reshape(-1).view(f"u{array.itemsize}")
    words[:: max(1, words.size // 5)] = {4: 0x7FA00001, 8: 0x7FF4000000000001}[array.itemsize]
    return Buffer(made.address, made.dtype, shape, made.owner.base.buffer.owner)


def packed_only_dtype(dtype: Any) -> Any:
    return {np.float32: f32, np.float64: f64}[dtype]


def compiled(f: Callable[..., Value], *shapes: tuple[int, ...], dtype: Any = f32) -> Executable:
    made = compiler.compile(graph_of(f, list(shapes), dtype), stable=(1,))
    assert isinstance(made, Executable)
    made._packed, made.checked = Packed(made.record, made._linked), None  # others may have used it
    return made


def called(program: Executable, weight: Buffer) -> tuple[Holder, Held]:
    """The holder of a weight, and the state, after a call that packed it."""
    holder = Holder(weight)
    held = Held([weight], [holder])
    a = program.record.inputs[0]
    shape: Any = a.shape
    x = Buffer.empty(weight.dtype, shape)
    x.numpy()[...] = 1
    del weight
    program([x], held)
    return holder, held


def raw(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


CASES = [
    (times, (8, 64), (64, 100)),
    (times, (40, 257), (257, 70)),
    (times_turned, (8, 64), (100, 64)),
    (times_turned, (130, 70), (257, 70)),
    (times_turned, (16, 33), (65, 33)),
    (times_turned, (16, 96), (7, 96)),
    (times, (3, 16, 24), (3, 24, 48)),
    (convolved, (1, 16, 12, 12), (32, 16, 3, 3)),
    (convolved, (2, 5, 9, 9), (37, 5, 3, 3)),
]


@pytest.mark.parametrize(("f", "x", "w"), CASES)
def test_bits_come_back(f: Any, x: Any, w: Any) -> None:
    program = compiled(f, x, w)
    if not program.record.rearranged:
        assert f is not times_turned  # read where it lies, or transformed
        pytest.skip("no copy has all of it")
    weight = bits(w)
    want = raw(weight.address, weight.nbytes)
    held = called(program, weight)[1]
    assert type(weight) is Buffer  # the name above is a reference too many
    del held, weight

    program = compiled(f, x, w)
    holder, _ = called(program, bits(w))
    assert type(holder.buffer) is PackedOnly
    place = packed_only._address(holder.buffer)
    first, last = -(-place // 4096) * 4096, (place + len(want)) // 4096 * 4096
    assert raw(first, max(0, last - first)) == bytes(max(0, last - first))  # it is gone
    assert raw(holder.buffer.address, len(want)) == want
    assert type(holder.buffer) is Buffer


def test_what_does_not_copy_all_elements_is_not_taken_for_a_copy() -> None:
    def half(x: Value, w: Value) -> Value:
        part = ops.slice(w, start=(0, 0), stop=(64, 50), step=(1, 1))
        return ops.matmul(x, part)

    def twice(x: Value, w: Value) -> Value:
        return ops.add(ops.matmul(x, w), ops.mul(x, w))

    def scaled(x: Value, w: Value) -> Value:
        return ops.matmul(x, ops.mul(w, w))

    for f in (half, scaled):
        assert not compiled(f, (64, 64), (64, 100)).record.rearranged
    assert not compiled(times_turned, (64, 64), (96, 64), dtype=bf16).record.rearranged
    assert not compiled(twice, (64, 64), (64, 64)).record.rearranged


def test_a_weight_that_somebody_else_knows_stays() -> None:
    def again(make: Callable[[Buffer], Any]) -> bool:
        program = compiled(times_turned, (64, 64), (96, 64))
        weight = bits((96, 64))
        known = make(weight)
        holder = Holder(weight)
        held = Held([weight], [holder])
        del weight
        x = Buffer.empty(f32, (64, 64))
        program([x], held)
        assert known is None or known
        return type(holder.buffer) is PackedOnly

    assert again(lambda w: None)
    assert not again(lambda w: w)
    assert not again(lambda w: [w])
    assert not again(lambda w: w.part(8, (4, 4)))
    assert not again(lambda w: w.again())
    assert not again(lambda w: [w.numpy()])
    assert not again(lambda w: [w.expose()])
    assert not again(lambda w: packed_only.keep(w))


def test_weights_that_are_wanted_back_again_and_again_stay() -> None:
    program = compiled(times_turned, (64, 64), (128, 64))
    for _ in range(4):
        assert type(called(program, bits((128, 64)))[0].buffer) is PackedOnly
    found = []
    for _ in range(4):
        holder, _ = called(program, bits((128, 64)))
        found.append(type(holder.buffer))
        holder.buffer.numpy()
    assert found == [PackedOnly, PackedOnly, Buffer, Buffer]


def test_a_handler_that_asks_in_the_middle_finds_the_elements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one of a signal would, between the steps of putting away."""
    program = compiled(times_turned, (64, 64), (160, 64))
    seen = []
    alone = packed_only._is_alone
    want = raw((w := bits((160, 64))).address, w.nbytes)
    del w

    def asks(buffer: Buffer) -> bool:
        found = alone(buffer)
        seen.append(raw(buffer.address, buffer.nbytes))
        return found

    monkeypatch.setattr(packed_only, "_is_alone", asks)
    holder, _ = called(program, bits((160, 64)))
    assert seen == [want]
    assert type(holder.buffer) is Buffer  # it came back, so it stays
    assert raw(holder.buffer.address, len(want)) == want


def test_a_finalizer_that_asks_at_the_last_moment_finds_the_elements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = compiled(times_turned, (64, 64), (160, 64))
    madvise, seen = packed_only._madvise, []
    weight = bits((160, 64))
    want = raw(weight.address, weight.nbytes)
    holder = Holder(weight)
    held = Held([weight], [holder])
    del weight

    def late(*pages: Any) -> Any:
        seen.append(raw(holder.buffer.address, len(want)))
        return madvise(*pages)

    monkeypatch.setattr(packed_only, "_madvise", late)
    program([Buffer.empty(f32, (64, 64))], held)
    assert seen == [want]
    assert type(holder.buffer) is Buffer
    assert raw(holder.buffer.address, len(want)) == want


def test_records_keep_it() -> None:
    program = compiled(times_turned, (16, 33), (65, 33))
    text = json.dumps(program.record.to_json())
    assert Record.from_json(json.loads(text)).rearranged == program.record.rearranged
    assert program.record.rearranged


def test_memory_of_small_blocks_is_not_torn() -> None:
    """Only whole pages go: what lies beside in the same page stays."""
    assert size_class(10) == 64
    neighbours = [bits((96, 64)) for _ in range(8)]
    want = [raw(b.address, b.nbytes) for b in neighbours]
    program = compiled(times_turned, (64, 64), (96, 64))
    holder, _ = called(program, neighbours.pop(3))
    del want[3]
    assert type(holder.buffer) is PackedOnly
    assert [raw(b.address, b.nbytes) for b in neighbours] == want
