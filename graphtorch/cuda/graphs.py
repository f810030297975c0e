"""Work that is recorded once and replayed: ``torch.cuda.CUDAGraph``.

A graph is a program between tensors (`_captured.cuda_graph`), which runs as a CUDA graph of the
driver's where the memory that it is given comes again.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._captured.compile import compile
from .._captured.cuda_graph import GraphCapture, Recorded
from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._settings import warn_user
from ..autograd.engine import grad
from ..nn.modules.module import Module
from ..utils._pytree import tree_leaves
from ._gpu import place_of
from .memory import empty_cache
from .streams import Stream, StreamContext, wait_for

__all__ = [
    "CUDAGraph",
    "graph",
    "graph_pool_handle",
    "is_current_stream_capturing",
    "make_graphed_callables",
]

_MODES = ("global", "thread_local", "relaxed")
_pools = itertools.count(1)


def is_current_stream_capturing() -> bool:
    """Whether a CUDA graph records what this thread asks for."""
    return isinstance(recorder.capture, GraphCapture)


def graph_pool_handle() -> tuple[int, int]:
    """A name for a pool of memory. All graphs take theirs from the device's one pool."""
    return 0, next(_pools)


class CUDAGraph:
    """Work that was recorded between `capture_begin` and `capture_end`; see `torch.cuda.graph`.

    Args: keep_graph: makes no difference: there is no graph of the driver's to be changed.
    Raises: RuntimeError: there is no GPU.
    """

    def __init__(self, keep_graph: bool = False):
        try:
            place_of(None, "CUDAGraph")
        except AssertionError as error:
            raise RuntimeError(f"torch.cuda.CUDAGraph: there is no GPU: {error}") from None
        self._capture: GraphCapture | None = None
        self._recorded: Recorded | None = None
        self._pool: Any = None

    def capture_begin(
        self,
        pool: Any = None,
        capture_error_mode: str = "global",
        check_input_liveness: bool = False,
    ) -> None:
        """Record what this thread asks for, instead of doing it.

        Args:
            pool: a name for a pool of memory, which makes no difference.
            capture_error_mode: makes no difference: what other threads do is not recorded.
            check_input_liveness: makes no difference: what a graph reads lives as long as it.

        Raises:
            RuntimeError: this graph was captured already, or a capture is under way in this thread.
            ValueError: an unknown mode.
        """
        if capture_error_mode not in _MODES:
            raise ValueError(
                "Unknown capture error mode. Expected `global`, `thread_local`, or `relaxed`, got "
                f"{capture_error_mode}"
            )
        if self._recorded is not None:
            raise RuntimeError(
                "This CUDAGraph instance already owns a captured graph. To capture a new graph, "
                "create a new instance, or reset() this one."
            )
        if recorder.capture is not None:
            raise RuntimeError(
                "a CUDA graph cannot be captured while another one is, or inside of a function "
                "that torch.compile records"
            )
        self._pool = graph_pool_handle() if pool is None else pool
        self._capture = GraphCapture()
        self._capture.begin()

    def capture_end(self) -> None:
        """End the recording: `replay` does the work. Raises RuntimeError: there is none."""
        self._end(True)

    def _end(self, succeeded: bool) -> None:
        capture, self._capture = self._capture, None
        if capture is None or recorder.capture is not capture:
            raise RuntimeError("capture_end: no capture of this CUDAGraph is under way here")
        recorded = capture.end(succeeded)
        if not succeeded:
            return
        if recorded.empty:
            warn_user(
                "The CUDA Graph is empty. This usually means that the graph was attempted to be "
                "captured on wrong device or stream.",
            )
        self._recorded = recorded

    def _captured(self, what: str) -> Recorded:
        if self._recorded is None:
            raise RuntimeError(f"Called CUDAGraph::{what} without a preceding successful capture.")
        return self._recorded

    def instantiate(self) -> None:
        """Nothing: `capture_end` made it ready. Raises RuntimeError: nothing was captured."""
        self._captured("instantiate")

    def replay(self) -> None:
        """Do the work, on what the tensors hold now. Raises RuntimeError: nothing was captured."""
        recorded = self._captured("replay")
        if recorder.capture is not None:
            raise RuntimeError("CUDAGraph.replay(): not while work is being recorded")
        recorded.replay()

    def reset(self) -> None:
        """Forget what was captured."""
        self._recorded = None

    def pool(self) -> Any:
        """The name of the graph's pool of memory. Raises RuntimeError: nothing was captured."""
        self._captured("pool")
        return self._pool

    def enable_debug_mode(self) -> None:
        """Nothing: `debug_dump` always works."""

    def debug_dump(self, debug_path: str) -> None:
        """Write the graph's kernels to a file. Raises RuntimeError: nothing was captured."""
        Path(debug_path).write_text(self._captured("debug_dump").explain(), encoding="utf8")

    def raw_cuda_graph(self) -> int:
        """Raises RuntimeError: there is no graph of the driver's."""
        raise RuntimeError(
            "CUDAGraph.raw_cuda_graph: a graph is a program of graphtorch here, no cudaGraph_t"
        )

    raw_cuda_graph_exec = raw_cuda_graph


class graph:
    """``with torch.cuda.graph(g):`` what is asked for inside is recorded into `g`, not done.

    Args:
        cuda_graph: a `CUDAGraph`.
        pool, capture_error_mode, check_input_liveness: of `CUDAGraph.capture_begin`.
        stream: the present one inside.
        enable_annotations: makes no difference.

    Inside, elements of tensors that are computed cannot be asked for (RuntimeError). Optimizers'
    counters and other tensors on the CPU are part of the graph; numbers of Python (a learning rate)
    are as they were at the capture.
    """

    def __init__(
        self,
        cuda_graph: CUDAGraph,
        pool: Any = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
        enable_annotations: bool = False,
        check_input_liveness: bool = False,
    ):
        self.cuda_graph = cuda_graph
        self.capture_stream = Stream() if stream is None else stream
        self.pool = pool
        self.capture_error_mode = capture_error_mode
        self._context = StreamContext(self.capture_stream)

    def __enter__(self) -> None:
        wait_for(self.capture_stream.device)
        empty_cache()
        self._context.__enter__()
        try:
            self.cuda_graph.capture_begin(self.pool, self.capture_error_mode)
        except BaseException:
            self._context.__exit__()
            raise

    def __exit__(self, kind: Any, *rest: object) -> None:
        try:
            self.cuda_graph._end(kind is None)
        finally:
            self._context.__exit__(kind, *rest)


def make_graphed_callables(
    callables: Any,
    sample_args: Any,
    num_warmup_iters: int = 3,
    allow_unused_input: bool = False,
    pool: Any = None,
) -> Any:
    """Functions or modules whose forward and backward pass run as one program each: what
    `torch.compile` makes of them, for arguments like the samples.

    Args:
        callables: one, or a tuple of them. A module gets another `forward`, which is used in the
            mode (`training`) that it was in; it may have neither hooks nor buffers that require
            grad.
        sample_args: a tuple of tensors, or for a tuple of callables one of those for each.
        num_warmup_iters: so often each is called, with gradients, before.
        allow_unused_input: whether an input that requires grad may have no effect on the outputs.
        pool: makes no difference.

    Raises:
        AssertionError: samples that are no tensors; hooks; buffers that require grad.
        RuntimeError: an input that is not used. Of calls: arguments that are not like the samples.
    """
    if not isinstance(callables, tuple):
        return _graphed(callables, sample_args, num_warmup_iters, allow_unused_input)
    return tuple(
        _graphed(function, samples, num_warmup_iters, allow_unused_input)
        for function, samples in zip(callables, sample_args, strict=True)
    )


def _graphed(function: Any, samples: tuple[Any, ...], warm: int, unused: bool) -> Any:
    flat = tree_leaves(samples)
    if not all(isinstance(x, Tensor) for x in flat):
        raise AssertionError(
            "In the beta API, sample_args for each callable must contain only Tensors. Other types "
            "are not allowed."
        )
    if isinstance(function, Module):
        _check_module(function)
    surface = [*flat, *(function.parameters() if isinstance(function, Module) else ())]
    for _ in range(warm):
        _warm_up(function, samples, [x for x in surface if x.requires_grad], unused)
    if not isinstance(function, Module):
        return _compiled(function, flat)
    plain, training = function.forward, function.training
    fast = _compiled(plain, flat)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (fast if function.training == training else plain)(*args, **kwargs)

    function.forward = forward  # type: ignore[method-assign]
    return function


def _check_module(module: Module) -> None:
    if module._backward_hooks or module._forward_hooks or module._forward_pre_hooks:
        raise AssertionError(
            "Modules must not have hooks registered at the time they are passed. However, "
            "registering hooks on modules after passing them through make_graphed_callables is "
            "allowed."
        )
    if any(b.requires_grad for b in module.buffers()):
        raise AssertionError(
            "In any :class:`~torch.nn.Module` passed to :func:`~make_graphed_callables`, only "
            "parameters may be trainable. All buffers must have ``requires_grad=False``."
        )


def _warm_up(function: Any, samples: tuple[Any, ...], inputs: list[Tensor], unused: bool) -> None:
    """One call with its gradients. Raises RuntimeError: of an input there is none."""
    outputs = [y for y in tree_leaves(function(*samples)) if y.requires_grad]
    if outputs:
        ones = [y.detach() for y in outputs]
        grad(outputs, inputs, ones, allow_unused=unused)


def _compiled(function: Callable[..., Any], samples: list[Tensor]) -> Callable[..., Any]:
    fast = compile(function, fullgraph=True, dynamic=False)
    wanted = [(tuple(x.shape), x.dtype, x.device) for x in samples]

    def call(*args: Any, **kwargs: Any) -> Any:
        given = [(tuple(x.shape), x.dtype, x.device) for x in tree_leaves(args)]
        if given != wanted:
            raise RuntimeError(
                f"a graphed callable takes tensors like its sample_args: expected {wanted}, got "
                f"{given}"
            )
        return fast(*args, **kwargs)

    return call
