"""What holds for all compiled functions: whether one is being called, and whether they are to
compile."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .._deferred.storage import recorder

STANCES = (
    "default",
    "eager_then_compile",
    "aot_eager_then_compile",
    "force_eager",
    "eager_on_recompile",
    "fail_on_recompile",
)
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "lite": {
        "fallback_by_default": True,
        "selective_decompose": True,
        "reorder_for_peak_memory": False,
        "reorder_for_compute_comm_overlap": False,
        "triton.reorder_for_reducing_graph_partitions": False,
        "use_pre_grad_passes": False,
        "use_joint_graph_passes": False,
        "use_post_grad_passes": False,
        "use_dce": False,
        "allow_buffer_reuse": False,
    },
    "reduce-overhead": {"triton.cudagraphs": True},
    "max-autotune-no-cudagraphs": {"max_autotune": True, "coordinate_descent_tuning": True},
    "max-autotune": {
        "max_autotune": True,
        "triton.cudagraphs": True,
        "coordinate_descent_tuning": True,
    },
}
LISTED = ["cudagraphs", "inductor", "openvino", "openxla", "tvm"]
# PyTorch's names for what compiles; here all of them are one.
BACKENDS = {
    *LISTED,
    "eager",
    "eager_noexcept",
    "eager_debug",
    "aot_eager",
    "aot_eager_default_partitioner",
    "aot_eager_decomp_partition",
    "aot_eager_decomp_partition_with_mode",
    "aot_eager_decomp_partition_crash",
    "aot_ts",
    "ts",
    "pre_dispatch_eager",
    "onnxrt",
    "dynamo_accuracy_minifier_backend",
    "dynamo_minifier_backend",
    "test_subclasses",
    "non_leaf_compile_error_TESTING_ONLY",
    "relu_compile_error_TESTING_ONLY",
    "relu_runtime_error_TESTING_ONLY",
    "relu_accuracy_error_TESTING_ONLY",
}


class TorchDynamoException(RuntimeError):
    """Base of the errors that are about compiling."""


class InvalidBackend(TorchDynamoException):
    """A backend that does not exist."""

    def __init__(self, name: Any):
        super().__init__(
            f"Invalid backend: {name!r}, see `torch._dynamo.list_backends()` for available "
            "backends."
        )


class Unsupported(TorchDynamoException):
    """What the graph of a function that has to be whole cannot hold."""


class ConstraintViolationError(RuntimeError):
    """A recording holds for one size alone that was marked as dynamic."""


class Status(threading.local):
    """Of one thread.

    Attributes:
        depth: calls of compiled functions whose Python runs.
        stance: see `set_stance`.
    """

    depth = 0
    stance = "default"


status = Status()
compiled: WeakSet[Any] = WeakSet()  # every compiled function


def is_compiling() -> bool:
    """Whether the code that runs belongs to a compiled function, or is being traced or exported."""
    return status.depth > 0 or recorder.capture is not None


def is_exporting() -> bool:
    """Whether the code that runs is being traced, as for an export."""
    return bool(getattr(recorder.capture, "constants", False))


def reset() -> None:
    """Forget what was recorded of every compiled function."""
    for one in list(compiled):
        one.reset()


class set_stance:
    """How compiled functions act from now on; as a context manager or decorator, inside of it.

    ``"force_eager"``: they run as if they were not compiled. ``"eager_on_recompile"``: so do calls
    that would be recorded. ``"fail_on_recompile"``: those are errors. Others: as usual.
    """

    def __init__(
        self,
        stance: str = "default",
        *,
        skip_guard_eval_unsafe: bool = False,
        force_backend: Any = None,
    ):
        if stance not in STANCES:
            raise RuntimeError(f"invalid torch.compile stance '{stance}'")
        self._before, self._stance = status.stance, stance
        status.stance = stance

    def __enter__(self) -> None:
        status.stance = self._stance

    def __exit__(self, *exc: object) -> None:
        status.stance = self._before

    def __call__(self, function: Callable[..., Any]) -> Any:
        status.stance = self._before  # used as a decorator: only calls of the function are meant
        stance = self._stance

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            before, status.stance = status.stance, stance
            try:
                return function(*args, **kwargs)
            finally:
                status.stance = before

        return inside


def leave_capture(what: str) -> None:
    """The capture in progress ends here: what comes cannot be part of it.

    Raises:
        Unsupported: the whole function has to be one graph; `what` there is says why not.
    """
    capture = recorder.capture
    if capture is None:
        return
    if getattr(capture, "fullgraph", False) or not capture.call_off(True):
        raise Unsupported(what)


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """A function, method or module that is never part of a recording; also as a decorator.

    A compiled function that calls it runs line by line. `recursive` makes no difference.
    """
    if fn is None:
        return lambda f: disable(f, recursive, reason=reason)
    if not callable(fn):
        raise AssertionError(f"A callable function is expected, but {type(fn)} is provided.")
    if inspect.isclass(fn):
        setattr(fn, "__call__", disable(fn.__call__))  # noqa: B010
        return fn

    @functools.wraps(fn)
    def apart(*args: Any, **kwargs: Any) -> Any:
        leave_capture("Skip calling `torch.compiler.disable()`d function")
        depth, status.depth = status.depth, 0
        stance, status.stance = status.stance, "force_eager"
        try:
            return fn(*args, **kwargs)
        finally:
            status.depth, status.stance = depth, stance

    apart._torchdynamo_orig_callable = fn  # type: ignore[attr-defined]
    return apart


def graph_break(msg: str = "") -> None:
    """Nothing; where the whole function has to be one graph, an error."""
    if getattr(recorder.capture, "fullgraph", False):
        raise Unsupported("Call to `torch._dynamo.graph_break()`" + (f": {msg}" if msg else ""))
