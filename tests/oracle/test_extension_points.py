"""What libraries build on, beside PyTorch: trees, overriding, operators of one's own, symbolic
traces."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")
BOTH = (gt, torch)
Point = collections.namedtuple("Point", "x y")


def pair(of: Any) -> tuple[Any, Any]:
    """What `of` gives for each framework."""
    return of(gt), of(torch)


TREES: list[Any] = [
    1,
    [1, (2, 3)],
    {"b": 1, "a": [2, None]},
    Point(1, [2]),
    collections.OrderedDict(x=1, y=(2,)),
    collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, k=[1]),
]


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_trees_come_apart_and_together_alike(tree: Any) -> None:
    from torch.utils import _pytree as theirs

    from graphtorch.utils import _pytree as mine

    leaves, spec = mine.tree_flatten(tree)
    assert leaves == theirs.tree_flatten(tree)[0]
    assert mine.tree_unflatten(leaves, spec) == tree
    paths = [
        [(mine.keystr(p), leaf) for p, leaf in mine.tree_flatten_with_path(tree)[0]],
        [(theirs.keystr(p), leaf) for p, leaf in theirs.tree_flatten_with_path(tree)[0]],
    ]
    assert paths[0] == paths[1]
    if type(tree) not in (Point, collections.defaultdict):
        assert mine.treespec_loads(mine.treespec_dumps(spec)) == spec


def test_structures_that_differ_are_refused() -> None:
    from graphtorch.utils import _pytree as mine

    with pytest.raises(ValueError, match="holds 2 items"):
        mine.tree_unflatten([1], mine.tree_structure([1, 2]))
    with pytest.raises(ValueError, match="mismatch"):
        mine.tree_map(lambda a, b: a, [1, 2], (1, 2))


def _subclasses(t: Any) -> list[str]:
    class Kept(t.Tensor):  # type: ignore[misc]
        """Results stay of this class."""

    class Logged(t.Tensor):  # type: ignore[misc]
        """Results are plain, and calls are noted."""

        calls: list[str] = []  # noqa: RUF012

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            cls.calls.append(func.__name__)
            with t._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))

    x = t.arange(4.0).as_subclass(Kept)
    y = t.arange(4.0).as_subclass(Logged)
    results = [
        x + 1,
        1 - x,
        x.exp(),
        t.add(t.ones(4), x),
        x[1:],
        x.T,
        t.nn.functional.relu(x),
        t.stack([x, x]),
        *t.split(x, 2),
        x.sum(),
        x.data,
        t.nn.Parameter(x),
        y * 2,
        t.cat([y, y]),
    ]
    return [type(r).__name__ for r in results] + sorted(
        {c.strip("_") for c in Logged.calls} - {"get"}
    )


def test_subclasses_of_tensor_take_part_alike() -> None:
    mine, other = pair(_subclasses)
    assert mine == other


def _duck(t: Any) -> Any:
    class Diagonal:
        def __init__(self, n: int, value: float):
            self.n, self.value = n, value

        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return ("mean", args[0].value / args[0].n) if func is t.mean else NotImplemented

    found = [t.mean(Diagonal(5, 2.0))]
    with pytest.raises(TypeError, match="handlers returned NotImplemented"):
        t.exp(Diagonal(5, 2.0))
    return found


def test_objects_that_know_operations_are_asked() -> None:
    mine, other = pair(_duck)
    assert mine == other


def _mode(t: Any) -> list[str]:
    class Log(t.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __init__(self) -> None:
            self.names: list[str] = []

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Log() as log:
        t.relu(t.ones(2))
    return log.names


def test_modes_see_every_function() -> None:
    import graphtorch.overrides

    assert graphtorch.overrides.TorchFunctionMode
    mine, other = pair(_mode)
    assert mine == other == ["ones", "relu"]


def _operator(t: Any) -> list[Any]:
    name = f"{t.__name__}_test::scaled"

    def scaled(x: t.Tensor, factor: float = 2.0) -> t.Tensor:
        return x.detach() * factor

    made = t.library.custom_op(
        name, scaled, mutates_args=(), schema="(Tensor x, float factor=2.0) -> Tensor"
    )
    x = t.arange(3.0, requires_grad=True)
    refused = ""
    try:
        made(x).sum().backward()
    except RuntimeError as error:
        refused = str(error)[:26]

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.factor = inputs[1]

    made.register_fake(lambda x, factor=2.0: t.empty_like(x))
    made.register_autograd(lambda ctx, g: (g * ctx.factor, None), setup_context=setup)
    made(x, 3.0).sum().backward()
    op = getattr(getattr(t.ops, name.split("::")[0]), "scaled")  # noqa: B009
    return [
        refused,
        x.grad.tolist(),
        op(x.detach(), 4.0).tolist(),
        op.default.name().split("::")[1],
        t.ops.aten.add.Tensor(x.detach(), 1).tolist(),
        t.ops.aten.mm.default(t.ones(2, 2), t.ones(2, 2)).tolist(),
    ]


def test_operators_of_ones_own() -> None:
    mine, other = pair(_operator)
    assert mine == other


def test_a_library_declares_and_implements() -> None:
    library = gt.library.Library("declared", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    with pytest.raises(NotImplementedError, match="no Python implementation"):
        gt.ops.declared.twice(gt.ones(2))
    library.impl("twice", lambda x: x * 2, "CPU")
    assert gt.ops.declared.twice(gt.ones(2)).tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="expected a schema"):
        library.define("twice")
    with pytest.raises(AttributeError, match="declared"):
        gt.ops.declared.thrice  # noqa: B018
    with pytest.raises(OSError, match="custom_op"):
        gt.ops.load_library("/somewhere/else.so")


class Net:
    """A model of either framework."""

    def __new__(cls, t: Any) -> Any:
        class Model(t.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.first, self.scale = t.nn.Linear(3, 4), t.nn.Parameter(t.full((4,), 2.0))

            def forward(self, x: Any, bias: float = 1.0) -> Any:
                n, _ = x.shape
                y = t.relu(self.first(x)) * self.scale + bias
                return {"y": y.reshape(n, -1)[:, 1:], "n": n}

        return Model()


def test_symbolic_traces_have_the_same_nodes_and_results() -> None:
    nodes = [[(n.op, n.name) for n in t.fx.symbolic_trace(Net(t)).graph.nodes] for t in BOTH]
    assert nodes[0] == nodes[1]
    net = Net(gt)
    traced = gt.fx.symbolic_trace(net)
    x = gt.randn(5, 3)
    assert gt.equal(traced(x)["y"], net(x)["y"]) and traced(x)["n"] == 5
    assert gt.equal(gt.fx.Interpreter(traced).run(x)["y"], net(x)["y"])
    for node in traced.graph.find_nodes(op="call_function", target=gt.relu):
        node.target = gt.sigmoid
    traced.recompile()
    assert not gt.equal(traced(x)["y"], net(x)["y"])
    with pytest.raises(gt.fx.TraceError):
        gt.fx.symbolic_trace(lambda x: x if x.sum() > 0 else -x)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_images_are_resampled_alike(mode: str, antialias: bool) -> None:
    floats = np.random.default_rng(0).normal(size=(2, 3, 17, 23)).astype(np.float32)
    for array in (floats, np.clip(floats * 60 + 128, 0, 255).astype(np.uint8)):
        for size in ((8, 9), (30, 12), (17, 40)):
            mine, other = (
                t.nn.functional.interpolate(
                    t.from_numpy(array), size, mode=mode, antialias=antialias
                )
                for t in BOTH
            )
            assert np.allclose(mine.numpy(), other.numpy(), atol=1e-5 if array is floats else 0)


def _masks(t: Any) -> list[Any]:
    x = t.arange(6.0).reshape(2, 3)
    yes, no = t.tensor(True), t.tensor(False)
    a, b = x.clone(), t.tensor(2.0)
    a[yes], b[no] = t.ones(3), 5.0
    return [
        x[yes].tolist(),
        x[no].shape,
        x[0, 0][yes].tolist(),
        x[1:, yes].tolist(),
        a.tolist(),
        b.tolist(),
    ]


def test_masks_without_dimensions_index_as_bools() -> None:
    mine, other = pair(_masks)
    assert mine == other


def test_products_of_batches_may_be_written_to() -> None:
    w = gt.randn(4, 4, requires_grad=True)
    x = gt.randn(2, 3, 4)
    y = x @ w
    y += x
    y.sum().backward()
    assert gt.allclose(w.grad, x.sum((0, 1)).unsqueeze(1).expand(4, 4), atol=1e-5)


def _masked(t: Any) -> list[Any]:
    x, mask = t.arange(6.0).reshape(2, 3), t.tensor([[True, False, True], [False, True, True]])
    m = t.masked
    return [f(x, dim=1, mask=mask).tolist() for f in (m.sum, m.mean, m.var, m.amax, m.softmax)]


def test_masked_softmax_of_a_row_without_elements() -> None:
    """It is NaN, as PyTorch's."""
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    kept = [[True, False, True], [False, False, False]]
    found = []
    for t in (gt, torch):
        x, mask = t.tensor(rows), t.tensor(kept)
        found += [f(x, 1, mask=mask).numpy() for f in (t.masked.softmax, t.masked.log_softmax)]
    for mine, theirs in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-6)


def test_masked_reductions() -> None:
    mine, other = pair(_masked)
    for a, b in zip(mine, other, strict=True):
        assert np.allclose(a, b)


def test_assert_close_says_what_differs() -> None:
    for t in BOTH:
        t.testing.assert_close(t.tensor([1.0, 2.0]), t.tensor([1.0, 2.0 + 1e-6]))
        with pytest.raises(AssertionError, match="Mismatched elements: 1 / 2"):
            t.testing.assert_close(t.tensor([1.0, 2.0]), t.tensor([1.0, 3.0]))
        with pytest.raises(AssertionError, match="dtype"):
            t.testing.assert_close(t.tensor([1.0]), t.tensor([1]))


def test_attention_by_functions_is_attention() -> None:
    from graphtorch.nn.flex_attention import create_block_mask, flex_attention

    q, k, v = (gt.randn(2, 2, 5, 4) for _ in range(3))
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 5, 5)
    wanted = gt.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert gt.allclose(flex_attention(q, k, v, block_mask=mask), wanted, atol=1e-5)
    half = flex_attention(q, k, v, lambda s, b, h, i, j: s * 0.5, scale=1.0)
    assert gt.allclose(
        half, gt.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.5), atol=1e-5
    )


def test_regions_have_gradients() -> None:
    regions = gt.tensor([[0, 1.0, 1, 9, 7], [1, 2.0, 0, 6, 8]], dtype=gt.float64)
    draw = np.random.default_rng(0)
    x = gt.tensor(draw.normal(size=(2, 4, 10, 12)), requires_grad=True)
    tv = gt.ops.torchvision
    for op in (
        lambda x: tv.roi_align(x, regions, 1.0, 2, 2, 2, True),
        lambda x: tv.roi_pool(x, regions, 1.0, 2, 2)[0],
        lambda x: tv.ps_roi_align(x, regions, 1.0, 2, 2, 2)[0],
        lambda x: tv.ps_roi_pool(x, regions, 1.0, 2, 2)[0],
    ):
        direction = gt.tensor(draw.normal(size=x.shape))
        y = op(x)
        weights = gt.tensor(draw.normal(size=y.shape))
        (g,) = gt.autograd.grad((y * weights).sum(), x)
        moved = ((op(x + 1e-6 * direction) - op(x - 1e-6 * direction)) * weights).sum() / 2e-6
        assert gt.allclose(moved, (g * direction).sum(), rtol=1e-4, atol=1e-6)


def test_a_deformable_convolution_without_offsets_is_a_convolution() -> None:
    x, w, b = gt.randn(2, 4, 7, 8), gt.randn(6, 2, 3, 3), gt.randn(6)
    offset, mask = gt.zeros(2, 18, 4, 4), gt.ones(2, 9, 4, 4)
    found = gt.ops.torchvision.deform_conv2d(x, w, offset, mask, b, 2, 2, 1, 1, 1, 1, 2, 1, True)
    assert gt.allclose(found, gt.nn.functional.conv2d(x, w, b, 2, 1, 1, 2), atol=1e-4)
    shifted = gt.ops.torchvision.deform_conv2d(
        x, w, offset + 1, mask, b, 2, 2, 1, 1, 1, 1, 2, 1, False
    )
    padded = gt.nn.functional.pad(x, (0, 2, 0, 2))
    assert gt.allclose(shifted, gt.nn.functional.conv2d(padded, w, b, 2, 0, 1, 2), atol=1e-4)


def test_tensors_of_pytorch_override_nothing() -> None:
    """Once some class overrides, what PyTorch's own tensors say of operations is still not
    asked."""

    class Other:
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> str:
            return "other"

    assert gt.add(Other(), 1) == "other"
    assert gt.from_dlpack(torch.ones(3)).tolist() == [1, 1, 1]


def _operator_of(t: Any, name: str, function: Any, schema: str, backward: Any = None) -> Any:
    made = t.library.custom_op(
        f"{t.__name__}_more::{name}", function, mutates_args=(), schema=schema
    )
    if backward is not None:
        made.register_autograd(backward)
    return made


def _rules(t: Any) -> list[Any]:
    seen: list[Any] = []

    def by_numpy(x: Any) -> Any:  # which `vmap` cannot look into
        return t.from_numpy(x.detach().numpy() * 2)

    twice = _operator_of(t, "twice", by_numpy, "(Tensor x) -> Tensor", lambda ctx, g: g * 2)
    summed = _operator_of(
        t, "summed", lambda xs, k=3: sum(xs) * k, "(Tensor[] xs, int k=3) -> Tensor"
    )

    @twice.register_vmap
    def _(info: Any, in_dims: Any, x: Any) -> Any:
        seen.append((info.batch_size, in_dims))
        return twice(x), in_dims[0]

    @t.library.register_vmap(f"{t.__name__}_more::summed")
    def _(info: Any, in_dims: Any, xs: Any, k: int = 3) -> Any:
        seen.append(in_dims)
        return summed(
            [
                x if d == 0 else x.expand(info.batch_size, *x.shape)
                for x, d in zip(xs, in_dims[0], strict=True)
            ],
            k,
        ), 0

    shared, rows = t.ones(3), t.arange(6.0).reshape(2, 3)
    leaf = rows.clone().requires_grad_()
    t.vmap(twice)(leaf).sum().backward()
    results = [
        t.vmap(twice)(rows),
        t.vmap(lambda a, b: summed([a, b], 0))(rows, rows),
        leaf.grad,
        t.vmap(lambda a: summed([a, shared], 2))(rows),
        twice(rows),
    ]
    return [
        *[r.tolist() for r in results],
        *seen,
        twice(leaf).grad_fn.name().replace(t.__name__, ""),
    ]


def test_rules_for_vmap_of_operators() -> None:
    mine, other = pair(_rules)
    assert mine == other


def test_backward_passes_of_operators_run_when_a_gradient_is_asked_for() -> None:
    counted: list[str] = []

    def counting(ctx: Any, g: Any) -> Any:
        counted.append("backward")
        return g * 2

    loud = _operator_of(gt, "loud", lambda x: x * 2, "(Tensor x) -> Tensor", counting)
    quiet = _operator_of(gt, "quiet", lambda x: x * 3, "(Tensor x) -> Tensor", lambda ctx, g: g * 3)
    for operator, factor in ((loud, 4.0), (quiet, 6.0)):
        compiled = gt.compile(lambda x, op=operator: (op(x) * x).sum())
        for calls in range(4):
            x = gt.ones(2, requires_grad=True)
            y = compiled(x)
            assert counted.count("backward") == (calls if operator is loud else 0)
            y.backward()
            assert x.grad.tolist() == [factor] * 2
        counted.clear()
    assert compiled._entries  # of a backward pass that does nothing in Python the call is replayed


def test_kernels_of_operators_are_turned_off() -> None:
    op = _operator_of(gt, "kernels", lambda x: x * 2, "(Tensor x) -> Tensor")
    op.register_kernel("cpu", lambda x: x * 5)
    with op.set_kernel_enabled("cpu", False):
        assert op(gt.ones(1)).tolist() == [2.0]
    assert op(gt.ones(1)).tolist() == [5.0]
    with pytest.raises(NotImplementedError, match="__torch_function__"):
        op.register_torch_dispatch(gt.Tensor, lambda: None)
