"""Ahead-of-time libraries: the C ABI as C sees it, results, refusals and weights."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import dltensors as dl
import graphtorch as torch
from aot_models import (
    BATCH,
    Cnn,
    Mlp,
    assert_close,
    cnn_of,
    image,
    library,
    mlp_of,
    needs_cc,
    scores,
    words_of,
)
from dltensors import Raw, tensor
from graphtorch import aot, nn
from graphtorch.aot import loader
from graphtorch.backends.llvm.processor import named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot")


@pytest.fixture(scope="module")
def mlp(folder):
    return mlp_of(folder)


@pytest.fixture(scope="module")
def cnn(folder):
    return cnn_of(folder)


@pytest.fixture(scope="module")
def words(folder):
    return words_of(folder)


@pytest.fixture
def raw(cnn):
    made = Raw(cnn[1].path)
    yield made
    made.destroy()


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_one_library_serves_every_batch(mlp, cnn, n):
    for (made, compiled), shape in ((mlp, (n, 6)), (cnn, (n, 1, 8, 8))):
        x = torch.randn(*shape)
        with compiled.load() as library:
            (found,) = library(x.numpy())
        assert_close(found, made(x))


def test_results_are_the_same_at_every_call(raw):
    x, first, again = image(7), scores(7), scores(7)
    for y in (first, again):
        assert raw.run([tensor(x)], [tensor(y)]) == dl.OK, raw.error()
    np.testing.assert_array_equal(first, again)


def test_several_inputs_and_outputs(words):
    made, compiled = words
    given = np.array([[1, 2, 9], [0, 0, 5]]), np.array([[1, 1, 0], [1, 0, 1]], np.float32)
    with compiled.load() as library:
        found = library(*given)
    want = made(*map(torch.tensor, given))
    for a, b in zip(found, want, strict=True):
        assert_close(a, b)


def test_half_and_integer_types(folder):
    def mixed(h, b, flags):
        return h * 2, (b + 1).to(torch.float32), torch.logical_not(flags)

    example = (
        torch.ones(3, dtype=torch.float16),
        torch.ones(3, dtype=torch.uint8),
        torch.tensor([True, False, True]),
    )
    compiled = aot.compile(mixed, example, folder / "mixed.so")
    with compiled.load() as library:
        found = library(*[t.numpy() for t in example])
    assert [a.dtype.name for a in found] == ["float16", "float32", "bool"]
    assert [a.tolist() for a in found] == [[2, 2, 2], [2, 2, 2], [False, True, False]]


def test_unsigned_types(folder):
    """Inputs, weights, constants and results; other signedness or width is refused."""
    table = torch.tensor([2**63, 7], dtype=torch.uint64)

    def unsigned(a, b, c):
        return a // 3, torch.maximum(b, b[:1]) >> 1, c + table, (c > table).to(torch.uint16)

    example = [
        torch.tensor([1, 2 ** (8 * d.itemsize) - 1], dtype=d)
        for d in (torch.uint16, torch.uint32, torch.uint64)
    ]
    compiled = aot.compile(unsigned, tuple(example), folder / "unsigned.so")
    with compiled.load() as library:
        found = library(*[t.numpy() for t in example])
        assert [i["dtype"] for i in library.metadata["inputs"]] == ["uint16", "uint32", "uint64"]
    assert [a.dtype.name for a in found] == ["uint16", "uint32", "uint64", "uint16"]
    assert [a.tolist() for a in found] == [[0, 21845], [0, 2**31 - 1], [2**63 + 1, 6], [0, 1]]
    raw = Raw(folder / "unsigned.so")
    arrays = [t.numpy() for t in example]
    results = [tensor(np.empty(2, a.dtype)) for a in found]
    assert raw.run([*map(tensor, arrays)], results) == dl.OK
    for other in (np.int32, np.uint64):
        wrong = [arrays[0], arrays[1].astype(other), arrays[2]]
        assert raw.run([*map(tensor, wrong)], results) == dl.DTYPE
        assert "uint32" in raw.error()
    raw.destroy()


def test_results_that_are_inputs_views_or_constants(folder):
    def several(x, s):
        y = x + 1
        return x, y, y, x.t(), torch.ones(3), x[0] * s

    compiled = aot.compile(
        several,
        (torch.ones(2, 3), torch.tensor(2.0)),
        folder / "several.so",
        input_names=["a */ b\n", "50%s"],
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with compiled.load() as library:
        found = library(x, np.float32(3))
        with pytest.raises(ValueError, match=r"input 1 \('50%s'\): 1 dimensions"):
            library(x, x[0])
    for a, b in zip(found, (x, x + 1, x + 1, x.T, np.ones(3), x[0] * 3), strict=True):
        np.testing.assert_array_equal(a, b)
    header = compiled.header.read_text()
    assert header.count("/*") == header.count("*/")


def test_unbounded_batch_grows_its_memory(folder):
    made, compiled = library(
        folder, "grows.so", Mlp, torch.zeros(2, 6), dynamic={0: {0: torch.Dim("n")}}
    )
    raw = Raw(compiled.path)
    sizes = []
    for n in (3, 1000, 0, 20):
        x = torch.randn(n, 6)
        y = np.empty((n, 3), np.float32)
        assert raw.run([tensor(x.numpy())], [tensor(y)]) == dl.OK, raw.error()
        assert_close(y, made(x))
        sizes.append(raw.function("workspace_size", ctypes.c_size_t, ctypes.c_void_p)(raw.context))
    assert sizes == sorted(sizes)
    raw.destroy()


def test_row_major_strides_and_byte_offset_are_taken(cnn, raw):
    x = image()
    whole, room = np.concatenate([[0], x.ravel()]).astype(np.float32), np.zeros(12, np.float32)
    # one element off: aligned as floats need it and no more; the stride of a size of 1 does not
    # count
    given = tensor(whole, ndim=4, shape=[2, 1, 8, 8], strides=[64, 9, 8, 1], byte_offset=4)
    taken = tensor(room, ndim=2, shape=[2, 5], byte_offset=4)
    assert raw.run([given], [taken]) == dl.OK, raw.error()
    assert_close(room[1:11].reshape(2, 5), cnn[0](torch.tensor(x)))
    assert room[0] == room[11] == 0


# ----------------------------------------------------------------------------------------- refusals


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


BAD_TENSORS = {
    "NULL data": ({"data": None}, dl.NULL, "NULL"),
    "NULL shape": ({"shape": None}, dl.NULL, "NULL"),
    "GPU": ({"device_type": 2}, dl.DEVICE, "device type 2"),
    "one dimension less": ({"ndim": 3}, dl.RANK, "3 dimensions, expected 4"),
    "negative rank": ({"ndim": -1}, dl.RANK, "-1 dimensions, expected 4"),
    "double": ({"bits": 64}, dl.DTYPE, "expected float32"),
    "integers": ({"code": 0}, dl.DTYPE, "expected float32"),
    "lanes": ({"lanes": 4}, dl.DTYPE, "4 lanes"),
    "fixed size": ({"shape": [2, 1, 8, 9]}, dl.SHAPE, "dimension 3 is 9, expected 8"),
    "negative size": ({"shape": [2, 1, -8, 8]}, dl.SHAPE, "dimension 2 is -8"),
    "empty batch": (
        {"shape": [0, 1, 8, 8]},
        dl.SHAPE,
        "dimension 0 is 0, expected a size from 1 to 64",
    ),
    "large batch": (
        {"shape": [65, 1, 8, 8]},
        dl.SHAPE,
        "dimension 0 is 65, expected a size from 1 to 64",
    ),
    "negative batch": ({"shape": [-1, 1, 8, 8]}, dl.SHAPE, "dimension 0 is -1"),
    "transposed": ({"strides": [64, 64, 1, 8]}, dl.LAYOUT, "row-major"),
    "broadcast": ({"strides": [0, 0, 8, 1]}, dl.LAYOUT, "stride 0 in dimension 0, expected 64"),
    "offset by a byte": ({"byte_offset": 1}, dl.ALIGNMENT, "4 bytes"),
}


@pytest.mark.parametrize("change", list(BAD_TENSORS))
def test_bad_input_is_refused(raw, change):
    changes, code, message = BAD_TENSORS[change]
    assert raw.run([tensor(image(), **changes)], [tensor(scores())]) == code
    assert message in raw.error() and "input 0 ('x')" in raw.error()
    assert raw.run([tensor(image())], [tensor(scores())]) == dl.OK and raw.error() == ""


def test_misaligned_data_is_refused(raw):
    assert raw.run([tensor(misaligned(image()))], [tensor(scores())]) == dl.ALIGNMENT
    assert raw.run([tensor(image())], [tensor(misaligned(scores()))]) == dl.ALIGNMENT
    assert "output 0 ('scores')" in raw.error()


OUTPUTS = {
    "batch": ((3, 5), dl.SHAPE, "dimension 0 is 3, expected 2"),
    "classes": ((2, 6), dl.SHAPE, "dimension 1 is 6, expected 5"),
    "rank": ((10,), dl.RANK, "1 dimensions, expected 2"),
}


@pytest.mark.parametrize("case", list(OUTPUTS))
def test_bad_output_is_refused(raw, case):
    shape, code, message = OUTPUTS[case]
    assert raw.run([tensor(image())], [tensor(np.empty(shape, np.float32))]) == code
    assert message in raw.error() and "output 0 ('scores')" in raw.error()


def test_counts_and_null_arrays(raw):
    x, y = tensor(image()), tensor(scores())
    assert raw.run([x, x], [y]) == dl.COUNT
    assert "2 inputs and 1 outputs given, expected 1 and 1" in raw.error()
    assert raw.run([x], [], (1, 0)) == dl.COUNT
    assert raw.run([x], [y], (-1, 1)) == dl.COUNT
    assert raw.run(None, [y], (1, 1)) == dl.NULL and raw.run([x], None, (1, 1)) == dl.NULL
    assert "NULL" in raw.error()
    assert raw.run([x], [y], context=None) == dl.NULL


def test_null_context_elsewhere(raw):
    assert raw.function("workspace_size", ctypes.c_size_t, ctypes.c_void_p)(None) == 0
    raw.function("destroy", None, ctypes.c_void_p)(None)
    assert raw.error(None) == ""


def test_index_out_of_range(words):
    raw = Raw(words[1].path)
    keep, sums, after = (
        np.ones((2, 3), np.float32),
        np.empty((2, 4), np.float32),
        np.empty((2, 3), np.int64),
    )
    for bad in (10, -1, 2**62):
        given = np.array([[1, 2, 3], [4, 5, bad]])
        code = raw.run([tensor(given), tensor(keep)], [tensor(sums), tensor(after)])
        assert code == dl.INDEX and "out of bounds for dimension 0 with size 10" in raw.error()
    given[1, 2] = 9
    assert raw.run([tensor(given), tensor(keep)], [tensor(sums), tensor(after)]) == dl.OK
    raw.destroy()
    with words[1].load() as library, pytest.raises(IndexError, match="out of bounds"):
        library(np.full((2, 3), 10), keep)


@needs_cc
def test_sizes_have_to_compare_as_the_examples_do(tmp_path):
    dims = {0: {1: torch.Dim("t", min=1)}}
    compiled = aot.compile(
        lambda x: x[:, :3] * 2, torch.ones(2, 5), tmp_path / "m.so", dynamic=dims
    )
    assert "t-3 >= 0" in compiled.header.read_text()
    with compiled.load() as library:
        assert library.metadata["conditions"] == ["t-3 >= 0"]
        for size in (3, 9):
            assert library(np.ones((2, size), np.float32))[0].tolist() == [[2, 2, 2]] * 2
        with pytest.raises(ValueError, match="sizes do not meet t-3 >= 0"):
            library(np.ones((2, 2), np.float32))


SIZES = {
    "turned": lambda x: torch.roll(x, (1, -1), (0, 1)),
    "every other": lambda x: x[::2, 1::2],
    "rounded up": lambda x: x[: -(-x.shape[0] // 2)],
    "windows": lambda x: x.view(x.shape[0] // 2, 2, x.shape[1] // 2, 2).transpose(1, 2),
    "last": lambda x: x[-1] - x[:, -1:],
}


@needs_cc
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_may_change(tmp_path, name):
    dims = {0: torch.Dim("h", min=1), 1: torch.Dim("w", min=1)}
    compiled = aot.compile(SIZES[name], torch.ones(4, 6), tmp_path / "m.so", dynamic={0: dims})
    with compiled.load() as library:
        for shape in ((4, 6), (2, 8), (10, 4)):
            x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            np.testing.assert_array_equal(library(x)[0], SIZES[name](torch.tensor(x)).numpy())


def test_two_inputs_of_one_size(folder):
    x = torch.ones(2, 3)
    compiled = aot.compile(
        lambda a, b: (a * b).sum(1),
        (x, x),
        folder / "pair.so",
        dynamic={"a": {0: BATCH}, "b": {0: BATCH}},
    )
    with compiled.load() as library:
        assert (
            library(np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))[0].tolist()
            == [3.0] * 5
        )
        with pytest.raises(ValueError, match=r"input 1 \('b'\): dimension 0 is 4, expected 5"):
            library(np.ones((5, 3), np.float32), np.ones((4, 3), np.float32))


# ------------------------------------------------------------------------------------------ weights


def test_external_weights_are_prepared(mlp):
    """The file has what the prologue makes in place of the weights that it is made of."""
    made, compiled = mlp
    stored = load_file(compiled.weights)
    assert "first.weight" not in stored and "second.weight" not in stored
    np.testing.assert_array_equal(stored["first.bias"], made.first.bias.detach().numpy())
    packed = stored["graphtorch.prepared"].view(np.float32)
    assert set(made.first.weight.detach().numpy().ravel()) <= set(packed)
    x = torch.randn(3, 6)
    with compiled.load() as loaded:
        assert_close(loaded(x.numpy())[0], made(x))


def stored_by(state: dict[str, Any], path: Path, padding: int = 0) -> Path:
    """A safetensors file of `state` with spaces behind its header."""
    torch.save_safetensors(state, path)
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    text = whole[8:length] + b" " * padding
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[length:])
    return path


@pytest.mark.parametrize("kind", [Mlp, Cnn])
def test_other_weights_of_the_same_shapes(kind, tmp_path):
    """They are given as the model has them: the prologue runs when they are loaded."""
    x = torch.zeros(2, 6) if kind is Mlp else torch.from_numpy(image())
    _, compiled = library(tmp_path, "m.so", kind, x, weights="external")
    torch.manual_seed(7)
    other = kind().eval()
    with torch.no_grad():
        for t in other.state_dict().values():
            if t.is_floating_point():
                t += 0.1 * torch.rand(t.shape)
    with compiled.load() as loaded:
        state = {name: other.state_dict()[name] for name in loaded.metadata["weights"]}
    with torch.no_grad():
        want = other(x)
    for padding in (0, 8, 64):
        file = stored_by(state, tmp_path / "other.safetensors", padding)
        with loader.load(compiled.path, weights=file) as loaded:
            assert_close(loaded(x.numpy())[0], want)


def test_weights_in_another_order_or_odd_places_are_refused(mlp, tmp_path):
    with mlp[1].load() as loaded:
        state = {name: mlp[0].state_dict()[name] for name in loaded.metadata["weights"]}
    good = stored_by(state, tmp_path / "good.safetensors").read_bytes()
    loader.load(mlp[1].path, weights=tmp_path / "good.safetensors").close()
    renamed = {name.replace("first", "third"): t for name, t in state.items()}
    stored_by(renamed, tmp_path / "renamed")
    stored_by(state, tmp_path / "odd", padding=3)
    (tmp_path / "short").write_bytes(good[:-4])
    (tmp_path / "long").write_bytes(good + bytes(4))
    (tmp_path / "length").write_bytes((1 << 62).to_bytes(8, "little") + good[8:])
    (tmp_path / "tiny").write_bytes(good[:8])
    (tmp_path / "empty").write_bytes(b"")
    for name in ("renamed", "odd", "short", "long", "length", "tiny", "empty"):
        with pytest.raises(OSError, match="is not the weights file"):
            loader.load(mlp[1].path, weights=tmp_path / name)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="two levels of an x86")
def test_weights_prepared_for_another_layout_are_refused(tmp_path):
    """As many bytes under the same names, in another order."""
    made = []
    for level in ("v2", "v4"):
        torch.manual_seed(0)
        target = named("x86_64-unknown-linux-gnu", f"x86-64-{level}")
        made.append(
            aot.compile(
                nn.Linear(96, 96, bias=False).eval(),
                torch.zeros(64, 96),
                tmp_path / f"{level}.so",
                name="m",
                weights="external",
                target=target,
            )
        )
    sizes = [m.weights.stat().st_size for m in made]
    assert sizes[0] == sizes[1], "choose a width that all levels' tiles divide"
    loader.load(made[0].path, "m", made[0].weights).close()
    with pytest.raises(OSError, match="is not the weights file"):
        loader.load(made[0].path, "m", made[1].weights)


def test_prepared_weights_are_mapped(tmp_path):
    """`create` neither copies nor computes: the pages are the file's."""
    torch.manual_seed(0)
    made = nn.Linear(1024, 2048).eval()
    compiled = aot.compile(made, torch.zeros(8, 1024), tmp_path / "m.so", weights="external")
    with compiled.load():
        for line in Path("/proc/self/maps").read_text().splitlines():
            if str(compiled.weights) in line:
                first, last = (int(x, 16) for x in line.split()[0].split("-"))
                assert line.split()[1] == "r--p" and last - first > 8 << 20
                break
        else:
            raise AssertionError("the file is not mapped")


def test_external_weights(mlp, folder):
    compiled = mlp[1]
    for path, message in (
        (None, "pass the path"),
        (folder / "nowhere", "cannot open"),
        (compiled.header, "is not the"),
    ):
        with pytest.raises(OSError, match=message):
            loader.load(compiled.path, weights=path)
    damaged = folder / "damaged.safetensors"
    data = bytearray(compiled.weights.read_bytes())
    data[20] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(OSError, match="is not the weights file"):
        loader.load(compiled.path, weights=damaged)


def test_embedded_weights_take_no_file(cnn):
    with pytest.raises(OSError, match="embedded, pass NULL"):
        loader.load(cnn[1].path, weights=cnn[1].path)
