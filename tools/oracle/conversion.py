"""Tensors of PyTorch's samples as ours, and what tells results apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import graphtorch


def to_array(x: torch.Tensor) -> np.ndarray:
    """A tensor of PyTorch as an array; bfloat16 as float32."""
    t = x.detach().clone()
    t = (t.to_dense() if t.layout != torch.strided else t).resolve_conj().resolve_neg()
    if t.dtype is torch.complex32:
        t = t.to(torch.complex64)
    return t.float().numpy() if t.dtype is torch.bfloat16 else t.numpy()


class Place:
    """Where our tensors are."""

    name = "cpu"


def use(device: str) -> None:
    """Put our tensors there; PyTorch's are on the CPU, which rounds nothing to TF32."""
    Place.name = device
    graphtorch.backends.cudnn.allow_tf32 = False


def ours(x: Any, leaves: list[Any] | None = None) -> Any:
    """A sample's argument for graphtorch; tensors that require grad are added to `leaves`."""
    if isinstance(x, torch.Tensor):
        made = laid_out(x)
        if x.requires_grad and leaves is not None:
            leaves.append(made.requires_grad_())
        return made
    if type(x) in (list, tuple):
        return type(x)(ours(v, leaves) for v in x)
    if isinstance(x, torch.Size):
        return graphtorch.Size(x)
    if isinstance(x, dict):
        return {k: ours(v, leaves) for k, v in x.items()}
    if isinstance(x, (torch.dtype, torch.memory_format)):
        return getattr(graphtorch, str(x).split(".")[1])
    if isinstance(x, torch.device) or x == "cpu":
        return graphtorch.device(Place.name)
    if isinstance(x, torch.nn.Module):
        return module_of(x)
    return x


def module_of(x: torch.nn.Module) -> Any:
    """A module without parameters as one of ours. Raises TypeError for another."""
    if any(True for _ in (*x.parameters(), *x.buffers(), *x.children())):
        raise TypeError(f"the sample passes a module of PyTorch's own ({type(x).__name__})")
    made = getattr(graphtorch.nn, type(x).__name__)()
    made.__dict__.update(
        (k, v) for k, v in vars(x).items() if isinstance(v, (bool, int, float, str))
    )
    return made


def laid_out(x: torch.Tensor) -> Any:
    """The same elements, and where `x` shows a part of its memory the same part of as much
    memory."""
    plain = x.layout == torch.strided and not (x.is_conj() or x.is_neg())
    whole = not plain or (x.is_contiguous() and x.untyped_storage().nbytes() == x.nbytes)
    source = x if whole else torch.tensor([], dtype=x.dtype).set_(x.untyped_storage())
    made = graphtorch.tensor(to_array(source))
    if x.dtype is torch.bfloat16:
        made = made.to(graphtorch.bfloat16)
    made = made.to(Place.name)
    if x.layout is torch.sparse_csr:
        return made.to_sparse_csr()
    return made if whole else made.as_strided(x.shape, x.stride(), x.storage_offset()).detach()


def tensors(x: Any, kind: type = torch.Tensor) -> list[Any]:
    """The tensors in a nest, in order."""
    if isinstance(x, kind):
        return [x]
    if isinstance(x, dict):
        return [t for v in x.values() for t in tensors(v, kind)]
    return [t for v in x for t in tensors(v, kind)] if isinstance(x, (list, tuple)) else []


def elements(x: Any) -> np.ndarray:
    """A tensor of graphtorch as an array; bfloat16 as float32."""
    if x.device.type != Place.name:
        raise RuntimeError(f"a result is on {x.device}")
    t = x.detach().cpu()
    t = t if t.layout is graphtorch.strided else t.to_dense()
    return np.asarray((t.float() if t.dtype is graphtorch.bfloat16 else t).numpy())


def difference(got: np.ndarray, want: np.ndarray, tolerance: tuple[float, float]) -> str | None:
    """What is wrong with `got`; None where it is right."""
    if got.shape != want.shape:
        return f"shape {list(got.shape)} instead of {list(want.shape)}"
    if got.dtype != want.dtype:
        return f"dtype {got.dtype} instead of {want.dtype}"
    if np.allclose(got, want, *tolerance, equal_nan=True):
        return None
    if want.dtype.kind not in "fc":
        return f"{int((got != want).sum())} of {want.size} elements differ"
    with np.errstate(all="ignore"):
        off = np.abs(got - want) / (np.abs(want) + tolerance[1] / tolerance[0])
    return f"relative error {np.nanmax(off, initial=0):.2e}" + (
        "" if np.array_equal(np.isnan(got), np.isnan(want)) else ", NaN in other places"
    )


def brief(x: Any) -> str:
    """An argument in a few characters."""
    if isinstance(x, torch.Tensor):
        kind = str(x.dtype).split(".")[1]
        strided = x.layout is torch.strided
        layout = f" strides {list(x.stride())}" if strided else f" {x.layout}"
        layout = "" if strided and x.is_contiguous() else layout
        values = f" {x.tolist()}" if x.numel() <= 4 else ""
        return f"{kind}{list(x.shape)}{layout}{values}"
    if isinstance(x, (list, tuple)):
        return "(" + ", ".join(brief(v) for v in x) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}={brief(v)}" for k, v in x.items()) + "}"
    return repr(x)
