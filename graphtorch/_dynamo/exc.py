"""The errors of ``torch._dynamo`` that programs catch."""

from __future__ import annotations

from .._captured.status import InvalidBackend, TorchDynamoException, Unsupported


class InternalTorchDynamoError(TorchDynamoException):
    """Never raised here."""


class TorchRuntimeError(TorchDynamoException):
    """Never raised here: errors are those of the plain function."""


class BackendCompilerFailed(TorchDynamoException):
    """Never raised here."""


class UserError(Unsupported):
    """Never raised here."""


class RecompileError(TorchDynamoException):
    """Never raised here."""


class FailOnRecompileLimitHit(TorchDynamoException):
    """Never raised here: beyond the limit calls run line by line."""


class ResetRequired(TorchDynamoException):
    """Never raised here."""


__all__ = [
    "BackendCompilerFailed",
    "FailOnRecompileLimitHit",
    "InternalTorchDynamoError",
    "InvalidBackend",
    "RecompileError",
    "ResetRequired",
    "TorchDynamoException",
    "TorchRuntimeError",
    "Unsupported",
    "UserError",
]
