"""Gradients compared with finite differences, laid out as PyTorch's module of this name.

For a function f and a cotangent c of its output, backward gives the g with d Re<c, f> = Re<g, dx>.
Each such g, for c along every axis (and i times it, where the output is complex), is compared with
central differences along every axis of x (and i times it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._deferred.tensor import Tensor
from .._ops.creation import from_array
from .._settings import warn_user
from .engine import grad
from .grad_mode import enable_grad, no_grad


class GradcheckError(RuntimeError):
    """A gradient differs from its finite difference, or is not what backward should give."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of `func` at `inputs` are its finite differences: True, or an error.

    Args:
        func: of tensors; returns a tensor or several. Results that are not differentiable are left
            out.
        inputs: a tensor or several; those that require grad should be of double precision.
        eps: the step of the differences. atol, rtol: how far gradients may be from them.
        raise_exception: whether to raise rather than return False.
        nondet_tol: how far two backward passes may differ.
        check_grad_dtypes: whether gradients must have the dtype of their inputs.
        fast_mode: compare along one random direction instead of every axis.

    Raises:
        GradcheckError: a gradient differs. ValueError: no input requires grad.
        RuntimeError: a check that needs forward-mode differentiation, which is not available.
    """
    _refuse(
        check_forward_ad=check_forward_ad, check_batched_forward_grad=check_batched_forward_grad
    )
    given = _listed(inputs)
    try:
        _check_inputs(given)
        if check_backward_ad:
            check = _Check(func, given, eps, atol, rtol, nondet_tol, check_grad_dtypes)
            check.along_a_direction() if fast_mode else check.along_every_axis()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`gradcheck` of the gradients of `func`, as functions of `inputs` and of the cotangents
    `grad_outputs` (random ones by default)."""
    _refuse(check_fwd_over_rev=check_fwd_over_rev)
    given = _listed(inputs)
    if grad_outputs is None:
        cotangents = [_random_like(out) for out in _differentiable(func(*given))]
        if gen_non_contig_grad_outputs:
            cotangents = [_spread(c) for c in cotangents]
    else:
        cotangents = list(_listed(grad_outputs))
    cotangents = [c.detach().requires_grad_() for c in cotangents]
    count = len(cotangents)

    def gradients(*args: Any) -> tuple[Any, ...]:
        args, seeds = args[:-count], args[-count:]
        args = tuple(a.requires_grad_() if _needs(a) and a.is_leaf else a for a in args)
        outputs = _differentiable(func(*args))
        wanted = [a for a in args if _needs(a)]
        found = grad(outputs, wanted, seeds, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients, (*given, *cotangents), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad, fast_mode=fast_mode, masked=masked,
    )  # fmt: skip


def _refuse(**asked: bool) -> None:
    for name, value in asked.items():
        if value:
            raise RuntimeError(
                f"gradcheck: {name}=True needs forward-mode differentiation, which is not "
                "available: leave it out; backward derivatives are checked without it"
            )


def _listed(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, (tuple, list)) else (values,)


def _needs(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _differentiable(outputs: Any) -> list[Tensor]:
    for out in _listed(outputs):
        if not isinstance(out, Tensor):
            raise AttributeError(
                f"'{type(out).__name__}' object has no attribute 'requires_grad': what is checked "
                "must return tensors"
            )
        if out.is_sparse:
            raise ValueError(
                "Sparse output is not supported at gradcheck yet. Please call "
                "to_dense(masked_grad=...) on the output of fn for gradcheck."
            )
    return [o for o in _listed(outputs) if _needs(o)]


def _random_like(x: Tensor) -> Tensor:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(x.shape)
    if x.dtype.is_complex:
        array = array + 1j * rng.standard_normal(x.shape)
    return from_array(np.asarray(array).astype(x._type.dtype.numpy), place=x.device)


def _spread(x: Tensor) -> Tensor:
    """The same elements with gaps between them."""
    if x.ndim == 0:
        return x
    wide = x.unsqueeze(-1).expand((*x.shape, 2)).contiguous()
    return wide.select(-1, 0)


def _check_inputs(inputs: Sequence[Any]) -> None:
    if not any(_needs(x) for x in inputs):
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, "
            "but none of them have requires_grad=True."
        )
    for i, x in enumerate(inputs):
        if _needs(x) and x._type.dtype.real.name != "f64":
            warn_user(
                f"Input #{i} requires gradient and is not a double precision floating point or "
                "complex. This check will likely fail if all the inputs are not of double "
                "precision floating point or complex. ",
            )
        if (
            _needs(x)
            and x.numel()
            and any(s == 0 and n > 1 for s, n in zip(x.stride(), x.shape, strict=True))
        ):
            raise RuntimeError(
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs "
                "that are non-overlapping to be able to compute the numerical gradients correctly. "
                "You should call .contiguous on the input before passing it to gradcheck."
            )


class _Check:
    """One function at one point."""

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Sequence[Any],
        eps: float,
        atol: float,
        rtol: float,
        nondet_tol: float,
        dtypes: bool,
    ):
        self.func, self.inputs, self.eps = func, inputs, eps
        self.atol, self.rtol, self.nondet_tol, self.dtypes = atol, rtol, nondet_tol, dtypes
        self.wanted = [i for i, x in enumerate(inputs) if _needs(x)]
        self.outputs = _differentiable(self.run())
        if not self.outputs and any(isinstance(o, Tensor) for o in _listed(func(*inputs))):
            self.check_constant()

    def run(self, replaced: dict[int, np.ndarray] | None = None) -> tuple[Any, ...]:
        """The results, with some inputs replaced."""
        args = []
        for i, x in enumerate(self.inputs):
            if isinstance(x, Tensor):
                array = (replaced or {}).get(i)
                x = x if array is None else from_array(array.copy(), x.requires_grad, x.device)
            args.append(x)
        with enable_grad():
            return _listed(self.func(*args))

    def values(self, replaced: dict[int, np.ndarray]) -> list[np.ndarray]:
        with no_grad():
            return [
                o.detach().numpy(force=True).copy() for o in _differentiable(self.run(replaced))
            ]

    def gradients(self, which: int, cotangent: np.ndarray) -> list[np.ndarray]:
        """Of one output; zeros for inputs that it does not depend on."""
        output = self.outputs[which]
        seed = from_array(np.array(cotangent, output._type.dtype.numpy), place=output.device)
        leaves = [self.inputs[i] for i in self.wanted]
        found = grad(output, leaves, seed, retain_graph=True, allow_unused=True)
        result = []
        for i, (x, g) in enumerate(zip(leaves, found, strict=True)):
            self._check_form(i, x, g)
            zeros = np.zeros(x.shape, x._type.dtype.numpy)
            result.append(zeros if g is None else g.detach().numpy(force=True).copy())
        return result

    def _check_form(self, i: int, x: Tensor, g: Tensor | None) -> None:
        if g is None:
            return
        if g.shape != x.shape:
            raise GradcheckError(
                f"grad is incorrect size: for input {i} {list(g.shape)}, not {list(x.shape)}"
            )
        if self.dtypes and g.dtype is not x.dtype:
            raise GradcheckError(
                "Backward is not returning gradients of the input's dtype: for input "
                f"{i} {g.dtype} instead of {x.dtype}"
            )

    def check_constant(self) -> None:
        """Results that do not require grad must not change with the inputs that do."""
        for i in self.wanted:
            for moved in self._steps(i):
                before, after = (
                    [
                        o.detach().numpy(force=True)
                        for o in _listed(self.run(r))
                        if isinstance(o, Tensor)
                    ]
                    for r in ({}, {i: moved})
                )
                for a, b in zip(before, after, strict=True):
                    if a.dtype.kind in "fc" and not np.allclose(
                        a, b, 0, self.eps * 1e-3, equal_nan=True
                    ):
                        raise GradcheckError("Numerical gradient for function expected to be zero")

    def _steps(self, i: int) -> Any:
        x = self.inputs[i].detach().numpy(force=True)
        for place in np.ndindex(x.shape):
            moved = x.copy()
            moved[place] += self.eps
            yield moved

    # -- along every axis

    def along_every_axis(self) -> None:
        self._check_reentrant()
        for which, output in enumerate(self.outputs):
            analytic = self._analytic(which, output)
            for position, i in enumerate(self.wanted):
                pair = analytic[position], self._numeric(which, i, output)
                if not output.dtype.is_complex:
                    self._compare(*pair, which, position)
                    continue
                parts = [np.split(jacobian, 2, 1) for jacobian in pair]  # real, imaginary
                for part, kind in ((1, "imaginary"), (0, "real")):
                    about = f"While considering the {kind} part of complex outputs only, "
                    self._compare(parts[0][part], parts[1][part], which, position, about)

    def _units(self, x: Tensor) -> Any:
        """Axes of a tensor, and i times them where it is complex."""
        dtype = x._type.dtype.numpy
        for factor in (1, 1j) if x.dtype.is_complex else (1,):
            for place in np.ndindex(tuple(x.shape)):
                unit = np.zeros(x.shape, dtype)
                unit[place] = factor
                yield unit

    def _analytic(self, which: int, output: Tensor) -> list[np.ndarray]:
        rows: list[list[np.ndarray]] = [[] for _ in self.wanted]
        for unit in self._units(output):
            for row, g in zip(rows, self.gradients(which, unit), strict=True):
                row.append(_as_reals(g))
        sizes = [
            2 * x.numel() if x.dtype.is_complex else x.numel()
            for x in (self.inputs[i] for i in self.wanted)
        ]
        return [np.array(row).reshape(len(row), n).T for row, n in zip(rows, sizes, strict=True)]

    def _numeric(self, which: int, i: int, output: Tensor) -> np.ndarray:
        x = self.inputs[i].detach().numpy(force=True)
        rows = []
        for unit in self._units(self.inputs[i]):
            rows.append(_as_reals(self._difference(which, i, x, unit)))
        width = 2 * output.numel() if output.dtype.is_complex else output.numel()
        return np.array(rows).reshape(len(rows), width)

    def _difference(self, which: int, i: int, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        step = (direction * self.eps).astype(x.dtype)
        up, down = self.values({i: x + step})[which], self.values({i: x - step})[which]
        return (up - down) / (2 * self.eps)

    def _compare(
        self,
        analytic: np.ndarray,
        numeric: np.ndarray,
        which: int,
        position: int,
        about: str = "",
    ) -> None:
        if not np.allclose(analytic, numeric, self.rtol, self.atol, equal_nan=True):
            raise GradcheckError(
                f"{about}Jacobian mismatch for output {which} with respect to input {position},\n"
                f"numerical:{_shown(numeric)}\nanalytical:{_shown(analytic)}\n"
            )

    def _check_reentrant(self) -> None:
        for which, output in enumerate(self.outputs):
            seed = np.ones(output.shape)
            first, second = self.gradients(which, seed), self.gradients(which, seed)
            for a, b in zip(first, second, strict=True):
                # a graph that keeps coming is compiled: its roundings may then differ from those
                # before
                roundings = 256 * float(np.finfo(a.dtype).eps)
                if not np.allclose(a, b, roundings, self.nondet_tol + roundings, equal_nan=True):
                    raise GradcheckError(
                        "Backward is not reentrant, i.e., running backward with same input and "
                        "grad_output multiple times gives different values, although analytical "
                        "gradient matches numerical gradient.The tolerance for nondeterminism was "
                        f"{self.nondet_tol}.\n\nNOTE: If your op relies on non-deterministic "
                        "operations, call gradcheck/gradgradcheck with `nondet_tol=<tol>` as a "
                        "keyword argument."
                    )

    # -- along one direction

    def along_a_direction(self) -> None:
        rng = np.random.default_rng(0)
        for which, output in enumerate(self.outputs):
            cotangent = _direction(rng, output)
            analytic = self.gradients(which, cotangent)
            for position, i in enumerate(self.wanted):
                x, along = (
                    self.inputs[i].detach().numpy(force=True),
                    _direction(rng, self.inputs[i]),
                )
                change = self._difference(which, i, x, along)
                numeric = np.sum(_as_reals(change) * _as_reals(np.asarray(cotangent)))
                found = np.sum(_as_reals(analytic[position]) * _as_reals(np.asarray(along)))
                self._compare(np.asarray(found), np.asarray(numeric), which, position)
        self._check_reentrant()


def _shown(jacobian: np.ndarray) -> Any:
    return from_array(jacobian.copy()) if jacobian.ndim else float(jacobian)


def _direction(rng: np.random.Generator, x: Tensor) -> np.ndarray:
    """A random direction of length 1 in the space of a tensor."""
    made = rng.standard_normal(x.shape) + (
        1j * rng.standard_normal(x.shape) if x.dtype.is_complex else 0
    )
    return np.asarray(made / max(float(np.linalg.norm(made)), 1e-300))


def _as_reals(x: np.ndarray) -> np.ndarray:
    """A flat array; of complex numbers first the real parts, then the imaginary ones."""
    flat = np.asarray(x).reshape(-1)
    return np.concatenate([flat.real, flat.imag]) if np.iscomplexobj(flat) else flat
