"""`torch.backends.cudnn` and its like: switches of libraries that graphtorch does not use.

Programs set them before they train. Those of TF32 say what products and convolutions on GPUs may
round; the others hold what is assigned and change nothing. The queries say that the library is not
there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from graphtorch import backends

from .. import _settings


class Precision:
    """How float32 is computed on GPUs, by what `_settings.set_float32` names, as an attribute.

    It reads and takes "none", "ieee" and "tf32". Raises: RuntimeError: another one. TypeError: no
        string.
    """

    def __init__(self, what: str):
        self.what = what

    def __get__(self, owner: Any, kind: Any = None) -> str:
        return _settings.float32_precision(self.what)

    def __set__(self, owner: Any, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"fp32_precision expects a str, but got {type(value).__name__}")
        _settings.set_float32(self.what, value)


class Allowed(Precision):
    """Whether they may be rounded to TF32: True or False. Raises: RuntimeError: no bool."""

    def __init__(self, what: str, library: str, otherwise: str):
        super().__init__(what)
        self.library, self.otherwise = library, otherwise

    def __get__(self, owner: Any, kind: Any = None) -> bool:  # type: ignore[override]
        return _settings.float32_precision(self.what) == "tf32"

    def __set__(self, owner: Any, value: bool) -> None:  # type: ignore[override]
        if not isinstance(value, bool):
            raise RuntimeError(
                f"set_allow_tf32_{self.library} expects a bool, but got {type(value).__name__}"
            )
        _settings.set_float32(self.what, "tf32" if value else self.otherwise)


class Products(SimpleNamespace):
    """Switches of products on GPUs."""

    allow_tf32 = Allowed("matmul", "cublas", "ieee")
    fp32_precision = Precision("matmul")


class Convolutions(SimpleNamespace):
    """Switches of convolutions on GPUs."""

    fp32_precision = Precision("conv")


class Recurrent(SimpleNamespace):
    """Switches of recurrent nets on GPUs, which are products here."""

    fp32_precision = Precision("rnn")


class Backends(ModuleType):
    """The module of all backends, with their common switch."""

    fp32_precision = Precision("generic")


class Switches(ModuleType):
    """The switches of one library, as a module."""

    def __init__(self, name: str, **switches: Any):
        super().__init__(
            f"{backends.__name__}.{name}", f"Switches of {name}, which graphtorch does not use."
        )
        self.__dict__.update(switches)

    def is_available(self) -> bool:
        """Whether graphtorch uses the library: no."""
        return False

    is_built = is_available

    def version(self) -> None:
        """None: there is no such library here."""

    @contextlib.contextmanager
    def flags(self, **switches: Any) -> Iterator[None]:
        """Other settings of the switches within a ``with`` block."""
        before = {name: getattr(self, name) for name in switches}
        try:
            for name, value in switches.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


class Cudnn(Switches):
    """The switches of cuDNN: whether convolutions on GPUs may round to TF32 is one of them."""

    allow_tf32 = Allowed("conv", "cudnn", "none")
    fp32_precision = Precision("all")

    @contextlib.contextmanager
    def flags(  # type: ignore[override]
        self,
        enabled: bool = False,
        benchmark: bool = False,
        benchmark_limit: int = 10,
        deterministic: bool = False,
        allow_tf32: bool = True,
        fp32_precision: str = "none",
        depthwise_kernel: str = "auto",
    ) -> Iterator[None]:
        """Other settings within a ``with`` block: as in PyTorch, of all that are not given too."""
        with super().flags(
            enabled=enabled,
            benchmark=benchmark,
            benchmark_limit=benchmark_limit,
            deterministic=deterministic,
            allow_tf32=allow_tf32,
            fp32_precision=fp32_precision,
            depthwise_kernel=depthwise_kernel,
        ):
            yield


def install() -> None:
    """Put the switches where PyTorch has them, under ``backends``."""
    libraries: dict[str, dict[str, Any]] = {
        "cudnn": {
            "enabled": True,
            "benchmark": False,
            "benchmark_limit": 10,
            "deterministic": False,
            "depthwise_kernel": "auto",
            "conv": Convolutions(),
            "rnn": Recurrent(),
        },
        "cuda": {
            "matmul": Products(
                allow_fp16_reduced_precision_reduction=True,
                allow_bf16_reduced_precision_reduction=True,
            )
        },
        "mkl": {},
        "mkldnn": {"enabled": True},
        "mps": {},
        "openmp": {},
        "quantized": {"engine": "none", "supported_engines": ["none"]},
    }
    backends.__class__ = Backends
    for name, switches in libraries.items():
        if not hasattr(backends, name):
            made = (Cudnn if name == "cudnn" else Switches)(name, **switches)
            setattr(backends, name, made)
            sys.modules[made.__name__] = made
