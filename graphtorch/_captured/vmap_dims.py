"""What `in_dims` and `out_dims` of `vmap` say of the arguments and results: nests of dimensions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .._deferred.tensor import Tensor

Size = Any  # an int, or a symbolic size


def _parts(tree: Any) -> list[Any] | None:
    if isinstance(tree, dict):
        return list(tree.values())
    return list(tree) if isinstance(tree, (tuple, list)) else None


def spread(dims: Any, tree: Any) -> list[tuple[Any, Any]] | None:
    """The leaves of `tree`, each with what `dims`, a nest that may end before, says of it; None
    where they do not fit."""
    inner = _parts(tree)
    if inner is None:
        return [(tree, dims)] if _parts(dims) is None else None
    if _parts(dims) is None:
        pairs = [spread(dims, part) for part in inner]
    elif type(dims) is not type(tree) or len(dims) != len(tree):
        return None
    elif isinstance(tree, dict):
        pairs = [spread(dims[k], part) if k in dims else None for k, part in tree.items()]
    else:
        pairs = [spread(one, part) for one, part in zip(dims, inner, strict=True)]
    return None if any(p is None for p in pairs) else [leaf for p in pairs for leaf in p or ()]


def mapped_arguments(
    func: Callable[..., Any], in_dims: Any, args: tuple[Any, ...]
) -> tuple[list[Tensor], list[int | None], Size]:
    """The tensors in `args`, the mapped dimension of each, from the front, and the number of
    entries."""
    name = name_of(func)
    where = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>):"
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"{where} expected `in_dims` to be int or a (potentially nested) tuple matching the "
            f"structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are "
            "trying to vmap over a function with no inputs. The latter is unsupported."
        )
    pairs = spread(in_dims, args)
    if pairs is None:
        raise ValueError(
            f"{where} in_dims is not compatible with the structure of `inputs`: give an int, None, "
            "or a tuple of these with the structure of the arguments"
        )
    dims = [_checked_dim(where, leaf, dim) for leaf, dim in pairs]
    tensors = [
        (leaf, d) for (leaf, _), d in zip(pairs, dims, strict=True) if isinstance(leaf, Tensor)
    ]
    sizes = [t._type.shape[d] for t, d in tensors if d is not None]
    if not sizes:
        raise ValueError("vmap: Expected at least one Tensor to vmap over")
    if any(s != sizes[0] for s in sizes):
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{sizes} for the mapped dimension"
        )
    return [t for t, _ in tensors], [d for _, d in tensors], sizes[0]


def _checked_dim(where: str, leaf: Any, dim: Any) -> int | None:
    if dim is None:
        return None
    if not isinstance(dim, int):
        raise ValueError(
            f"{where} Got in_dim={dim} for an input but in_dim must be either an integer dimension "
            "or None."
        )
    if not isinstance(leaf, Tensor):
        raise ValueError(
            f"{where} Got in_dim={dim} for an input but the input is of type {type(leaf)}. We "
            "cannot vmap over non-Tensor arguments, please use None as the respective in_dim"
        )
    if not -leaf.ndim <= dim < leaf.ndim:
        raise ValueError(
            f"{where} Got in_dim={dim} for some input, but that input is a Tensor of "
            f"dimensionality {leaf.ndim} so expected in_dim to satisfy -{leaf.ndim} <= in_dim < "
            f"{leaf.ndim}."
        )
    return dim % leaf.ndim


def check_out_dims(out_dims: Any, func: Callable[..., Any]) -> None:
    """Raise ValueError unless `out_dims` is a nest of ints and None."""
    for dim, _ in spread(0, out_dims) or []:
        if dim is not None and not isinstance(dim, int):
            raise ValueError(
                f"vmap({name_of(func)}, ..., out_dims={out_dims}): `out_dims` must be an int, None "
                "or a python collection of ints representing where in the outputs the vmapped "
                "dimension should appear."
            )


def out_places(func: Callable[..., Any], out_dims: Any, result: Any) -> list[Any]:
    """For each tensor of `result` where it is to have its entries."""
    if isinstance(result, Tensor) and isinstance(out_dims, tuple) and len(out_dims) == 1:
        out_dims = out_dims[0]
    pairs = spread(out_dims, result)
    if pairs is None:
        raise ValueError(
            f"vmap({name_of(func)}, ..., out_dims={out_dims})(<inputs>): out_dims is not "
            "compatible with the structure of `outputs`: give an int, None, or a nest of these "
            "with the structure of the result"
        )
    for leaf, dim in pairs:
        if dim is not None and not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap({name_of(func)}, ...): `{name_of(func)}` must only return Tensors, got type "
                f"{type(leaf)}. "
                "Did you mean to set out_dims= to None for output?"
            )
    return [dim for leaf, dim in pairs if isinstance(leaf, Tensor)]


def name_of(func: Any) -> str:
    """How messages call a function."""
    if isinstance(func, functools.partial):
        return f"functools.partial({name_of(func.func)}, ...)"
    return getattr(func, "__name__", None) or repr(func)
