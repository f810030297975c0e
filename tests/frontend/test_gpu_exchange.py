"""Memory of GPUs that other libraries share, by DLPack and ``__cuda_array_interface__``.

No GPU is needed: the emulated device exchanges with itself, and a pretended one (fake_cupy.py) with
what stands for another library here, whose arrays are NumPy's over the pretended memory.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fake_cupy
import graphtorch as torch
from emulated_gpu import emulated_gpu
from fake_gpu import fake_gpu
from graphtorch._deferred.door import device_of
from graphtorch._files import capsules
from graphtorch._types import gpu
from graphtorch.backends.gpu import emulated

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated device needs a compiler"
)
GPU = (2, 0)
DTYPES = ["bool", "uint8", "int16", "int64", "float16", "bfloat16", "float32", "complex64"]


@pytest.fixture(params=["emulated", "cupy"])
def either(request: pytest.FixtureRequest) -> Iterator[str]:
    with emulated_gpu() if request.param == "emulated" else fake_gpu():
        yield request.param


@pytest.fixture
def machine() -> Iterator[fake_cupy.Machine]:
    with fake_gpu() as found:
        yield found


class Foreign:
    """An array of another library in the memory of the pretended GPU."""

    def __init__(self, array: np.ndarray, version: Any = None, name: tuple[int, int] = GPU):
        self.array, self.version, self.name = array, version, name
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.name

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        if options and self.version is None:
            raise TypeError("an old library")
        self.streams.append(stream)
        return capsules.capsule_of(self.array, self.version, self.name)


def taken(x: Any, **options: Any) -> np.ndarray:
    """What another library sees of a tensor: the memory itself."""
    return capsules.array_in(x.__dlpack__(**options))


# ------------------------------------------------------------------------------------------ sharing


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_both_sides_see_writes(either: str, version: Any) -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    y = torch.from_dlpack(x.__dlpack__(max_version=version))
    assert y.device == x.device and y.shape == (2, 3) and y.tolist() == x.tolist()
    x[0, 0] = 7
    assert y[0].tolist() == [7, 1, 2]
    y.mul_(2)
    assert x.tolist() == [[14, 2, 4], [6, 8, 10]]
    part = torch.from_dlpack(x.t()[1:].__dlpack__(max_version=version))
    assert part.stride() == (1, 3) and part.tolist() == [[2, 8], [4, 10]]
    part[1].zero_()
    assert x.tolist() == y.tolist() == [[14, 2, 0], [6, 8, 0]]


def test_what_was_read_before_a_write_stays(either: str) -> None:
    """Operations that are recorded, and run later, read what was there when they were asked for."""
    x = torch.ones(3, device="cuda")
    early = x * 2
    y = torch.from_dlpack(x.__dlpack__())
    late, copy = y * 3, x.clone()
    y.fill_(5)
    assert early.tolist() == [2] * 3 and late.tolist() == [3] * 3
    assert copy.tolist() == [1] * 3 and x.tolist() == [5] * 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types(either: str, dtype: str) -> None:
    x = torch.tensor([0, 1, 1], device="cuda").to(getattr(torch, dtype))
    y = torch.from_dlpack(x.__dlpack__())
    assert y.dtype is x.dtype and y.cpu().tolist() == x.cpu().tolist()
    assert taken(x).dtype == x.cpu()._array().dtype


def test_no_elements_and_one(either: str) -> None:
    for x in (torch.ones(2, 0, 3, device="cuda"), torch.tensor(4.0, device="cuda")):
        y = torch.from_dlpack(x.__dlpack__())
        assert y.shape == x.shape and y.tolist() == x.tolist() and y.is_cuda


def test_sharing_ends_with_who_shares(either: str) -> None:
    """Then operations read the memory where it is, and writes replace it, as before."""
    x = torch.ones(4, device="cuda")
    y = torch.from_dlpack(x.__dlpack__())
    storage = x._storage
    assert storage.read() is not storage.value  # a copy
    del y
    gc.collect()
    torch.cuda.synchronize()  # what was asked for of the memory has happened: it is let go
    assert storage.read() is storage.value and storage.host is None


def test_memory_lives_as_long_as_it_is_used(either: str) -> None:
    y = torch.from_dlpack(torch.full((1000,), 3.0, device="cuda").__dlpack__())
    gc.collect()
    other = [torch.full((1000,), float(i), device="cuda") + 1 for i in range(3)]
    torch.cuda.synchronize()
    assert y.tolist() == [3] * 1000 and other
    del y
    gc.collect()
    torch.cuda.synchronize()
    gc.collect()
    before = torch.cuda.memory_allocated()
    del other
    gc.collect()
    assert torch.cuda.memory_allocated() < before


def test_compiled_functions_read_and_write_shared_memory(either: str) -> None:
    x, total = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    theirs = torch.from_dlpack(x.__dlpack__()), torch.from_dlpack(total.__dlpack__())

    @torch.compile
    def step() -> Any:
        total.add_(x)
        return x * 2

    for i in range(1, 4):
        theirs[0].fill_(i)
        assert step().tolist() == [2 * i] * 3
    assert theirs[1].tolist() == total.tolist() == [6] * 3


def test_gradients_flow_through_what_was_imported(either: str) -> None:
    x = torch.ones(3, device="cuda")
    weight = torch.from_dlpack(x.__dlpack__()).requires_grad_()
    (weight * weight).sum().backward()
    assert weight.grad.tolist() == [2] * 3
    with torch.no_grad():
        weight -= 0.5 * weight.grad
    assert x.tolist() == [0] * 3


# --------------------------------------------------------------------------------- other libraries


def test_others_see_the_memory_itself(machine: fake_cupy.Machine) -> None:
    x = torch.zeros(2, 3, device="cuda")
    assert x.__dlpack_device__() == GPU and capsules.device_in(x.__dlpack__()) == GPU
    seen = taken(x)
    assert seen.ctypes.data == x.data_ptr()
    x.add_(1)
    assert (seen == 1).all()
    seen[1] = 5
    assert x.sum().item() == 18
    assert capsules.device_in(x.__dlpack__(max_version=(1, 0))) == GPU
    copied = taken(x, copy=True)
    x.zero_()
    assert copied.sum() == 18 and not seen.any()


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_the_memory_of_others(machine: fake_cupy.Machine, version: Any) -> None:
    theirs = Foreign(np.arange(12, dtype=np.float32).reshape(3, 4), version)
    x = torch.from_dlpack(theirs)
    assert theirs.streams == [device_of(gpu(0)).stream] and x.device.type == "cuda"
    assert (
        x.data_ptr() == theirs.array.ctypes.data and capsules.device_in(theirs.__dlpack__()) == GPU
    )
    x[1] = -1
    torch.cuda.synchronize()
    assert (theirs.array[1] == -1).all()
    doubled = x * 2
    theirs.array[0] = 9
    assert x[0].tolist() == [9] * 4 and doubled[0].tolist() == [0, 2, 4, 6]
    view = torch.from_dlpack(Foreign(theirs.array.T[1:, ::2], version))
    assert view.stride() == (1, 8) and view.tolist() == theirs.array.T[1:, ::2].tolist()
    view.zero_()
    assert not theirs.array.T[1:, ::2].any() and theirs.array[1, 1] == -1


def test_memory_that_must_not_be_written_to_is_copied(machine: fake_cupy.Machine) -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    x = torch.from_dlpack(Foreign(array, (1, 0)))
    x.add_(1)
    assert x.tolist() == [2] * 3 and (array == 1).all()
    with pytest.raises(BufferError, match="must not be written to"):
        torch.from_dlpack(Foreign(array, (1, 0)), copy=False)


def test_owners_are_kept_until_the_queue_is_done(machine: fake_cupy.Machine) -> None:
    """What reads the memory may not have run when the last tensor over it goes."""

    class Owner(np.ndarray):
        gone = False

        def __del__(self) -> None:
            Owner.gone = True

    x = torch.from_dlpack(Foreign(np.ones(3, np.float32).view(Owner)))
    y = x * 2
    torch.cuda.synchronize()
    del x
    gc.collect()
    assert not Owner.gone
    torch.cuda.synchronize()
    gc.collect()
    assert Owner.gone and y.tolist() == [2] * 3


@pytest.mark.parametrize(
    ("stream", "waits"),
    [(-1, []), (None, []), (1, []), (2, ["stream 2 waits"]), (4096, ["stream 4096 waits"])],
)
def test_streams_wait_for_what_was_asked_for(
    machine: fake_cupy.Machine, stream: Any, waits: list[str]
) -> None:
    """The legacy default one does so by itself, as it does for all that block."""
    x = torch.ones(3, device="cuda") * 2
    machine.calls.clear()
    x.__dlpack__(stream=stream)
    assert [c for c in machine.calls if c.startswith("stream")] == waits
    assert any(c.startswith("launch") for c in machine.calls)
    if waits:
        assert machine.calls[-2:] == ["event", *waits]


def test_the_cuda_array_interface(machine: fake_cupy.Machine) -> None:
    x = torch.arange(6.0, device="cuda").reshape(2, 3)
    found = x.__cuda_array_interface__
    assert found == {
        "typestr": "<f4",
        "shape": (2, 3),
        "strides": None,
        "data": (x.data_ptr(), False),
        "version": 2,
    }
    seen = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * 6).from_address(found["data"][0]))
    gc.collect()
    x.add_(1)  # lands there, though nobody says that it is still looked at
    assert seen.tolist() == [1, 2, 3, 4, 5, 6]
    seen[0] = 10
    assert x[0, 0].item() == 10
    part = x.t()[1:]
    assert part.__cuda_array_interface__["strides"] == (4, 12)
    assert part.__cuda_array_interface__["data"][0] == found["data"][0] + 4
    assert x.bfloat16().__cuda_array_interface__["typestr"] == "<V2"
    assert x.bool().__cuda_array_interface__["typestr"] == "|b1"
    assert torch.ones(0, device="cuda").__cuda_array_interface__["data"] == (0, False)
    with pytest.raises(RuntimeError, match=r"on Variable that requires grad"):
        x.requires_grad_().__cuda_array_interface__  # noqa: B018
    assert not hasattr(torch.ones(2), "__cuda_array_interface__")


class Told:
    """An array of another library in the memory of the pretended GPU, that says where it is."""

    def __init__(self, array: np.ndarray, **said: Any):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "strides": None if array.flags.c_contiguous else array.strides,
            "data": (array.ctypes.data, False),
            "version": 3,
            "stream": None,
        } | said


def test_arrays_of_other_libraries_become_tensors(machine: fake_cupy.Machine) -> None:
    """`as_tensor` shares their memory, `tensor` copies it, and both stay on the GPU."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    shared, copied = torch.as_tensor(Told(array)), torch.tensor(Told(array))
    assert shared.is_cuda and copied.is_cuda and shared.data_ptr() == array.ctypes.data
    array[0, 0] = 50
    assert shared[0, 0].item() == 50 and copied[0, 0].item() == 0
    shared[0, 1] = 60
    assert array[0, 1] == 60 and copied[0, 1].item() == 1
    part = torch.asarray(Told(array.T[1:3]))
    assert part.stride() == (1, 4) and part.tolist() == array.T[1:3].tolist()
    part.zero_()
    assert not array[:, 1:3].any()
    told = torch.as_tensor(Told(np.ones(2, np.float32)))
    gc.collect()
    assert told.tolist() == [1, 1]
    assert torch.as_tensor(Told(np.ones((0, 3), np.int64))).shape == (0, 3)


def test_arrays_of_other_libraries_are_converted_and_moved(machine: fake_cupy.Machine) -> None:
    given = Told(np.array([1.5, 2.5]))
    assert torch.as_tensor(given).dtype is torch.float64
    half = torch.as_tensor(given, dtype=torch.float16)
    assert half.is_cuda and half.dtype is torch.float16 and half.tolist() == [1.5, 2.5]
    for make in (torch.as_tensor, torch.tensor):
        found = make(given, dtype=torch.float32, device="cpu")
        assert found.device.type == "cpu" and found.tolist() == [1.5, 2.5]
    assert torch.tensor(given, requires_grad=True).requires_grad


@pytest.mark.parametrize(("stream", "waits"), [(None, False), (1, False), (2, True), (4096, True)])
def test_their_streams_are_waited_for(
    machine: fake_cupy.Machine, stream: int | None, waits: bool
) -> None:
    ours = device_of(gpu()).stream
    machine.handles.update({2: fake_cupy.Stream(), 4096: fake_cupy.Stream()})
    machine.calls.clear()
    torch.as_tensor(Told(np.ones(3, np.float32), stream=stream))
    assert machine.calls == (["event", f"stream {ours} waits"] if waits else [])


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"data": (64, True)}, TypeError, "the read only flag is not supported"),
        ({"typestr": ">f4"}, TypeError, "no tensor has such"),
        ({"typestr": "<V2"}, TypeError, "no tensor has such"),
        ({"strides": (6,)}, ValueError, "not a multiple of the element byte size"),
        ({"strides": (-4,)}, ValueError, "negative strides"),
    ],
)
def test_arrays_that_no_tensor_can_be(
    machine: fake_cupy.Machine, said: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        torch.as_tensor(Told(np.ones(3, np.float32), **said))


def test_the_emulated_gpu_has_no_memory_of_other_libraries() -> None:
    with emulated_gpu(), pytest.raises(RuntimeError, match="is the emulated GPU"):
        torch.as_tensor(Told(np.ones(3, np.float32)))


# ------------------------------------------------------------------------------------------- places


def test_between_the_host_and_a_gpu(either: str) -> None:
    x = torch.arange(3.0, device="cuda")
    assert torch.from_dlpack(x, device="cpu").tolist() == [0, 1, 2]
    there = torch.from_dlpack(np.ones(2, np.float32), device="cuda")
    assert there.is_cuda and there.tolist() == [1, 1]
    with pytest.raises(ValueError, match="without copying"):
        torch.from_dlpack(x, device="cpu", copy=False)
    on_host = taken(x, dl_device=(1, 0))
    assert on_host.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="without copying"):
        x.__dlpack__(dl_device=(1, 0), copy=False)
    own = torch.from_dlpack(x, copy=True)
    x.zero_()
    assert own.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.requires_grad_().__dlpack__(), BufferError, "require gradient"),
        (lambda x: torch.from_dlpack(x.requires_grad_()), BufferError, "require gradient"),
        (lambda x: x.__dlpack__(stream=0), AssertionError, "unsupported stream on CUDA: 0"),
        (lambda x: x.__dlpack__(stream="1"), TypeError, "stream must be"),
        (lambda x: x.__dlpack__(dl_device=(2, 7)), ValueError, "there is no device"),
        (lambda x: x.to_sparse().__dlpack__(), BufferError, "layout"),
        (lambda x: torch.from_dlpack(Foreign(np.ones(1), None, (2, 7))), BufferError, "cuda:7"),
        (lambda x: torch.ones(1).__dlpack__(stream=1), AssertionError, "on cpu"),
        (lambda x: twice(x.__dlpack__()), RuntimeError, "consumed once"),
    ],
)
def test_refusals(either: str, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.ones(3, device="cuda"))


def twice(capsule: Any) -> None:
    torch.from_dlpack(capsule)
    torch.from_dlpack(capsule)


def test_other_libraries_refuse_the_emulated_device() -> None:
    """Its memory is the host's: who took it for a GPU's would crash."""
    with emulated_gpu():
        x = torch.ones(3, device="cuda")
        assert x.__dlpack_device__() == (12, 0) and not hasattr(x, "__cuda_array_interface__")
        with pytest.raises((RuntimeError, BufferError)):
            np.from_dlpack(x)
        with pytest.raises(BufferError, match="the emulated GPU, whose memory is the host's"):
            torch.from_dlpack(Foreign(np.ones(1)))
    with fake_gpu(), pytest.raises(BufferError, match="is no memory of cuda:0"):
        torch.from_dlpack(Foreign(np.ones(1), None, (12, 0)))
