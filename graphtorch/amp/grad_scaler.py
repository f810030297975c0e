"""Scaling of losses, so that small gradients survive in float16.

https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import Any

from .._deferred.door import gpus
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._settings import warn_user
from .._types import DTYPES, device
from ..autograd import no_grad


class _Stage(Enum):
    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh() -> dict[str, Any]:
    return {"stage": _Stage.READY, "found_inf": None}


class GradScaler:
    """Multiplies losses by a scale, divides gradients by it, and skips steps whose gradients
    overflowed.

    Args:
        device: "cpu"; "cuda" disables the scaler, with a warning, where there is no GPU.
        init_scale: the first scale.
        growth_factor, growth_interval: the scale grows by the factor after so many good steps in a
            row.
        backoff_factor: the scale's factor after a step that was skipped.
        enabled: False makes every method pass things through.

    Raises: AssertionError for factors on the wrong side of 1.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        self._device, self._enabled = device, enabled
        if device == "cuda" and enabled and not gpus():
            warn_user(
                "torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.",
            )
            self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale = init_scale
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._scale: Tensor | None = None  # made when the first loss comes
        self._growth_tracker: Tensor | None = None
        self._optimizers: defaultdict[int, dict[str, Any]] = defaultdict(_fresh)

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in lists and tuples, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._begin(outputs.device)
            return outputs * self._scale
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled  # type: ignore[call-arg]
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def _begin(self, place: device) -> None:
        full = FUNCTIONS["full"]
        self._scale = full((), float(self._init_scale), dtype=DTYPES["float32"], device=place)
        self._growth_tracker = full(
            (), self._init_growth_tracker, dtype=DTYPES["int32"], device=place
        )

    def _check(self, what: str) -> Tensor:
        if self._scale is None:
            raise AssertionError(
                f"Attempted {what} but _scale is None.  This may indicate your script did "
                "not use scaler.scale(loss or outputs) earlier in the iteration."
            )
        return self._scale

    def unscale_(self, optimizer: Any) -> None:
        """Divide the optimizer's gradients by the scale, as for clipping them before `step`.

        Raises: RuntimeError for a second call before `update`, ValueError for float16 gradients.
        """
        if not self._enabled:
            return
        scale = self._check("unscale_")
        state = self._optimizers[id(optimizer)]
        if state["stage"] is _Stage.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if state["stage"] is _Stage.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        inverse = scale.double().reciprocal().float()
        state["found_inf"] = self._unscale(optimizer, inverse)
        state["stage"] = _Stage.UNSCALED

    @staticmethod
    def _unscale(optimizer: Any, inverse: Tensor) -> Tensor:
        """1 where a gradient is not finite, else 0."""
        found = FUNCTIONS["zeros"]((), dtype=DTYPES["bool"], device=inverse.device)
        with no_grad():
            for group in optimizer.param_groups:
                for param in group["params"]:
                    grad = param.grad
                    if grad is None:
                        continue
                    if grad.dtype is DTYPES["float16"]:
                        raise ValueError("Attempting to unscale FP16 gradients.")
                    values = grad._values() if grad.is_sparse else grad
                    found = found | ~values.isfinite().all()
                    grad.mul_(inverse.to(grad.dtype))
        return found.float()  # type: ignore[no-any-return]

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`unscale_` if that was not done, then ``optimizer.step``, unless a gradient is not
        finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._check("step")
        state = self._optimizers[id(optimizer)]
        if state["stage"] is _Stage.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if state["stage"] is _Stage.READY:
            self.unscale_(optimizer)
        result = None if state["found_inf"].item() else optimizer.step(*args, **kwargs)
        state["stage"] = _Stage.STEPPED
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what the last steps met, or set it to `new_scale`."""
        if not self._enabled:
            return
        scale = self._check("update")
        if new_scale is not None:
            scale.fill_(new_scale)
        else:
            found = [
                s["found_inf"] for s in self._optimizers.values() if s["found_inf"] is not None
            ]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            self._adapt(scale, any(f.item() for f in found))
        self._optimizers.clear()

    def _adapt(self, scale: Tensor, overflowed: bool) -> None:
        tracker: Any = self._growth_tracker
        if overflowed:
            scale.mul_(self._backoff_factor)
            tracker.zero_()
        elif int(tracker) + 1 == self._growth_interval:
            grown = scale * self._growth_factor
            scale.copy_(FUNCTIONS["where"](grown.isfinite(), grown, scale))
            tracker.zero_()
        else:
            tracker.add_(1)

    def get_scale(self) -> float:
        """The scale now."""
        if not self._enabled:
            return 1.0
        return float(self._init_scale if self._scale is None else self._scale.item())

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return (
            self._init_growth_tracker if self._growth_tracker is None else int(self._growth_tracker)
        )

    def is_enabled(self) -> bool:
        """Whether this scaler does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """What to save; empty for a scaler that is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, here or in PyTorch. RuntimeError for an empty one."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a "
                "disabled instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._scale is not None:
            self._begin(self._scale.device)
