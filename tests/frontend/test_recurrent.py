"""Recurrent layers and packed sequences: forms of input, errors, and how they are compiled."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.llvm import compiler
from graphtorch.nn.utils import rnn as R

KINDS = ["RNN", "LSTM", "GRU"]


def states_of(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_batch_first_and_default_state_are_the_same_computation(kind: str) -> None:
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True)
    first = getattr(nn, kind)(3, 4, 2, bidirectional=True, batch_first=True)
    first.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 3)
    y, state = layer(x)
    zeros = torch.zeros(4, 2, 4)
    given, _ = layer(x, (zeros, zeros) if kind == "LSTM" else zeros)
    turned, turned_state = first(x.transpose(0, 1))
    single, single_state = layer(x[:, 1])
    assert torch.allclose(y, given) and torch.allclose(y, turned.transpose(0, 1), atol=1e-6)
    assert torch.allclose(y[:, 1], single, atol=1e-6) and y.shape == (5, 2, 8)
    for a, b, c in zip(
        states_of(state), states_of(turned_state), states_of(single_state), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6) and torch.allclose(a[:, 1], c, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_one_step_of_the_layer(kind: str) -> None:
    layer, cell = getattr(nn, kind)(3, 4), getattr(nn, kind + "Cell")(3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    xs = torch.randn(4, 2, 3)
    state = None
    for x in xs:
        state = cell(x, state)
    y, last = layer(xs)
    assert torch.allclose(states_of(state)[0], y[-1], atol=1e-6)
    for a, b in zip(states_of(state), states_of(last), strict=True):
        assert torch.allclose(a, b[0], atol=1e-6)
    assert torch.allclose(states_of(cell(xs[0, 0]))[0], states_of(cell(xs[0]))[0][0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_each_sequence_alone(kind: str) -> None:
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True)
    lengths = [2, 5, 1]
    xs = [torch.randn(n, 3, requires_grad=True) for n in lengths]
    output, state = layer(R.pack_sequence(xs, enforce_sorted=False))
    ys = R.unpack_sequence(output)
    for i, x in enumerate(xs):
        alone, last = layer(x)
        assert torch.allclose(ys[i], alone, atol=1e-6)
        for a, b in zip(states_of(state), states_of(last), strict=True):
            assert torch.allclose(a[:, i], b, atol=1e-6)
    whole = torch.autograd.grad(sum((y * y).sum() for y in ys), xs)
    for x, g in zip(xs, whole, strict=True):
        assert torch.allclose(torch.autograd.grad((layer(x)[0] ** 2).sum(), x)[0], g, atol=1e-5)


def test_dropout_acts_between_layers_in_training_only() -> None:
    layer = nn.GRU(3, 4, 2, dropout=1.0)
    x = torch.randn(5, 2, 3)
    cut = nn.GRU(4, 4)
    cut.load_state_dict(
        {k.replace("l1", "l0"): v for k, v in layer.state_dict().items() if "l1" in k}
    )
    assert torch.allclose(layer(x)[0], cut(torch.zeros(5, 2, 4))[0], atol=1e-6)
    assert not torch.allclose(layer.eval()(x)[0], cut(torch.zeros(5, 2, 4))[0])
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        nn.LSTM(3, 4, dropout=0.5)


def test_weights_are_found_anew_after_an_assignment_a_copy_and_a_cast() -> None:
    layer = nn.LSTM(3, 4, proj_size=2)
    x = torch.randn(2, 1, 3)
    y = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], y)
        assert [w is p for w, p in zip(other._flat_weights, other.parameters(), strict=True)] == [
            True
        ] * 5
    layer.weight_hr_l0 = nn.Parameter(torch.zeros(2, 4))
    assert not layer(x)[0].any() and layer._flat_weights[-1] is layer.weight_hr_l0
    assert layer.double()(x.double())[0].dtype is torch.float64
    assert layer.all_weights[0][0] is layer.weight_ih_l0 and layer.flatten_parameters() is None


def test_more_steps_need_no_more_code() -> None:
    def code(steps: int) -> tuple[int, int]:
        layer = nn.LSTM(4, 8)
        traced = torch.trace(layer, torch.zeros(steps, 2, 4)).graph
        record = compiler.compile(traced).record
        return record.statistics["kernels"], len(record.launches.code)

    assert code(4000) == code(1000)


def test_one_program_for_all_lengths_and_batches() -> None:
    layer = nn.GRU(3, 4, bidirectional=True).eval()
    steps, batch = torch.Dim("steps", min=1, max=40), torch.Dim("batch", min=1, max=8)
    run = torch.compile(layer, dynamic={0: {0: steps, 1: batch}})
    before = compiler.compiled_count
    with torch.no_grad():
        for shape in ((3, 2), (17, 5), (1, 1)):
            x = torch.randn(*shape, 3)
            assert torch.allclose(run(x)[0], layer(x)[0], atol=1e-5)
            run(x)
    # one compiled, and what runs line by line beside it
    assert compiler.compiled_count - before <= 1 + 3


def test_packing_by_python_numbers_inside_a_compiled_function() -> None:
    layer = nn.GRU(3, 4)
    x = torch.randn(5, 3, 3)

    def last(x: Any, lengths: Any) -> Any:
        output, state = layer(R.pack_padded_sequence(x, lengths, enforce_sorted=False))
        return R.pad_packed_sequence(output)[0], state

    run = torch.compile(last)
    for lengths in ([2, 5, 1], [4, 1, 3]):
        for a, b in zip(run(x, lengths), last(x, lengths), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    # values that Python decides by
    for lengths in (torch.tensor([2, 5, 1]), torch.tensor([4, 1, 3])):
        for a, b in zip(run(x, lengths), last(x, lengths), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    with pytest.raises(RuntimeError, match="a tensor's value is needed in Python"):
        torch.compile(last, fullgraph=True)(x, lengths)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")
def test_ahead_of_time_with_any_length_and_batch(tmp_path: Any) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, bidirectional=True)

        def forward(self, x: Any) -> Any:
            return self.rnn(x)[0][-1]

    model = Last().eval()
    dims = {0: torch.Dim("steps", min=1, max=30), 1: torch.Dim("batch", min=1, max=8)}
    torch.aot.compile(model, torch.zeros(2, 2, 3), tmp_path / "last.so", dynamic={0: dims})
    run = torch.aot.load(tmp_path / "last.so")
    for shape in ((5, 2), (1, 1), (30, 8)):
        x = torch.randn(*shape, 3)
        np.testing.assert_allclose(
            run(x.numpy())[0], model(x).detach().numpy(), rtol=1e-4, atol=1e-6
        )


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("kind", "shape", "hidden", "error", "message"),
    [
        ("GRU", (3,), None, ValueError, "GRU: Expected input to be 2D or 3D, got 1D instead"),
        (
            "RNN",
            (3,),
            None,
            ValueError,
            "RNN: Expected input to be 2D or 3D, got 1D tensor instead",
        ),
        ("LSTM", (2, 1, 4), None, RuntimeError, "must be equal to input_size. Expected 3, got 4"),
        (
            "GRU",
            (2, 1, 3),
            (1, 2, 4),
            RuntimeError,
            r"Expected hidden size \(1, 1, 4\), got \[1, 2, 4\]",
        ),
        (
            "GRU",
            (2, 1, 3),
            (1, 4),
            RuntimeError,
            "batched 3-D input, hx should also be 3-D but got 2-D",
        ),
        (
            "RNN",
            (2, 3),
            (1, 1, 4),
            RuntimeError,
            "unbatched 2-D input, hx should also be 2-D but got 3-D",
        ),
        (
            "GRU",
            (0, 2, 3),
            None,
            RuntimeError,
            "Expected sequence length to be larger than 0 in RNN",
        ),
    ],
)
def test_calls_that_do_not_fit(
    kind: str, shape: Any, hidden: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(nn, kind)(3, 4)(torch.zeros(shape), None if hidden is None else torch.zeros(hidden))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size must be greater than zero"),
        ({"hidden_size": 2.0}, TypeError, "hidden_size should be of type int, got: float"),
        ({"num_layers": 0}, ValueError, "num_layers must be greater than zero"),
        ({"bias": 1}, TypeError, "bias should be of type bool, got: int"),
        ({"dropout": 2}, ValueError, "dropout should be a number in range"),
        ({"proj_size": 4}, ValueError, "proj_size has to be smaller than hidden_size"),
        ({"proj_size": -1}, ValueError, "proj_size should be a positive integer or zero"),
    ],
)
def test_arguments_that_make_no_layer(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        nn.LSTM(**{"input_size": 3, "hidden_size": 4, **arguments})


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="only supported for LSTM"):
        nn.GRU(3, 4, proj_size=2)
    with pytest.raises(ValueError, match="Unknown nonlinearity 'sin'"):
        nn.RNN(3, 4, nonlinearity="sin")
    with pytest.raises(ValueError, match="does not match weight dtype"):
        nn.GRU(3, 4)(torch.zeros(2, 1, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[1\] size"):
        nn.LSTM(3, 4)(torch.zeros(2, 1, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 3)))
    with pytest.raises(RuntimeError, match="input has inconsistent input_size: got 2 expected 3"):
        nn.GRUCell(3, 4)(torch.zeros(1, 2))
    with pytest.raises(
        RuntimeError, match="hidden0 has inconsistent hidden_size: got 3, expected 4"
    ):
        nn.GRUCell(3, 4)(torch.zeros(1, 3), torch.zeros(1, 3))


# ------------------------------------------------------------------------------------------ packing


def test_packing_there_and_back() -> None:
    x = torch.arange(24.0).reshape(4, 3, 2)
    packed = R.pack_padded_sequence(x, [2, 4, 1], enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [3, 2, 1, 1] and packed.sorted_indices.tolist() == [
        1,
        0,
        2,
    ]
    assert R.invert_permutation(packed.sorted_indices).tolist() == packed.unsorted_indices.tolist()
    back, lengths = R.pad_packed_sequence(packed, padding_value=-1.0, total_length=5)
    assert lengths.tolist() == [2, 4, 1] and back.shape == (5, 3, 2)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(back[:n, i], x[:n, i]) and (back[n:, i] == -1).all()
    double = packed.double()
    assert double.data.dtype is torch.float64 and packed.to(torch.float32) is packed
    assert not packed.is_cuda and packed.cpu() is packed


def test_padding() -> None:
    a, b = torch.ones(2, 3), torch.ones(4, 3) * 2
    left = R.pad_sequence([a, b], batch_first=True, padding_value=9.0, padding_side="left")
    assert left.shape == (2, 4, 3) and left[0, :, 0].tolist() == [9, 9, 1, 1]
    again = R.unpad_sequence(R.pad_sequence([a, b]), torch.tensor([2, 4]))
    assert [t.shape for t in again] == [(2, 3), (4, 3)]
    assert R.pad_packed_sequence(R.pack_sequence([b, a]))[1].tolist() == [4, 2]


@pytest.mark.parametrize(
    ("lengths", "rows", "message"),
    [
        ([1, 2], 3, "must be sorted in decreasing order"),
        ([1], 3, r"batch_size, but got 1 \(batch_size=2\)"),
        ([1, 0], 3, "greater than 0"),
        ([1, 1], 0, "Cannot pack empty tensors"),
        ([4, 1], 3, "a sequence of length 4 is longer than the input"),
    ],
)
def test_lengths_that_do_not_fit(lengths: list[int], rows: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        R.pack_padded_sequence(torch.ones(rows, 2), lengths)


@pytest.mark.parametrize(
    ("sequences", "side", "message"),
    [
        ([], "right", "received an empty list of sequences"),
        (3, "right", "Expected iterable"),
        ([torch.ones(2)], "up", "padding_side to be one of left or right"),
        ([torch.ones(2, 1), torch.ones(2, 3)], "left", "every size but the first"),
    ],
)
def test_sequences_that_do_not_fit(sequences: Any, side: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        R.pad_sequence(sequences, padding_side=side)


def test_total_length_is_at_least_that_of_the_longest() -> None:
    with pytest.raises(ValueError, match="at least the length"):
        R.pad_packed_sequence(R.pack_sequence([torch.ones(3)]), total_length=2)


def test_compiled_training_step_learns() -> None:
    torch.manual_seed(0)
    layer, head = nn.LSTM(3, 8), nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.05)
    x = torch.randn(6, 16, 3)
    y = x.sum((0, 2), keepdim=False)[:, None]

    @torch.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = ((head(layer(x)[0][-1]) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x, y).item() for _ in range(60)]
    assert losses[-1] < losses[0] / 4 and np.isfinite(losses).all()
