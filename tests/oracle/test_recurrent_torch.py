"""Recurrent layers, cells, packed sequences and control flow against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

LAYERS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "bias": False, "batch_first": True}),
    ("RNN", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"num_layers": 2}),
    ("LSTM", {"proj_size": 2, "bidirectional": True, "num_layers": 2}),
    ("LSTM", {"bias": False, "proj_size": 2}),
    ("LSTM", {"batch_first": True, "bidirectional": True}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"bias": False}),
    ("GRU", {"batch_first": True}),
]


def mine_of(tensor: Any) -> Any:
    return gt.tensor(tensor.detach().numpy(), requires_grad=tensor.requires_grad)


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs, mine = getattr(torch.nn, name)(*args, **kwargs), getattr(gt.nn, name)(*args, **kwargs)
    assert list(mine.state_dict()) == list(theirs.state_dict()) and repr(mine) == repr(theirs)
    assert getattr(mine, "_flat_weights_names", 0) == getattr(theirs, "_flat_weights_names", 0)
    mine.load_state_dict({k: gt.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return mine, theirs


def flat(result: Any) -> list[Any]:
    if isinstance(result, (torch.Tensor, gt.Tensor)):
        return [result]
    if hasattr(result, "data") and hasattr(result, "batch_sizes"):
        return [result.data]
    return [t for part in result for t in flat(part)]


def compare(found: Any, wanted: Any, inputs: list[tuple[Any, Any]], mine: Any, theirs: Any) -> None:
    """Results, and the gradients of inputs and parameters."""
    for a, b in zip(flat(found), flat(wanted), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)
    weights = [torch.randn(t.shape) for t in flat(wanted)]
    sum((t * w).sum() for t, w in zip(flat(wanted), weights, strict=True)).backward()
    sum((t * mine_of(w)).sum() for t, w in zip(flat(found), weights, strict=True)).backward()
    for a, b in [*inputs, *zip(mine.parameters(), theirs.parameters(), strict=True)]:
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-3, atol=1e-4)


def initial(name: str, kwargs: dict[str, Any], batch: int) -> list[Any]:
    count = kwargs.get("num_layers", 1) * (1 + kwargs.get("bidirectional", False))
    sizes = [kwargs.get("proj_size", 4), 4] if name == "LSTM" else [4]
    return [torch.randn(count, batch, size, requires_grad=True) for size in sizes]


def packed_up(states: list[Any]) -> Any:
    return tuple(states) if len(states) > 1 else states[0]


@pytest.mark.parametrize(("name", "kwargs"), LAYERS, ids=lambda v: str(v))
def test_layers(name: str, kwargs: dict[str, Any]) -> None:
    mine, theirs = pair(name, 3, 4, **kwargs)
    x = torch.randn(5, 2, 3, requires_grad=True)
    states = initial(name, kwargs, 5 if kwargs.get("batch_first") else 2)
    ours = [mine_of(t) for t in (x, *states)]
    inputs = list(zip(ours, (x, *states), strict=True))
    compare(mine(ours[0], packed_up(ours[1:])), theirs(x, packed_up(states)), inputs, mine, theirs)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize(("name", "kwargs"), LAYERS, ids=lambda v: str(v))
def test_packed(name: str, kwargs: dict[str, Any], enforce_sorted: bool) -> None:
    mine, theirs = pair(name, 3, 4, **kwargs)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    xs = [torch.randn(n, 3, requires_grad=True) for n in lengths]
    states = initial(name, kwargs, 4)
    ours, our_states = [mine_of(x) for x in xs], [mine_of(t) for t in states]
    theirs_in = torch.nn.utils.rnn.pack_sequence(xs, enforce_sorted)
    mine_in = gt.nn.utils.rnn.pack_sequence(ours, enforce_sorted)
    assert mine_in.batch_sizes.tolist() == theirs_in.batch_sizes.tolist()
    found, wanted = mine(mine_in, packed_up(our_states)), theirs(theirs_in, packed_up(states))
    inputs = list(zip([*ours, *our_states], [*xs, *states], strict=True))
    compare(found, wanted, inputs, mine, theirs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("name", "states"), [("RNNCell", 1), ("LSTMCell", 2), ("GRUCell", 1)])
def test_cells(name: str, states: int, bias: bool) -> None:
    mine, theirs = pair(name, 3, 4, bias)
    given = [torch.randn(2, n, requires_grad=True) for n in (3, *[4] * states)]
    ours = [mine_of(t) for t in given]
    found, wanted = mine(ours[0], packed_up(ours[1:])), theirs(given[0], packed_up(given[1:]))
    compare(found, wanted, list(zip(ours, given, strict=True)), mine, theirs)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_double_backward(name: str) -> None:
    mine, theirs = pair(name, 3, 4)
    mine, theirs = mine.double(), theirs.double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for lib, layer, given in ((gt, mine, mine_of(x)), (torch, theirs, x)):
        (first,) = lib.autograd.grad(layer(given)[0].sin().sum(), given, create_graph=True)
        wrt = [given, *layer.parameters()]
        found.append(lib.autograd.grad((first * first).sum(), wrt, allow_unused=True))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNNCell"])
def test_whole_modules_load_on_either_side(name: str, tmp_path: Any) -> None:
    mine, theirs = pair(name, 3, 4)
    path, x = str(tmp_path / "module.pt"), torch.randn(2, 3)
    expected = flat(theirs(x))[0].detach().numpy()
    ways = (gt.save, mine, torch.load, x), (torch.save, theirs, gt.load, mine_of(x))
    for save, module, load, given in ways:
        save(module, path)
        found = flat(load(path, weights_only=False)(given))[0]
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_sequence_helpers(batch_first: bool) -> None:
    xs = [torch.randn(n, 2) for n in (2, 4, 1)]
    ours = [mine_of(x) for x in xs]
    theirs_lib, mine_lib = torch.nn.utils.rnn, gt.nn.utils.rnn
    for side in ("left", "right"):
        a = mine_lib.pad_sequence(ours, batch_first, 1.5, side)
        np.testing.assert_array_equal(
            a.numpy(), theirs_lib.pad_sequence(xs, batch_first, 1.5, side).numpy()
        )
    packed = [lib.pack_sequence(v, False) for lib, v in ((mine_lib, ours), (theirs_lib, xs))]
    for a, b in zip(*packed, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    padded = [
        lib.pad_packed_sequence(p, batch_first, -2.0, 6)
        for lib, p in zip((mine_lib, theirs_lib), packed, strict=True)
    ]
    for a, b in zip(*padded, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


WRONG: list[Any] = [
    lambda t: t.nn.GRU(3, 4)(t.zeros(2, 1, 5)),
    lambda t: t.nn.GRU(3, 4)(t.zeros(3)),
    lambda t: t.nn.GRU(3, 4)(t.zeros(2, 1, 3), t.zeros(1, 2, 4)),
    lambda t: t.nn.GRU(3, 4)(t.zeros(0, 1, 3)),
    lambda t: t.nn.LSTM(3, 4)(t.zeros(2, 3), (t.zeros(1, 1, 4), t.zeros(1, 1, 4))),
    lambda t: t.nn.LSTM(3, 4)(t.zeros(2, 1, 3).double()),
    lambda t: t.nn.RNN(3, 4, nonlinearity="sin"),
    lambda t: t.nn.GRU(3, 4, proj_size=2),
    lambda t: t.nn.LSTM(3, 4, proj_size=5),
    lambda t: t.nn.LSTM(3, 0),
    lambda t: t.nn.LSTM(3, 4, dropout=-1.0),
    lambda t: t.nn.RNNBase("X", 3, 4),
    lambda t: t.nn.GRU(3, 4)(t.zeros(2, 1, 3), t.zeros(1, 1, 4).double()),
    lambda t: t.nn.LSTMCell(3, 4)(t.zeros(2, 5)),
    lambda t: t.nn.GRUCell(3, 4)(t.zeros(2, 3), t.zeros(3, 4)),
    lambda t: t.nn.RNNCell(3, 4)(t.zeros(2, 3, 1)),
    lambda t: t.nn.RNNCell(3, 4)(t.zeros(2, 3), t.zeros(2, 5)),
    lambda t: t.nn.RNNCell(3, 4, nonlinearity="sin")(t.zeros(2, 3)),
    lambda t: t.nn.utils.rnn.pack_padded_sequence(t.zeros(3, 2), [1, 2]),
    lambda t: t.nn.utils.rnn.pack_padded_sequence(t.zeros(3, 2), [2]),
    lambda t: t.nn.utils.rnn.pack_padded_sequence(t.zeros(3, 2), [2, 0]),
    lambda t: t.nn.utils.rnn.pad_sequence([]),
    lambda t: t.nn.utils.rnn.pad_sequence(3),
    lambda t: t.nn.utils.rnn.pad_sequence([t.zeros(2, 1), t.zeros(2, 3)]),
    lambda t: t.nn.utils.rnn.pad_sequence([t.zeros(2)], padding_side="up"),
]


@pytest.mark.parametrize("call", range(len(WRONG)))
def test_errors_have_pytorchs_type(call: int) -> None:
    with pytest.raises(Exception) as wanted:
        WRONG[call](torch)
    with pytest.raises(wanted.type):
        WRONG[call](gt)


def test_scan_stacks_along_the_scanned_dimension() -> None:
    scan = pytest.importorskip("torch._higher_order_ops.scan").scan
    x = torch.randn(3, 5, 2)

    def step(c: Any, v: Any) -> Any:
        return c + v, c * v

    for dim in (0, 1):
        start = torch.zeros_like(x.select(dim, 0))
        for reverse in (False, True):
            wanted = scan(step, start, x, dim=dim, reverse=reverse)
            found = gt.scan(step, mine_of(start), mine_of(x), dim=dim, reverse=reverse)
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_between_layers_of_packed_sequences(name: str, bidirectional: bool) -> None:
    def outputs(lib: Any) -> list[Any]:
        lib.manual_seed(0)
        layer = getattr(lib.nn, name)(
            3, 4, num_layers=3, dropout=0.3, bidirectional=bidirectional, batch_first=True
        )
        x = lib.randn(4, 6, 3, requires_grad=True)
        lengths = lib.tensor([2, 6, 3, 5])
        packed = lib.nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        y, _ = layer(packed)
        y.data.square().sum().backward()
        return [y.data.detach(), x.grad, layer.weight_ih_l0.grad, lib.rand(2)]

    for found, wanted in zip(outputs(gt), outputs(torch), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), 1e-4, 1e-5)
