"""Pruning: ``<name>`` becomes ``<name>_orig * <name>_mask``, the mask 0 at the least important
part.

M. Paganini, J. Forde: Streamlining Tensor and Network Pruning in PyTorch,
https://arxiv.org/abs/2004.13770
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..modules import Module

Amount = int | float


def _check_amount(amount: Any) -> None:
    if not isinstance(amount, numbers.Real):
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if (isinstance(amount, numbers.Integral) and amount < 0) or (
        not isinstance(amount, numbers.Integral) and not 0.0 <= float(amount) <= 1.0
    ):
        raise ValueError(
            f"amount={amount} should either be a float in the range [0, 1] or a non-negative "
            "integer"
        )


def _count(amount: Amount, size: int) -> int:
    """How many of `size` units an amount (a number of them, or a fraction) means."""
    count = int(amount) if isinstance(amount, numbers.Integral) else round(amount * size)
    if isinstance(amount, numbers.Integral) and count > size:
        raise ValueError(
            f"amount={amount} should be smaller than the number of parameters to prune={size}"
        )
    return count


def _check_structured(t: Tensor) -> None:
    if t.ndim <= 1:
        raise ValueError(
            "Structured pruning can only be applied to multidimensional tensors. Found tensor "
            f"of shape {t.shape} with {t.ndim} dims"
        )


def _lowest_out(importance: Tensor, mask: Tensor, count: int) -> Tensor:
    """A copy of `mask` with zeros at the `count` elements of lowest importance."""
    made = mask.clone()
    if count:
        made.view(-1)[FUNCTIONS["topk"](importance.reshape(-1), count, largest=False).indices] = 0
    return made


class BasePruningMethod(ABC):
    """A way to choose what to prune: a subclass sets `PRUNING_TYPE` and gives `compute_mask`."""

    PRUNING_TYPE = "unstructured"
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask (0 and 1) of the tensor `t`; zeros of `default_mask` stay."""

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned tensor."""
        name = self._tensor_name
        if name is None:
            raise AssertionError(f"Module {module} has to be pruned")
        mask, original = getattr(module, name + "_mask"), getattr(module, name + "_orig")
        return mask.to(dtype=original.dtype) * original

    @classmethod
    def apply(
        cls,
        module: Module,
        name: str,
        *args: Any,
        importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Prune ``module.<name>``, on top of what is pruned already; the arguments make the
        method."""
        method = cls(*args, **kwargs)
        method._tensor_name = name
        earlier = [
            (key, hook)
            for key, hook in module._forward_pre_hooks.items()
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == name
        ]
        for key, hook in earlier:
            container = hook if isinstance(hook, PruningContainer) else PruningContainer(hook)
            del module._forward_pre_hooks[key]
            container.add_pruning_method(method)
            method = container  # type: ignore[assignment]
        original = getattr(module, name + "_orig") if earlier else getattr(module, name)
        # what an earlier pruning made zero counts as zero
        scores = getattr(module, name) if importance_scores is None else importance_scores
        if scores.shape != original.shape:
            raise AssertionError(
                f"importance_scores should have the same shape as parameter {name} of {module}"
            )
        default = getattr(module, name + "_mask") if earlier else FUNCTIONS["ones_like"](original)
        # where this fails, nothing has changed
        mask = method.compute_mask(scores.detach(), default.detach())
        if not earlier:
            del module._parameters[name]
            module.register_parameter(name + "_orig", original)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None
    ) -> Tensor:
        """A pruned copy of the tensor `t`."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise AssertionError("importance_scores should have the same shape as tensor t")
        default = FUNCTIONS["ones_like"](t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default).to(dtype=t.dtype)

    def remove(self, module: Module) -> None:
        """Make the pruned tensor an ordinary parameter; it stays pruned."""
        name = self._tensor_name
        weight = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original = module._parameters.pop(name + "_orig")
        assert original is not None
        original.data = weight.detach()
        del module._buffers[name + "_mask"]
        setattr(module, name, original)


class PruningContainer(BasePruningMethod):
    """Several methods, one after the other, on one tensor."""

    def __init__(self, *args: Any):
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        given = args[0] if len(args) == 1 and not isinstance(args[0], BasePruningMethod) else args
        methods = given if isinstance(given, Iterable) else (given,)
        for i, method in enumerate(methods):
            if not i:
                self._tensor_name = method._tensor_name
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Add one more, on the same tensor."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if self._tensor_name != method._tensor_name:
            raise ValueError(
                "Can only add pruning methods acting on the parameter named "
                f"'{self._tensor_name}' to PruningContainer {self}. Found "
                f"'{method._tensor_name}'"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The last method's mask of what the earlier ones left, with theirs."""
        method = self._pruning_methods[-1]
        mask = default_mask.to(dtype=t.dtype)
        if method.PRUNING_TYPE == "unstructured":
            left: Any = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            others = [d for d in range(t.ndim) if d != dim]
            alive = mask.sum(dim=others) != 0
            left = (slice(None),) * dim + (alive,)
        elif method.PRUNING_TYPE == "global":
            left = (slice(None),) * t.ndim
        else:
            raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
        made = mask.clone()
        made[left] = method.compute_mask(t[left], mask[left]).to(dtype=mask.dtype)
        return made


class Identity(BasePruningMethod):
    """Prunes nothing."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes `amount` elements (an int) or that fraction of them (a float), at random."""

    def __init__(self, amount: Amount):
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _lowest_out(-FUNCTIONS["rand_like"](t), default_mask, _count(self.amount, t.numel()))


class L1Unstructured(RandomUnstructured):
    """Prunes the elements of smallest magnitude."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return _lowest_out(t.abs(), default_mask, _count(self.amount, t.numel()))


class RandomStructured(BasePruningMethod):
    """Prunes `amount` slices along `dim`, at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, dim: int = -1):
        _check_amount(amount)
        self.amount, self.dim = amount, dim

    def importance(self, t: Tensor) -> Tensor:
        """One number a slice."""
        return FUNCTIONS["rand"](t.shape[self.dim], device=t.device)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        _check_structured(t)
        scores = self.importance(t)
        keep = _lowest_out(
            scores, FUNCTIONS["ones_like"](scores), _count(self.amount, scores.numel())
        )
        shape = [1] * t.ndim
        shape[self.dim] = scores.numel()
        return default_mask * keep.reshape(shape).to(dtype=default_mask.dtype)


class LnStructured(RandomStructured):
    """Prunes the slices along `dim` of smallest `n`-norm."""

    def __init__(self, amount: Amount, n: Any, dim: int = -1):
        super().__init__(amount, dim)
        self.n = n

    def importance(self, t: Tensor) -> Tensor:
        dim = self.dim % t.ndim
        return t.norm(self.n, [d for d in range(t.ndim) if d != dim])


class CustomFromMask(BasePruningMethod):
    """Prunes where a given mask is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor):
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        if default_mask.shape != self.mask.shape:
            raise AssertionError(
                f"the mask has shape {self.mask.shape}, the tensor {default_mask.shape}"
            )
        return default_mask * self.mask.to(dtype=default_mask.dtype)


def identity(module: Module, name: str) -> Module:
    """Add a mask of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: Amount) -> Module:
    """Prune `amount` elements of ``module.<name>`` (a float is a fraction) at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: Module, name: str, amount: Amount, importance_scores: Tensor | None = None
) -> Module:
    """Prune the `amount` elements of smallest magnitude (or of lowest `importance_scores`)."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: Amount, dim: int) -> Module:
    """Prune `amount` slices along `dim` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Module,
    name: str,
    amount: Amount,
    n: Any,
    dim: int,
    importance_scores: Tensor | None = None,
) -> Module:
    """Prune the `amount` slices along `dim` of smallest `n`-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: Tensor) -> Module:
    """Prune ``module.<name>`` where `mask` is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several tensors as if they were one: `amount` counts elements of all of them.

    Args:
        parameters: pairs (module, name).
        pruning_method: an unstructured method; `kwargs` make it.
        importance_scores: what to rank by in place of the elements, for some of the pairs.

    Raises:
        TypeError: another type of method or arguments.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    pairs = list(parameters)
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, dict):
        raise TypeError("global_unstructured(): importance_scores should be of type dict")
    flat = _as_vector([scores.get(p, getattr(*p)) for p in pairs])
    masks = _as_vector(
        [getattr(m, n + "_mask", FUNCTIONS["ones_like"](getattr(m, n))) for m, n in pairs]
    )
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}"
        )
    container = PruningContainer(method)
    final, start = container.compute_mask(flat, masks), 0
    for module, name in pairs:
        tensor = getattr(module, name)
        count = tensor.numel()
        custom_from_mask(module, name, final[start : start + count].reshape(tensor.shape))
        start += count


def _as_vector(tensors: Iterable[Tensor]) -> Tensor:
    """All elements as one vector, outside autograd."""
    return FUNCTIONS["cat"]([t.detach().reshape(-1) for t in tensors])


def remove(module: Module, name: str) -> Module:
    """Make ``module.<name>`` an ordinary parameter again; it stays pruned. ValueError where it is
    one."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(
        f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
    )


def is_pruned(module: Module) -> bool:
    """Whether any tensor of the module, or below it, is pruned."""
    return any(
        isinstance(hook, BasePruningMethod)
        for one in module.modules()
        for hook in one._forward_pre_hooks.values()
    )


__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
