"""Recurrent nets: one step of each kind as IR, and the functions that repeat it over time and
layers.

Formulas: PyTorch's pages of `nn.RNN`, `nn.LSTM` and `nn.GRU`. The product of the input with `w_ih`
is one matrix product for all steps, outside the loop; the loop over time is a `scan`, whose body
also returns the activations of the gates, so that no product is computed again for a gradient
(unread ones cost nothing).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean
from graphtorch.ir.graph import Graph, Type, Value, located
from graphtorch.ir.ops.scan_grad import ScanAttrs

from ..._deferred.storage import Leaf, recorder
from ..._deferred.tensor import Tensor
from ..._ops.autocast import lower_precision, lower_precision_on_gpus
from ..._ops.base import FUNCTIONS, run
from ..._ops.creation import from_array
from ..._ops.overriding import asks_first
from ..._types import device
from .dropouts import dropout as drop


class Weights(NamedTuple):
    """Of the recurrent product: `w` [G, P], `b` [G] or None, and the projection `w_hr` [P, H] or
    None."""

    w: Value
    b: Value | None
    w_hr: Value | None = None


class Kind(NamedTuple):
    """A kind of recurrent net. `step` takes the projected input, the states and the weights of one
    step, and returns the new states, of which the first is the output, and further values that the
    gradient reads.
    """

    name: str
    gates: int
    states: int
    step: Callable[[Value, Sequence[Value], Weights], tuple[tuple[Value, ...], tuple[Value, ...]]]
    # inside the step; otherwise it is added to the projected input of all steps at once
    adds_bias: bool


def _linear(x: Value, w: Value, b: Value | None = None) -> Value:
    product = ops.matmul(x, ops.permute(w, dims=(1, 0)))
    return product if b is None else ops.add(product, b)


def _gates(x: Value, count: int) -> list[Value]:
    batch, size = x.shape
    size = size // count
    return [
        ops.slice(x, start=(0, i * size), stop=(batch, (i + 1) * size), step=(1, 1))
        for i in range(count)
    ]


def _rnn_step(activation: Any) -> Any:
    def step(x: Value, states: Sequence[Value], weights: Weights) -> Any:
        return (activation(ops.add(x, _linear(states[0], weights.w, weights.b))),), ()

    return step


def _lstm_step(x: Value, states: Sequence[Value], weights: Weights) -> Any:
    h, c = states
    gates = _gates(ops.add(x, _linear(h, weights.w, weights.b)), 4)
    i, f, o = (ops.sigmoid(gates[k]) for k in (0, 1, 3))
    g = ops.tanh(gates[2])
    c = ops.add(ops.mul(f, c), ops.mul(i, g))
    h = ops.mul(o, ops.tanh(c))
    return (h if weights.w_hr is None else _linear(h, weights.w_hr), c), (i, f, g, o)


def _gru_step(x: Value, states: Sequence[Value], weights: Weights) -> Any:
    h = states[0]
    ours, theirs = _gates(_linear(h, weights.w, weights.b), 3), _gates(x, 3)
    r, z = (ops.sigmoid(ops.add(a, b)) for a, b in zip(theirs[:2], ours[:2], strict=True))
    n = ops.tanh(ops.add(theirs[2], ops.mul(r, ours[2])))
    return (ops.add(n, ops.mul(z, ops.sub(h, n))),), (r, z, n, ours[2])


KINDS = {
    "RNN_TANH": Kind("RnnTanh", 1, 1, _rnn_step(ops.tanh), False),
    "RNN_RELU": Kind("RnnRelu", 1, 1, _rnn_step(ops.relu), False),
    "LSTM": Kind("Lstm", 4, 2, _lstm_step, False),
    "GRU": Kind("Gru", 3, 1, _gru_step, True),
}


# ---------------------------------------------------------------------------------------- one layer


@functools.lru_cache(maxsize=512)
def _body(
    mode: str, x: Type, states: tuple[Type, ...], masked: bool, weights: tuple[Type | None, ...]
) -> Graph:
    """One step as a graph: states, slices of the projected input and of the mask, weights."""
    kind = KINDS[mode]
    with located(None):
        before = [Value(t, name=f"state{i}") for i, t in enumerate(states)]
        step, mask = Value(x, name="x"), Value(Type(boolean, (x.shape[0], 1)), name="mask")
        fixed = [
            None if t is None else Value(t, name=n)
            for n, t in zip(("w_hh", "b_hh", "w_hr"), weights, strict=True)
        ]
        assert fixed[0] is not None
        after, saved = kind.step(step, before, Weights(fixed[0], *fixed[1:]))
        if masked:
            after = tuple(ops.where(mask, new, old) for new, old in zip(after, before, strict=True))
        inputs = [*before, step, *([mask] if masked else []), *(w for w in fixed if w is not None)]
        return Graph(kind.name.lower(), inputs, [*after, *after, *saved])


def mode_of(body: Graph, carries: int) -> str | None:
    """Of which kind of net without a mask or projection `body`, apart from what it stacks, is a
    step."""
    inputs = [v.type for v in body.inputs]
    for mode, kind in KINDS.items():
        weights = (*inputs[carries + 1 :], None, None, None)[:3]
        if carries != kind.states or len(inputs) != carries + 2 + (weights[1] is not None):
            continue
        if not kind.adds_bias and weights[1] is not None:
            continue
        if not _is_step(inputs[carries], inputs[:carries], weights, kind.gates):
            continue
        step = _body(mode, inputs[carries], tuple(inputs[:carries]), False, weights)
        if _without_stacks(step, carries) == _without_stacks(body, carries):
            return mode
    return None


def _is_step(x: Type, states: Sequence[Type], weights: Sequence[Type | None], gates: int) -> bool:
    """Whether the sizes are those of a step: x [N, G H], states [N, H], w [G H, H], b [G H]."""
    if x.rank != 2 or any(s.rank != 2 or s.dtype is not x.dtype for s in states):
        return False
    hidden, width = states[0].shape[1], x.shape[1]
    w, b, _ = weights
    fits = (
        w is not None
        and w.dtype is x.dtype
        and w.shape == (width, hidden)
        and width == hidden * gates
    )
    return fits and (b is None or (b.dtype is x.dtype and b.shape == (width,)))


def _without_stacks(body: Graph, carries: int) -> Graph:
    return Graph("step", body.inputs, body.outputs[:carries])


def _layer(x: Value, *given: Value | None, mode: str, reverse: bool) -> tuple[Value, ...]:
    """One direction of one layer over [T, N, I]: its outputs, and its states at the end.

    Args:
        given: the initial states, the mask [T, N, 1] or None, w_ih, w_hh, b_ih, b_hh, w_hr.
    """
    kind = KINDS[mode]
    states, (mask, w_ih, w_hh, b_ih, b_hh, w_hr) = given[: kind.states], given[kind.states :]
    assert w_ih is not None and w_hh is not None
    inside = b_hh if kind.adds_bias else None
    steps, batch, size = x.shape
    projected = _linear(ops.reshape(x, shape=(steps * batch, size)), w_ih, b_ih)
    if b_hh is not None and not kind.adds_bias:
        # not b_ih + b_hh first: the product's kernel adds both
        projected = ops.add(projected, b_hh)
    projected = ops.reshape(projected, shape=(steps, batch, w_ih.shape[0]))
    types = tuple(s.type for s in states if s is not None)
    weights = (w_hh, inside, w_hr)
    body = _body(
        mode,
        projected.type.with_shape(projected.shape[1:]),
        types,
        mask is not None,
        tuple(None if w is None else w.type for w in weights),
    )
    stacked = [projected] if mask is None else [projected, mask]
    operands = [v for v in (*states, *stacked, *weights) if v is not None]
    attrs = ScanAttrs(body, kind.states, len(stacked), steps, reverse)
    results = ops.scan.node(tuple(operands), attrs).results()
    return (results[kind.states], *results[: kind.states])


def _cell(x: Value, *given: Value | None, mode: str) -> tuple[Value, ...]:
    """One step: the new states for the states, w_ih, w_hh, b_ih and b_hh."""
    kind = KINDS[mode]
    states, (w_ih, w_hh, b_ih, b_hh) = given[: kind.states], given[kind.states :]
    assert w_ih is not None and w_hh is not None
    found, _ = kind.step(
        _linear(x, w_ih, b_ih), [s for s in states if s is not None], Weights(w_hh, b_hh)
    )
    return found


# --------------------------------------------------------------------------------------- all layers


class Packing(NamedTuple):
    """Where the rows of packed data [R, I] lie in a padded [T, N, I]; `mask` says which places
    count."""

    rows: Tensor
    places: Tensor
    mask: Tensor
    shape: tuple[int, int]

    def padded(self, data: Tensor) -> Tensor:
        """Packed data [R, I] as [T, N, I]; any of it stands at the places that do not count."""
        return data.index_select(0, self.rows).reshape(*self.shape, data.shape[1])  # type: ignore[no-any-return]

    def packed(self, x: Tensor) -> Tensor:
        """What counts of x [T, N, I], as packed data [R, I]."""
        flat = x.reshape(self.shape[0] * self.shape[1], x.shape[2])
        return flat.index_select(0, self.places)  # type: ignore[no-any-return]


def known_sizes(batch_sizes: Tensor) -> np.ndarray:
    """The numbers of a tensor that Python decides by; inside a captured function, of one that was
    made there from Python numbers."""
    storage, capture = batch_sizes._storage, recorder.capture
    if isinstance(storage.value, Leaf) and storage in getattr(capture, "locals", ()):
        return np.asarray(storage.value.buffer.numpy())
    return np.asarray(batch_sizes.tolist(), np.int64)


def _packing(batch_sizes: Tensor, place: device) -> Packing:
    sizes = known_sizes(batch_sizes)
    mask = np.arange(sizes[0])[None, :] < sizes[:, None]
    starts = np.cumsum(sizes) - sizes
    rows = np.where(mask, starts[:, None] + np.arange(sizes[0])[None, :], 0)
    return Packing(
        from_array(rows.reshape(-1), place=place),
        from_array(np.flatnonzero(mask), place=place),
        from_array(mask[:, :, None], place=place),
        mask.shape,
    )


def _layers(
    mode: str,
    x: Tensor,
    states: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    where: Packing | None = None,
) -> tuple[Tensor, ...]:
    """Outputs [T, N, D * P] and the final states [L * D, N, *] for x [T, N, I]."""
    directions = 2 if bidirectional else 1
    kind = KINDS[mode]
    _check_layers(x, states)
    projects = mode == "LSTM" and states[0].shape[-1] != states[1].shape[-1]
    per = 2 + 2 * has_biases + projects
    if len(params) != per * num_layers * directions:
        raise RuntimeError(
            f"expected {per * num_layers * directions} weights for {num_layers} layers and "
            f"{directions} directions, but got {len(params)}"
        )
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            own = _weights(params[at * per : (at + 1) * per], has_biases, projects)
            y, *last = run(
                kind.name,
                _layer,
                x,
                *(s[at] for s in states),
                None if where is None else where.mask,
                *own,
                mode=mode,
                reverse=bool(direction),
            )
            outputs.append(y)
            finals.append(tuple(last))
        x = FUNCTIONS["cat"](outputs, 2) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            # of packed data, one number is drawn for each element that counts
            x = drop(x, dropout, True) if where is None else _drop_packed(x, dropout, where)
    return (x, *(FUNCTIONS["stack"](states) for states in zip(*finals, strict=True)))


def _drop_packed(x: Tensor, dropout: float, where: Packing) -> Tensor:
    return where.padded(drop(where.packed(x), dropout, True))


def _check_layers(x: Tensor, states: tuple[Tensor, ...]) -> None:
    if isinstance(x.shape[0], int) and x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    for state in states:
        if state.dtype is not x.dtype:
            raise RuntimeError(
                "Input and hidden tensors are not the same dtype, found input tensor with "
                f"{x.dtype} and hidden tensor with {state.dtype}"
            )


def _weights(
    given: Sequence[Tensor], has_biases: bool, projects: bool
) -> tuple[Tensor | None, ...]:
    """w_ih, w_hh, b_ih, b_hh, w_hr of one direction, None for those it lacks."""
    biases = given[2:4] if has_biases else (None, None)
    return (*given[:2], *biases, given[-1] if projects else None)


def _recurrent(
    mode: str, input: Tensor, args: tuple[Any, ...], names: dict[str, Any]
) -> tuple[Tensor, ...]:
    """Both forms: a padded input (batch_first among the arguments), and packed data with batch
    sizes."""
    packed = "batch_sizes" in names or (
        bool(args) and isinstance(args[0], Tensor) and len(args) > 1 and not _is_parameters(args[1])
    )
    order = (
        "batch_sizes",
        "hx",
        "params",
        "has_biases",
        "num_layers",
        "dropout",
        "train",
        "bidirectional",
    )
    if not packed:
        order = (*order[1:], "batch_first")
    given = dict(zip(order, args, strict=False)) | names
    missing = [n for n in order if n not in given]
    if missing or len(args) > len(order) or set(given) - set(order):
        raise TypeError(
            f"{mode.lower()}() takes input, {', '.join(order)}; missing {missing or 'none'}"
        )
    hx = given["hx"]
    states = tuple(hx) if mode == "LSTM" else (hx,)
    rest = [
        given[n]
        for n in ("params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
    ]
    if packed:
        return _run_packed(mode, input, given["batch_sizes"], states, rest)
    x = input.transpose(0, 1) if given["batch_first"] else input
    y, *finals = _layers(mode, x, states, *rest)
    return (y.transpose(0, 1) if given["batch_first"] else y, *finals)


def _is_parameters(given: Any) -> bool:
    """Whether an argument is the list of weights, and not the pair of states of an LSTM."""
    return isinstance(given, (tuple, list)) and (len(given) != 2 or given[0].dim() == 2)


def _run_packed(
    mode: str, data: Tensor, batch_sizes: Tensor, states: tuple[Tensor, ...], rest: list[Any]
) -> tuple[Tensor, ...]:
    where = _packing(batch_sizes, data.device)
    y, *finals = _layers(mode, where.padded(data), states, *rest, where=where)  # type: ignore[misc]
    return (where.packed(y), *finals)


def _function(mode: str) -> Any:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return _recurrent(mode, input, args, kwargs)

    call.__name__ = call.__qualname__ = mode.lower()
    call.__doc__ = (
        f"All layers of `nn.{mode.partition('_')[0]}`: the outputs and the final states. "
        "Arguments: input [T, N, I], hx, params, has_biases, num_layers, dropout, "
        "train, bidirectional, batch_first; or data, batch_sizes, hx, ..., "
        "bidirectional, if packed."
    )
    return asks_first((lower_precision_on_gpus if mode == "GRU" else lower_precision)(call))


rnn_tanh, rnn_relu, lstm, gru = map(_function, KINDS)


# ------------------------------------------------------------------------------------------ cells


def _check_cell(input: Tensor, states: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor) -> None:
    """The errors of PyTorch's cells."""
    hidden = w_hh.shape[1]
    if input.shape[1] != w_ih.shape[1]:
        raise RuntimeError(
            f"input has inconsistent input_size: got {input.shape[1]} expected {w_ih.shape[1]}"
        )
    for i, state in enumerate(states):
        if input.shape[0] != state.shape[0]:
            raise RuntimeError(
                f"Input batch size {input.shape[0]} doesn't match hidden{i} batch size "
                f"{state.shape[0]}"
            )
        if state.shape[1] != hidden:
            raise RuntimeError(
                f"hidden{i} has inconsistent hidden_size: got {state.shape[1]}, expected {hidden}"
            )


def _cell_function(name: str, mode: str) -> Any:
    kind = KINDS[mode]

    def call(
        input: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        states = tuple(hx) if kind.states > 1 else (hx,)
        _check_cell(input, states, w_ih, w_hh)
        found = run(kind.name + "Cell", _cell, input, *states, w_ih, w_hh, b_ih, b_hh, mode=mode)
        return found if kind.states > 1 else found[0]

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"One step of `nn.{mode.partition('_')[0]}` for input [N, I] and states [N, H]."
    return asks_first(
        (lower_precision if mode.startswith("RNN") else lower_precision_on_gpus)(call)
    )


rnn_tanh_cell = _cell_function("rnn_tanh_cell", "RNN_TANH")
rnn_relu_cell = _cell_function("rnn_relu_cell", "RNN_RELU")
lstm_cell = _cell_function("lstm_cell", "LSTM")
gru_cell = _cell_function("gru_cell", "GRU")

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
]
