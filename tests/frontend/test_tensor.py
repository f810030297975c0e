"""Storages, views, in-place writes, memory shared with NumPy, printing."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import graphtorch as torch
from graphtorch._deferred import programs, storage

VIEWS = {
    "view": lambda b: b.view(-1),
    "transpose": lambda b: b.transpose(0, 1),
    "slice": lambda b: b[:, 1:],
    "int": lambda b: b[0],
    "step": lambda b: b[..., ::2],
    "unsqueeze": lambda b: b.unsqueeze(1),
    "diagonal": lambda b: b.diagonal(0, 1, 2),
    "as_strided": lambda b: b.as_strided((2, 2), (1, 5), 3),
    "unfold": lambda b: b.unfold(2, 2, 2),
    "chunk": lambda b: torch.chunk(b, 2)[1],
    "chain": lambda b: b.permute(2, 0, 1)[1:3].transpose(0, 2)[..., :1].squeeze(-1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_write_through_view_lands_in_base_as_in_numpy(name):
    base = torch.arange(24.0).reshape(2, 3, 4).clone()
    places = VIEWS[name](torch.arange(24).reshape(2, 3, 4)).tolist()
    VIEWS[name](base).mul_(-1)
    want = np.arange(24.0)
    want[np.array(places).reshape(-1)] *= -1
    assert base.reshape(-1).tolist() == want.tolist()


@pytest.mark.parametrize("name", VIEWS)
def test_view_sees_write_to_base(name):
    base = torch.arange(24.0).reshape(2, 3, 4).clone()
    view = VIEWS[name](base)
    before = view.clone()
    base += 100
    assert view.tolist() == (before + 100).tolist()


def test_strides_and_contiguity():
    x = torch.zeros(2, 3, 4)
    assert x.stride() == (12, 4, 1)
    t = x.transpose(0, 2)
    assert t.stride() == (1, 4, 12) and not t.is_contiguous() and t.contiguous().is_contiguous()
    assert x[1, 1:].storage_offset() == 16 and x[0].data_ptr() == x.data_ptr()
    assert x.expand(5, 2, 3, 4).stride() == (0, 12, 4, 1)
    with pytest.raises(RuntimeError, match=r"Use \.reshape"):
        t.view(-1)


def test_numpy_shares_memory_both_ways_and_graphs_keep_old_bytes():
    w = torch.ones(3)
    n = w.numpy()
    y = w * 2
    n[:] = 5
    assert y.tolist() == [2, 2, 2]
    assert (w * 2).tolist() == [10, 10, 10]
    w.add_(1)
    assert n.tolist() == [6, 6, 6]
    a = np.zeros((3, 4), np.float32)
    t = torch.from_numpy(a[:, 1:])
    t[0, 0] = 7
    assert a[0, 1] == 7
    a[2, 3] = 9
    assert t[2, 2].item() == 9


def test_memory_that_nobody_else_holds_is_not_copied():
    t = torch.from_numpy(np.ones(4, np.float32))
    _ = t * 2
    assert t._storage.host is None


def _looking(frame, event, argument):
    """A trace function that looks at local variables, as those of debuggers do."""
    frame.f_locals  # noqa: B018
    return _looking


def test_memory_that_somebody_holds_is_told_from_other_while_traced():
    before = sys.gettrace()
    sys.settrace(_looking)
    try:
        array = np.ones(4, np.float32)
        held, alone = torch.from_numpy(array), torch.from_numpy(np.ones(4, np.float32))
        _ = held * 2, alone * 2
        pending = torch.zeros(3)
        read = pending + 1
        pending[0] = 5
    finally:
        sys.settrace(before)
    assert held._storage.host is array and alone._storage.host is None
    assert read.tolist() == [1, 1, 1] and pending.tolist() == [5, 0, 0]


IMPORTED_WHILE_TRACED = """
import sys
def looking(frame, event, argument):
    frame.f_locals
    return looking
sys.settrace(looking)
from graphtorch._deferred import storage
sys.settrace(None)
print(storage._HELD_ONCE, storage._OWN_REFERENCES)
"""


def test_what_counts_as_held_is_the_same_where_the_import_was_traced():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_WHILE_TRACED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(storage._HELD_ONCE), str(storage._OWN_REFERENCES)]


def test_inplace_keeps_dtype_and_shape():
    x = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="can't be cast"):
        x += 0.5
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        torch.zeros(3).add_(torch.zeros(2, 3))


def test_errors_name_what_was_given():
    with pytest.raises(
        RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(2x3 and 2x3\)"
    ):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        torch.zeros(2, 3) + torch.zeros(2, 4)
    with pytest.raises(TypeError, match="must be Tensor, not"):
        torch.relu([1.0])
    with pytest.raises(IndexError, match="Dimension out of range"):
        torch.zeros(2).sum(3)
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(torch.zeros(2))
    with pytest.raises(ValueError, match="expected sequence of length 2"):
        torch.tensor([[1, 2], [3]])
    with pytest.raises(AttributeError, match="nearest are"):
        torch.matmull  # noqa: B018


def test_runtime_index_out_of_range_is_an_index_error():
    x = torch.arange(4.0)
    with pytest.raises(IndexError):
        x[torch.tensor([5])].tolist()


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        slice(1, None),
        (slice(None), 1),
        (..., 0),
        (None, 1),
        ([0, 1], slice(None), [1, 2]),
        ([[0], [1]], [0, 2]),
        (slice(None), [2, 0]),
        np.array([True, False]),
        (slice(None), np.array([True, False, True]), slice(0, 2)),
    ],
)
def test_indexing_reads_and_writes_as_numpy(key):
    array = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    converted = (
        tuple(torch.tensor(k) if isinstance(k, (list, np.ndarray)) else k for k in key)
        if isinstance(key, tuple)
        else torch.tensor(key)
        if isinstance(key, np.ndarray)
        else key
    )
    t = torch.tensor(array)
    assert np.array_equal(t[converted].numpy(), array[key])
    t[converted] = -1
    array[key] = -1
    assert np.array_equal(t.numpy(), array)


def test_pickle_and_deepcopy():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = pickle.loads(pickle.dumps(x))
    assert y.tolist() == [1, 2] and y.requires_grad
    z = copy.deepcopy(x)
    assert z.tolist() == [1, 2] and z is not x and z.data_ptr() != x.data_ptr()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0, 2.5], "tensor([1.0000, 2.5000])"),
        ([1, 2], "tensor([1, 2])"),
        ([True, False], "tensor([ True, False])"),
        ([1e-5, 1.0], "tensor([1.0000e-05, 1.0000e+00])"),
        (3.0, "tensor(3.)"),
        ([], "tensor([])"),
        ([[1.0, -2.0], [3.0, 4.0]], "tensor([[ 1., -2.],\n        [ 3.,  4.]])"),
        ([float("nan"), float("inf"), 1.0], "tensor([nan, inf, 1.])"),
        ([1 + 2j], "tensor([1.+2.j])"),
    ],
)
def test_printing(value, text):
    assert repr(torch.tensor(value)) == text


def test_random_stream_depends_on_program_only():
    torch.manual_seed(3)
    a, b = torch.rand(5), torch.randn(3)
    b_values = b.tolist()
    torch.manual_seed(3)
    c = torch.rand(5)
    assert c.tolist() == a.tolist() and torch.randn(3).tolist() == b_values
    state = torch.get_rng_state()
    first = torch.rand(4).tolist()
    torch.set_rng_state(state)
    assert torch.rand(4).tolist() == first


def test_slices_of_empty_tensors_are_empty() -> None:
    x = torch.zeros(0, 2, 4)
    assert x[:, 1:].tolist() == [] and (x[:, 1:] + 1).shape == (0, 1, 4)
    assert torch.nn.functional.glu(x, 1).shape == (0, 1, 4)


def test_numpys_names_of_arguments():
    x = torch.arange(6.0).reshape(2, 3)
    assert x.sum(axis=1, keepdims=True).tolist() == [[3.0], [12.0]]
    assert torch.argmax(x, axis=1).tolist() == [2, 2] and torch.cumsum(x, axis=0)[1].tolist() == [
        3,
        5,
        7,
    ]
    with pytest.raises(TypeError, match="'dim' and 'axis'"):
        x.sum(dim=0, axis=0)


def test_results_of_several_print_as_pytorchs():
    found = torch.tensor([3.0, 1.0]).sort()
    assert repr(found) == (
        "torch.return_types.sort(\nvalues=tensor([1., 3.]),\nindices=tensor([1, 0]))"
    )
    assert (
        type(found) is torch.return_types.sort
        and str(torch.Tensor) == "<class 'graphtorch.Tensor'>"
    )


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_count_elements_or_bytes():
    x = torch.arange(6.0).reshape(2, 3)
    typed, untyped = x[1].storage(), x.untyped_storage()
    assert (len(typed), typed.nbytes(), len(untyped), untyped.size()) == (6, 24, 24, 24)
    assert typed.tolist() == [0, 1, 2, 3, 4, 5] and typed[4] == 4 and typed.dtype is torch.float32
    typed[0] = 9
    assert x[0, 0] == 9 and typed.untyped() == untyped and untyped.data_ptr() == x.data_ptr()
    assert untyped.tolist()[4:8] == [0, 0, 128, 63] and repr(typed).endswith("of size 6]")


def test_nodes_of_the_autograd_graph_have_classes_of_their_own():
    x = torch.ones(2, requires_grad=True)
    fn = (x * 2).sum().grad_fn
    assert (
        type(fn).__name__ == "SumBackward0"
        and type(fn.next_functions[0][0]).__name__ == "MulBackward0"
    )


def test_batches_from_other_places_of_the_data_find_the_same_program():
    data = torch.arange(60.0).reshape(3, 20)
    counts = []
    for start in range(6):
        doubled = data[:, start : start + 4] * 2
        assert doubled.sum().item() == 2 * sum(
            20 * r + c for r in range(3) for c in range(start, start + 4)
        )
        counts.append(programs.new_count)
    assert counts[0] == counts[-1]
    part = data[:, 1:3]
    data[0, 1] = 100
    assert part[0, 0] == 100 and (part + 0).tolist() == [[100, 2], [21, 22], [41, 42]]
    part[1, 1] = -1
    assert data[1, 2] == -1
