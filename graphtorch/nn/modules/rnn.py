"""Recurrent layers and cells, over the functions of `functional.recurrent`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any

from ..._deferred.tensor import Tensor
from ..._settings import warn_user
from .. import init
from ..functional import recurrent
from ..utils.rnn import PackedSequence
from ._build import parameter
from .module import Module


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters, arguments, the different forms of input.

    Layer l has the parameters ``weight_ih_l{l}`` [G, I], ``weight_hh_l{l}`` [G, P], with `bias`
    ``bias_ih_l{l}`` and ``bias_hh_l{l}`` [G], with `proj_size` ``weight_hr_l{l}`` [P, H]; the
    backward direction has the same with ``_reverse``. All start as U(-1/sqrt(hidden_size),
    1/sqrt(hidden_size)).
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if mode not in recurrent.KINDS:
            raise ValueError(
                f"Unrecognized RNN mode: {mode}: expected one of {', '.join(recurrent.KINDS)}"
            )
        _check_dropout(dropout, num_layers)
        _check_arguments(input_size, hidden_size, num_layers, bias, batch_first, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._all_weights = []
        for layer in range(num_layers):
            for direction in range(self._directions):
                shapes = dict(self._shapes(layer, direction))
                self._all_weights.append(list(shapes))
                for name, shape in shapes.items():
                    setattr(self, name, parameter(shape, device, dtype))
        self._flat_weights_names = [name for names in self._all_weights for name in names]
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _shapes(self, layer: int, direction: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The parameters of one direction of one layer, in PyTorch's order."""
        end = f"_l{layer}" + ("_reverse" if direction else "")
        gates = recurrent.KINDS[self.mode].gates * self.hidden_size
        out = self.proj_size or self.hidden_size
        yield "weight_ih" + end, (gates, self.input_size if layer == 0 else out * self._directions)
        yield "weight_hh" + end, (gates, out)
        if self.bias:
            yield "bias_ih" + end, (gates,)
            yield "bias_hh" + end, (gates,)
        if self.proj_size:
            yield "weight_hr" + end, (self.proj_size, self.hidden_size)

    @property
    def _flat_weights(self) -> list[Any]:
        """All parameters, layer by layer, as they are now."""
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def __getstate__(self) -> dict[str, Any]:
        # PyTorch's loader asks for them
        return {**self.__dict__, "_flat_weights": self._flat_weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({k: v for k, v in state.items() if k != "_flat_weights"})

    def flatten_parameters(self) -> None:
        """Nothing to do: weights are packed when a graph is compiled, wherever they lie."""

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
        }
        changed = [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *changed])

    # -- checks ---------------------------------------------------------------------------------

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise ValueError for a wrong dtype, RuntimeError for a wrong number of dimensions or
        size."""
        weight = self._flat_weights[0]
        if input.dtype != weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: "
                f"model.to({input.dtype})"
            )
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {input.size(-1)}"
            )

    def get_expected_hidden_size(
        self, input: Tensor, batch_sizes: Tensor | None
    ) -> tuple[Any, ...]:
        """The shape of the initial hidden state."""
        if batch_sizes is not None:
            batch = int(recurrent.known_sizes(batch_sizes)[0])
        else:
            batch = input.size(0 if self.batch_first else 1)
        return self.num_layers * self._directions, batch, self.proj_size or self.hidden_size

    def check_hidden_size(
        self,
        hx: Tensor,
        expected_hidden_size: tuple[Any, ...],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:
        """Raise RuntimeError unless `hx` has the expected shape."""
        if tuple(hx.size()) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(tuple(expected_hidden_size), list(hx.size())))

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """Check an input and its initial state."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """A state with its sequences in another order."""
        return hx if permutation is None else hx.index_select(1, permutation)

    # -- the call -------------------------------------------------------------------------------

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Outputs and final state of [T, N, I], [N, T, I] (batch_first), [T, I] or a
        PackedSequence."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        self._check_dims(input)
        batched, at = input.dim() == 3, 0 if self.batch_first else 1
        if hx is not None:
            self._check_hidden_dims(hx, batched)
        if not batched:
            input = input.unsqueeze(at)
            hx = None if hx is None else self._each(hx, lambda t: t.unsqueeze(1))
        if hx is None:
            hx = self._zeros(input, input.size(at))
        self.check_forward_args(input, hx, None)
        output, *states = self._function(input, hx, *self._arguments(), self.batch_first)
        hidden = self._hidden(states)
        if batched:
            return output, hidden
        return output.squeeze(at), self._each(hidden, lambda t: t.squeeze(1))

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, batch_sizes, order, back = packed
        if hx is None:
            hx = self._zeros(data, int(recurrent.known_sizes(batch_sizes)[0]))
        else:
            hx = self.permute_hidden(hx, order)
        self.check_forward_args(data, hx, batch_sizes)
        output, *states = self._function(data, batch_sizes, hx, *self._arguments())
        hidden = self.permute_hidden(self._hidden(states), back)
        return PackedSequence(output, batch_sizes, order, back), hidden

    @property
    def _function(self) -> Any:
        return getattr(recurrent, self.mode.lower())

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            bool(self.bidirectional),
        )

    def _check_dims(self, input: Tensor) -> None:
        if input.dim() not in (2, 3):
            name = self.mode.partition("_")[0]
            what = "D tensor" if name == "RNN" else "D"
            raise ValueError(
                f"{name}: Expected input to be 2D or 3D, got {input.dim()}{what} instead"
            )

    def _check_hidden_dims(self, hx: Any, batched: bool) -> None:
        if hx.dim() != 2 + batched:
            form = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {form} input, hx should also be {2 + batched}-D but got {hx.dim()}-D tensor"
            )

    def _zeros(self, input: Tensor, batch: Any) -> Any:
        size = self.proj_size or self.hidden_size
        return input.new_zeros((self.num_layers * self._directions, batch, size))

    def _each(self, hx: Any, change: Any) -> Any:
        """`change` applied to each tensor of a state."""
        return change(hx)

    def _hidden(self, states: list[Tensor]) -> Any:
        """A state in the form in which this layer gives it."""
        return states[0]


def _check_dropout(dropout: Any, num_layers: int) -> None:
    if (
        not isinstance(dropout, numbers.Number)
        or isinstance(dropout, bool)
        or not 0 <= dropout <= 1  # type: ignore[operator]
    ):
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an "
            "element being zeroed"
        )
    if dropout > 0 and num_layers == 1:  # type: ignore[operator]
        warn_user(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and "
            f"num_layers={num_layers}",
        )


def _check_arguments(
    input_size: Any, hidden_size: Any, num_layers: int, bias: Any, batch_first: Any, proj_size: int
) -> None:
    typed = (
        ("bias", bias, bool),
        ("batch_first", batch_first, bool),
        ("input_size", input_size, int),
        ("hidden_size", hidden_size, int),
    )
    for name, value, kind in typed:
        if not isinstance(value, kind):
            raise TypeError(
                f"{name} should be of type {kind.__name__}, got: {type(value).__name__}"
            )
        if kind is int and value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


def _refuse_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in the place of tanh, over layers and
    directions.

    Args: input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False,
        dropout=0.0 (between layers), bidirectional=False, device, dtype.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        _refuse_projection(kwargs)
        nonlinearity = args[3] if len(args) > 3 else kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__("RNN_" + nonlinearity.upper(), *args[:3], *args[4:], **kwargs)
        self.nonlinearity = nonlinearity


class GRU(RNNBase):
    """Gated recurrent unit (https://arxiv.org/abs/1406.1078), with the reset gate after the
    product:

        r, z = sigmoid(W_ir x + b_ir + W_hr h + b_hr), sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn));   h' = (1 - z) * n + z * h

    Args: input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0 (between
        layers), bidirectional=False, device, dtype.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


class LSTM(RNNBase):
    """Long short-term memory (https://doi.org/10.1162/neco.1997.9.8.1735):

        i, f, o = sigmoid(W x + b + W' h + b'), each with its own weights;   g = tanh(...)
        c' = f * c + i * g;   h' = o * tanh(c'), and with `proj_size` W_hr h' (https://arxiv.org/abs/1402.1128)

    Its state is the pair (h, c). Args: input_size, hidden_size, num_layers=1, bias=True,
    batch_first=False,
        dropout=0.0 (between layers), bidirectional=False, proj_size=0, device, dtype.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__("LSTM", *args, **kwargs)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[Any, ...]:
        """The shape of the initial cell state."""
        return (*self.get_expected_hidden_size(input, batch_sizes)[:2], self.hidden_size)

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        self.check_input(input, batch_sizes)
        sizes = (
            self.get_expected_hidden_size(input, batch_sizes),
            self.get_expected_cell_size(input, batch_sizes),
        )
        for i, (state, size) in enumerate(zip(hidden, sizes, strict=True)):
            self.check_hidden_size(state, size, f"Expected hidden[{i}] size {{}}, got {{}}")

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        return (
            hx if permutation is None else self._each(hx, lambda t: t.index_select(1, permutation))
        )

    def _check_hidden_dims(self, hx: Any, batched: bool) -> None:
        if any(t.dim() != 2 + batched for t in hx[:2]):
            form = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {form} input, hx and cx should also be {2 + batched}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"
            )

    def _zeros(self, input: Tensor, batch: Any) -> Any:
        cell = (self.num_layers * self._directions, batch, self.hidden_size)
        return super()._zeros(input, batch), input.new_zeros(cell)

    def _each(self, hx: Any, change: Any) -> Any:
        return tuple(change(t) for t in hx)

    def _hidden(self, states: list[Tensor]) -> Any:
        return tuple(states)


# ------------------------------------------------------------------------------------------ cells


class RNNCellBase(Module):
    """One step of a recurrent layer: weight_ih [G, I], weight_hh [G, H], bias_ih and bias_hh [G] or
    None."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = parameter((gates, input_size), device, dtype)
        self.weight_hh = parameter((gates, hidden_size), device, dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, parameter((gates,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            shown += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            shown += f", nonlinearity={self.nonlinearity}"
        return shown

    def _step(self, function: Any, input: Tensor, hx: Any, states: int) -> Any:
        """`function` on an input [N, I] or [I]; states of zeros where none are given."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        given = () if hx is None else tuple(hx) if states > 1 else (hx,)
        for i, state in enumerate(given):
            if state.dim() not in (1, 2):
                what = f"hx[{i}]" if states > 1 else "hidden"
                raise ValueError(
                    f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead"
                )
        batched = input.dim() == 2
        if not batched:
            input, given = input.unsqueeze(0), tuple(t.unsqueeze(0) for t in given)
        if hx is None:
            zeros = input.new_zeros((input.size(0), self.hidden_size))
            given = (zeros,) * states
        found = function(
            input,
            given if states > 1 else given[0],
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            self.bias_hh,
        )
        if batched:
            return found
        return tuple(t.squeeze(0) for t in found) if states > 1 else found.squeeze(0)


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh) (or relu) for x [N, I] or [I], h [N, H] or [H]."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        function = getattr(recurrent, f"rnn_{self.nonlinearity}_cell")
        return self._step(function, input, hx, 1)  # type: ignore[no-any-return]


class LSTMCell(RNNCellBase):
    """One step of `LSTM`: (h', c') for x [N, I] or [I] and the pair (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._step(recurrent.lstm_cell, input, hx, 2)  # type: ignore[no-any-return]


class GRUCell(RNNCellBase):
    """One step of `GRU`: h' for x [N, I] or [I] and h."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(recurrent.gru_cell, input, hx, 1)  # type: ignore[no-any-return]


__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]
