"""Tensors and modules print as PyTorch's do, character by character."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

DTYPES = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "complex128",
    "uint16",
    "uint32",
    "uint64",
)
SHAPES = (
    (),
    (1,),
    (3,),
    (7,),
    (2, 3),
    (40,),
    (1, 1, 1),
    (2, 1, 4),
    (2, 2, 2, 2),
    (11, 12),
    (0,),
    (0, 3),
    (2, 0, 1),
    (1100,),
    (40, 40),
    (12, 2, 50),
    (3, 500),
    (101, 1, 11),
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"precision": 2},
    {"precision": 8, "linewidth": 120},
    {"sci_mode": True},
    {"sci_mode": False},
    {"threshold": 5},
    {"threshold": 3, "edgeitems": 1},
    {"edgeitems": 0, "threshold": 10},
    {"linewidth": 30},
    {"profile": "short"},
    {"profile": "full"},
    {"linewidth": 8},
    {"threshold": 20, "edgeitems": 2},
    {"threshold": float("inf")},
    {"precision": 0},
)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> np.ndarray:
    """Elements of one of nine characters: small, wide in range, whole, huge, with holes, ..."""
    x = rng.standard_normal(shape)
    made = [
        x,
        x * 10.0 ** rng.integers(-9, 9),
        x * 10.0 ** rng.integers(-6, 6, shape),
        np.round(x * 5),
        np.round(x * 1e6),
        x * 1e-5,
        np.round(x * 100) / 100,
        np.abs(x) * 1e9,
        np.zeros(shape),
    ][kind % 9]
    if rng.random() < 0.3:
        made = np.where(
            rng.random(shape) < 0.3, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0]), made
        )
    return np.asarray(made)


def array_of(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], kind: int) -> np.ndarray:
    made = numbers(rng, shape, kind)
    if dtype.startswith("complex"):
        with np.errstate(invalid="ignore"):
            return made + 1j * numbers(rng, shape, kind + int(rng.integers(0, 2)))
    if dtype == "bool":
        return made > 0
    if dtype.startswith(("int", "uint")):
        low = 0 if dtype.startswith("uint") else -100
        return np.clip(np.nan_to_num(made * 10), low, 100).astype(np.int64)
    return made


def shown(module: Any, array: np.ndarray, dtype: str, form: int, options: dict[str, Any]) -> str:
    """The text of a tensor: plain, of a view, leaf or result under autograd, or as a parameter."""
    module.set_printoptions(profile="default")
    module.set_printoptions(**options)
    try:
        with np.errstate(all="ignore"):
            x = module.tensor(array).to(getattr(module, dtype))
        if form == 1 and x.ndim > 1:
            x = x.transpose(0, -1)
        elif form == 2 and (x.is_floating_point() or x.is_complex()):
            x = x.requires_grad_()
        elif form == 3 and (x.is_floating_point() or x.is_complex()):
            x = x.requires_grad_() * 1
        elif form == 4 and x.is_floating_point():
            x = module.nn.Parameter(x)
        elif form == 5 and x.ndim:
            return f"{x} | {[x[:2], x]} | {str(x[0]) if len(x) else ''}"
        elif form == 6:
            return f"{x.cpu()!s:>10}" if x.ndim else f"{x:.3}" if x.is_floating_point() else f"{x}"
        return repr(x)
    finally:
        module.set_printoptions(profile="default")


def sample(seed: int) -> tuple[np.ndarray, str, int, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    dtype, shape = DTYPES[rng.integers(len(DTYPES))], SHAPES[rng.integers(len(SHAPES))]
    options = OPTIONS[rng.integers(len(OPTIONS))]
    return array_of(rng, dtype, shape, int(rng.integers(9))), dtype, int(rng.integers(7)), options


@pytest.mark.parametrize("block", range(10))
def test_tensors_print_like_pytorchs(block: int) -> None:
    for seed in range(60 * block, 60 * block + 60):
        drawn = sample(seed)
        assert shown(graphtorch, *drawn) == shown(torch, *drawn), (seed, drawn[1:])


# ------------------------------------------------------------------------------------------ modules


def constructors() -> list[Any]:
    """Each module class once with every set of arguments that PyTorch's own samples give it."""
    from torch.testing._internal.common_modules import module_db

    found: dict[tuple[str, str], Any] = {}
    for info in module_db:
        with torch.random.fork_rng():
            made = [
                m
                for t in (True, False)
                for m in info.module_inputs_func(
                    info, device="cpu", dtype=torch.float32, requires_grad=False, training=t
                )
            ]
        for one in made:
            arguments = one.constructor_input
            found.setdefault(
                (info.name, f"{arguments.args}{arguments.kwargs}"), (info.name, arguments)
            )
    return list(found.values())


def ours(given: Any) -> Any:
    """A constructor argument for graphtorch."""
    if isinstance(given, torch.Tensor):
        return graphtorch.tensor(given.detach().numpy())
    if isinstance(given, torch.dtype):
        return getattr(graphtorch, str(given).split(".")[1])
    return given


def find(module: Any, name: str) -> Any:
    """``nn.Linear`` in `module`; None where it is absent."""
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def test_modules_print_like_pytorchs() -> None:
    compared = set()
    for name, arguments in constructors():
        cls, theirs = find(graphtorch, name), find(torch, name)
        values = [*arguments.args, *arguments.kwargs.values()]
        if cls is None or any(isinstance(v, torch.nn.Module) for v in values):
            continue  # prints what it was given
        with torch.random.fork_rng():
            expected = repr(theirs(*arguments.args, **arguments.kwargs))
        printed = repr(
            cls(*map(ours, arguments.args), **{k: ours(v) for k, v in arguments.kwargs.items()})
        )
        assert printed == expected
        compared.add(name)
    assert len(compared) > 95


def nested(module: Any) -> Any:
    nn = module.nn

    class Block(nn.Module):
        def __init__(self, *children: Any):
            super().__init__()
            self.first = nn.Conv2d(1, 2, (3, 5), stride=2, padding="valid", padding_mode="zeros")
            self.rest = nn.ModuleList(children)
            self.named = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Sequential()})
            self.weights = nn.ParameterList(
                [nn.Parameter(module.zeros(2, 3)), nn.Parameter(module.zeros(1))]
            )
            self.table = nn.ParameterDict({"w": nn.Parameter(module.zeros(2, 2))})

        def extra_repr(self) -> str:
            return "one\ntwo"

    blocks = Block(*[nn.Linear(2, 2) for _ in range(3)], nn.Tanh(), nn.Linear(2, 2)), Block()
    return nn.Sequential(blocks[0], nn.Sequential(nn.Dropout(0.25, True), blocks[1]))


def test_nested_modules_print_like_pytorchs() -> None:
    assert repr(nested(graphtorch)) == repr(nested(torch))


# without spaces inside
TEXT = """
x.sum() x.sum(1) x.mean() x.mean((0,1)) x.prod() x.prod(1) x.max() x.max(1)[0] x.min(0).values
x.std() x.std(1) x.var(0) 1-x x-1 2/x x**2 p**x 2**x x.square() x.clamp(0,1) x.clamp(min=p) x.t()
x[None].squeeze() x[None].squeeze(0) x[None].squeeze((0,)) x.unbind(0)[0] [*x][1] w@v v@v v@w x@w
x.roll(1) w.trace() w.det() x.nan_to_num() x.take(i) x.masked_select(x>0) x.index_add(0,i,p)
x.renorm(2,0,1) t.cdist(x,p)
f.mse_loss(x,p) f.mse_loss(x,p,reduction="none") f.smooth_l1_loss(x,p) f.huber_loss(x,p)
f.binary_cross_entropy(s,p) f.binary_cross_entropy_with_logits(x,p) f.cross_entropy(x,i)
f.embedding(i,x) f.embedding_bag(i[None],x) f.glu(x) f.celu(x) f.prelu(x,v) f.threshold(x,.1,0)
f.max_pool2d(y,2) f.avg_pool2d(y,2) f.adaptive_avg_pool2d(y,2) f.adaptive_max_pool2d(y,2)
f.pad(y,(1,1)) f.pixel_shuffle(y.view(1,4,2,2),2) f.unfold(y,2)
f.fold(f.unfold(y,2).detach().requires_grad_(),4,2)
f.grid_sample(y,y.detach()[...,:2].clamp(-1,1)) x.T.mean(1).sum() (x-p).pow(2).sum(1)
"""


@pytest.mark.parametrize("text", TEXT.split())
def test_tensors_name_the_operation_that_made_them(text: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.random((3, 4)) + 0.1 for name in "xps"} | {
        "w": rng.random((4, 4)),
        "v": rng.random(4),
        "y": rng.random((1, 1, 4, 4)),
    }
    arrays["s"] /= 2
    arrays["p"] /= 2

    def shown(t: Any) -> tuple[str, str]:
        names = {n: t.tensor(a, requires_grad=n not in "p") for n, a in arrays.items()}
        names |= {"t": t, "f": t.nn.functional, "i": t.tensor([0, 1, 1])}
        found = eval(text, names)
        found.sum().backward()
        name = found.grad_fn.name()
        assert type(found.grad_fn).__name__ == name
        return name, str(found).rpartition("grad_fn=")[2]

    assert shown(graphtorch) == shown(torch)
