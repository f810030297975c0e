"""Subclasses of Tensor and modes: what they are asked, and of which class results are, as in
PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")


def _name(x: Any) -> Any:
    return [_name(e) for e in x] if isinstance(x, (tuple, list)) else type(x).__name__


def _answer(of: Callable[[], Any]) -> Any:
    try:
        return of()
    except Exception as error:
        return type(error).__name__


class Kept(gt.Tensor):  # here, not in a function, for pickle
    """Results stay of this class."""


class TheirKept(torch.Tensor):  # type: ignore[misc]
    """The same on PyTorch."""


TheirKept.__name__ = "Kept"
KEPT = {gt: Kept, torch: TheirKept}


def _supers(t: Any) -> list[Any]:
    class Own(t.Tensor):  # type: ignore[misc]
        def __add__(self, other: Any) -> Any:
            return "add", _name(super().__add__(other))

        def __eq__(self, other: object) -> Any:
            return "eq", _name(super().__eq__(other))

        __hash__ = t.Tensor.__hash__

        def __len__(self) -> int:
            return 10 + super().__len__()

        def __iadd__(self, other: Any) -> Any:
            return super().__iadd__(other)

        def __getitem__(self, at: Any) -> Any:
            return "get", _name(super().__getitem__(at))

        def __setitem__(self, at: Any, value: Any) -> None:
            super().__setitem__(at, value * 2)

        def __iter__(self) -> Any:
            return iter([_name(x) for x in super().__iter__()])

        def __neg__(self) -> Any:
            return "neg", _name(super().__neg__())

        def sum(self, *args: Any, **kwargs: Any) -> Any:
            return "sum", _name(super().sum(*args, **kwargs))

        def clone(self, **kwargs: Any) -> Any:
            made = super().clone(**kwargs)
            made.tag = "cloned"
            return made

        def detach(self) -> Any:
            return super().detach()

        @property
        def mT(self) -> Any:
            return "mT", _name(super().mT)

    x = t.arange(4.0).reshape(2, 2).as_subclass(Own)
    y = t.zeros(2).as_subclass(Own)
    before = y
    y += 1
    y[0] = 3.0
    return [
        x + 1,
        _name(1 + x),
        x == x,
        len(x),
        x[0],
        list(x),
        -x,
        x.sum(dim=0),
        x.clone().tag,
        _name(x.detach()),
        x.mT,
        y is before,
        _name(y),
        t.Tensor.tolist(y),
        _name(t.add(x, 1)),
    ]


def _unbound(t: Any) -> list[Any]:
    k, plain = t.arange(4.0).as_subclass(KEPT[t]), t.ones(4)
    results = [
        t.Tensor.__add__(k, 1),
        t.Tensor.mul(k, 2),
        plain + k,
        plain < k,
        plain[k > 1],
        plain @ k,
        plain.add(k),
        plain.mul_(k),
        k.mT if k.ndim > 1 else k.T,
        k.new_ones(2),
        list(k),
        k.detach(),
        k.requires_grad_(),
        t.tensor(k),
        t.as_tensor(k),
        k.max(0),
        plain.copy_(k),
        k.clone().zero_(),
    ]
    return [_name(r) for r in results]


def _leaves(t: Any) -> list[Any]:
    w = t.ones(3).as_subclass(KEPT[t]).requires_grad_()
    (w * 2).sum().backward()
    (w * 3).sum().backward()
    (given,) = t.autograd.grad((w * 2).sum(), w)
    a = t.ones(2, requires_grad=True)
    alias = a.as_subclass(KEPT[t])
    (alias * 2).sum().backward()
    memory = t.zeros(2)
    memory.as_subclass(KEPT[t]).add_(1)
    return [
        w.is_leaf,
        _name(w.grad),
        w.grad.tolist(),
        _name(given),
        alias.is_leaf,
        _name(alias.grad_fn),
        a.grad.tolist(),
        memory.tolist(),
    ]


def _making(t: Any) -> list[Any]:
    kind, plain = KEPT[t], t.ones(2)
    made = t.Tensor._make_subclass(kind, plain, True)
    return [
        _name(made),
        made.requires_grad,
        made.data_ptr() == plain.data_ptr(),
        _name(kind([1.0])),
        *[
            _answer(f)
            for f in (
                lambda: t.Tensor._make_subclass(int, plain),
                lambda: t.Tensor._make_subclass(kind, [1]),
                lambda: plain.as_subclass(int),
                lambda: t.Tensor._make_wrapper_subclass(kind, (2,)),
            )
        ],
    ]


def _parameters(t: Any) -> list[Any]:
    class Marked(t.nn.Parameter):  # type: ignore[misc]
        def __new__(cls, data: Any = None, requires_grad: bool = True, tag: Any = None) -> Any:
            made = super().__new__(cls, data, requires_grad=requires_grad)
            made.tag = tag
            return made

        def __mul__(self, other: Any) -> Any:
            return super().__mul__(other)

    layer = t.nn.Linear(2, 2, bias=False)
    layer.weight = Marked(t.ones(2, 2), tag="a")
    step = t.optim.SGD(layer.parameters(), 0.5)
    layer(t.ones(1, 2)).sum().backward()
    step.step()
    other = t.nn.Parameter(t.ones(2).as_subclass(KEPT[t]))
    lazy = t.nn.Linear(2, 2)
    lazy.weight = t.nn.Parameter(t.ones(2, 2).as_subclass(KEPT[t]))
    return [
        _name(layer.weight),
        layer.weight.tag,
        layer.weight.tolist(),
        _name(layer.weight.grad),
        _name(layer.weight * 2),
        _name(copy.deepcopy(layer).weight),
        _name(layer.double().weight),
        _name(other),
        isinstance(other, t.nn.Parameter),
        _name(other * 2),
        _name(lazy(t.ones(1, 2))),
        [_name(v) for v in lazy.state_dict().values()],
    ]


def _layers(t: Any) -> list[Any]:
    k, nn = t.arange(6.0).reshape(2, 3).as_subclass(KEPT[t]), t.nn
    layers = (
        nn.Linear(3, 2),
        nn.LayerNorm(3),
        nn.Dropout(0.5),
        nn.Sequential(nn.Linear(3, 2), nn.GELU()),
        nn.BatchNorm1d(3),
        nn.LSTM(3, 2),
        nn.GRUCell(3, 2),
    )
    return [_name(layer(k)) for layer in layers]


def _asked(t: Any) -> list[Any]:
    calls: list[Any] = []

    class Logged(t.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append((func.__name__, [k.__name__ for k in types]))
            return super().__torch_function__(func, types, args, kwargs)

    x = t.ones(3).as_subclass(Logged)
    for use in (
        lambda: x + 1,
        lambda: 1 + x,
        lambda: t.ones(3) + x,
        lambda: 1 - x,
        lambda: 1 / x,
        lambda: x[0],
        lambda: x.__setitem__(0, 1.0),
        lambda: x.shape,
        lambda: x.sum(dim=0),
        lambda: len(x),
        lambda: bool(x[0] > 0),
        lambda: float(x[0]),
        lambda: 1 in x,
        lambda: x.__iadd__(1),
        lambda: x.detach(),
        lambda: x.numel(),
        lambda: x.requires_grad_(),
        lambda: t.nn.functional.relu(x),
        lambda: t.tensor(x),
        lambda: t.is_tensor(x),
        lambda: x.mul(2).sum().backward(),
        lambda: x.grad,
    ):
        use()
    return calls


def _modes(t: Any) -> list[Any]:
    seen: list[Any] = []

    class Log(t.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __init__(self, mark: int):
            self.mark = mark

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            tensors = [] if func.__name__ == "__get__" else [k.__name__ for k in types]
            seen.append((self.mark, func.__name__, tensors))
            return func(*args, **(kwargs or {}))

    class Swap(t.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return t.sub(*args) if func is t.Tensor.add else func(*args, **(kwargs or {}))

    k = t.ones(2).as_subclass(KEPT[t])
    with Log(1), Log(2):
        kept = _name(t.ones(2) + k)
        assert t.ones(2)[0].shape == ()
    with Swap():
        swapped = (t.ones(2) + 3).tolist()
    with pytest.raises(ValueError, match="mine"), _Failing(t)():
        t.ones(1)
    return [*seen, kept, swapped, (t.ones(2) + 3).tolist()]


def _Failing(t: Any) -> Any:
    class Failing(t.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            raise ValueError("mine")

    return Failing


def _identity(t: Any) -> list[Any]:
    known: dict[Any, str] = {}

    class Table(t.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return known.get(func) or super().__torch_function__(func, types, args, kwargs)

    known.update(
        {
            t.Tensor.add: "add",
            t.add: "torch.add",
            t.Tensor.shape.__get__: "shape",
            t.Tensor.__getitem__: "item",
            t.Tensor.detach: "detach",
            t.Tensor.__rsub__: "rsub",
        }
    )
    x = t.ones(2).as_subclass(Table)
    names = [t.overrides.resolve_name(f) for f in known]
    return [x + 1, x.add(1), t.add(x, 1), x.shape, x[0], x.detach(), 1 - x, *names]


def _misfits(t: Any) -> list[Any]:
    class Other(t.Tensor):  # type: ignore[misc]
        pass

    class Below(KEPT[t]):  # type: ignore[misc]
        pass

    class Duck:
        def __radd__(self, other: Any) -> str:
            return "duck"

    k, below = t.ones(2).as_subclass(KEPT[t]), t.ones(2).as_subclass(Below)
    return [
        _name(k + below),
        _name(below + k),
        k + Duck(),
        _answer(lambda: k + t.ones(2).as_subclass(Other)),
        _answer(lambda: k + "a"),
        _answer(lambda: t.add(k, t.ones(2).as_subclass(Other))),
        *[
            _answer(lambda s=s, a=a: _name(getattr(t.ones(*s), a)))  # type: ignore[misc]
            for s in ((), (2,), (2, 2), (2, 2, 2))
            for a in ("mT", "mH", "H")
        ],
    ]


@pytest.mark.parametrize(
    "of",
    [
        _supers,
        _unbound,
        _leaves,
        _making,
        _parameters,
        _layers,
        _asked,
        _modes,
        _identity,
        _misfits,
    ],
    ids=lambda f: f.__name__[1:],
)
@pytest.mark.filterwarnings("ignore")
def test_subclasses_behave_alike(of: Callable[[Any], Any]) -> None:
    assert of(gt) == of(torch)


def test_copies_and_files_keep_class_and_attributes() -> None:
    x = gt.arange(3.0).as_subclass(Kept)
    x.note = "hi"
    file = io.BytesIO()
    gt.save(x, file)
    file.seek(0)
    for other in (
        copy.deepcopy(x),
        copy.copy(x),
        pickle.loads(pickle.dumps(x)),
        gt.load(file, weights_only=False),
    ):
        assert type(other) is Kept
        assert (other.note, gt.Tensor.tolist(other)) == ("hi", [0.0, 1.0, 2.0])
    assert copy.deepcopy(x).data_ptr() != x.data_ptr()


def test_a_class_that_would_be_dispatched_says_what_to_write() -> None:
    class Dispatched(gt.Tensor):
        @classmethod
        def __torch_dispatch__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args)

    for make in (
        lambda: gt.Tensor._make_wrapper_subclass(Dispatched, (2,)),
        lambda: gt.ones(2).as_subclass(Dispatched),
        lambda: Dispatched([1.0]),
    ):
        with pytest.raises(NotImplementedError, match="write a __torch_function__"):
            make()
