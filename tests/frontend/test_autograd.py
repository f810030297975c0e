"""Gradients: hooks, graph lifetime, in-place rules, modes, Function, higher order."""

from __future__ import annotations

import pytest

import graphtorch as torch
from graphtorch._deferred import programs


def param(*values):
    return torch.tensor(values, requires_grad=True)


def test_values_read_before_backward_change_nothing():
    torch.manual_seed(0)
    w, x = torch.randn(3, 3, requires_grad=True), torch.randn(2, 3)
    loss = (x @ w).relu().sum()
    loss.item()
    loss.backward()
    first = w.grad.tolist()
    w.grad = None
    (x @ w).relu().sum().backward()
    assert w.grad.tolist() == first


def test_freed_graph_and_retain_graph():
    x = param(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()
    z = (x + 1).sum()
    z.backward()
    z.backward()  # nothing was saved: as in PyTorch this works


def test_inplace_after_save_is_an_error_only_where_it_matters():
    x = param(1.0, 2.0)
    y = x * 2
    z = y.exp()
    z += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
    y = x * 2
    z = y + 1
    y += 1
    z.sum().backward()


def test_write_to_view_rebases_history():
    x = param(1.0, 2.0, 3.0)
    y = x * 1
    v = y[:2]
    y.mul_(3)
    assert v.grad_fn is not None
    v.sum().backward()
    assert x.grad.tolist() == [3, 3, 0]
    with pytest.raises(RuntimeError, match="multiple views"):
        (x * 1).unbind()[0].add_(1)


def test_leaf_rules():
    x = param(1.0)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        x += 1
    with torch.no_grad():
        x += 1
    assert x.item() == 2 and x.is_leaf
    with pytest.raises(RuntimeError, match="floating point"):
        torch.tensor([1]).requires_grad_()


def test_tensor_hooks_and_retain_grad():
    x = param(1.0, 2.0)
    seen = []
    y = x * 3
    y.retain_grad()
    handle = y.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    x.register_post_accumulate_grad_hook(lambda t: seen.append("done"))
    (y * y).sum().backward(retain_graph=True)
    assert (
        seen == [[6, 12], "done"] and y.grad.tolist() == [60, 120] and x.grad.tolist() == [180, 360]
    )
    handle.remove()
    x.grad = None
    (y * y).sum().backward()
    assert x.grad.tolist() == [18, 36]


def test_grad_function():
    x, y = param(2.0), param(3.0)
    z = x * x * y
    (gx,) = torch.autograd.grad(z, x, create_graph=True)
    assert gx.item() == 12
    gxx, gxy = torch.autograd.grad(gx, (x, y))
    assert gxx.item() == 6 and gxy.item() == 4
    assert torch.autograd.grad(x * 1, (x, y), allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="allow_unused"):
        torch.autograd.grad(x * 1, y)
    assert x.grad is None


def test_third_derivative():
    x = param(2.0)
    y = x**4
    for want in (32, 48, 48):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        assert y.item() == pytest.approx(want)


def test_detached_alias_of_one_value_gets_no_gradient():
    x = param(3.0)
    (x * x.detach()).sum().backward()
    assert x.grad.item() == 3
    x.grad = None
    torch.lerp(x, x.detach(), 0.25).sum().backward()
    assert x.grad.item() == pytest.approx(0.75)


def test_backward_inputs():
    x, y = param(2.0), param(5.0)
    (x * y).backward(inputs=[x])
    assert x.grad.item() == 5 and y.grad is None


def test_function_with_context():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            ctx.save_for_backward(x)
            ctx.scale = scale
            return x**3 * scale

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False)
            return g * 3 * x * x * ctx.scale, None

    x = param(2.0)
    y = Cube.apply(x, 10)
    assert y.grad_fn.name() == "CubeBackward"
    (g,) = torch.autograd.grad(y, x, create_graph=True)
    g.backward()
    assert g.item() == 120 and x.grad.item() == 120
    with pytest.warns(DeprecationWarning, match="should not be instantiated"):
        made = Cube()
    assert made.apply(x, 10).item() == 80
    with pytest.raises(RuntimeError, match="apply"):
        made(x, 10)


def test_function_dirty_and_non_differentiable():
    class Fill(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            index = x.argmax()
            ctx.mark_non_differentiable(index)
            return x * 2, index

        @staticmethod
        def backward(ctx, g, _):
            return g * 2

    y, i = Fill.apply(param(1.0, 4.0))
    assert y.requires_grad and not i.requires_grad and i.item() == 1


def test_modes():
    x = param(1.0)

    @torch.no_grad()
    def f():
        return x * 2

    assert not f().requires_grad
    with torch.inference_mode():
        t = torch.ones(1)
    with pytest.raises(RuntimeError, match="Inference tensors"):
        x * t
    (x + t).backward()


def test_numbers_that_change_compile_nothing():
    x = torch.ones(7, 3)

    def step(lr):
        return (x * lr + 0.5).sum().item()

    step(0.1)
    step(0.3)
    before = programs.new_count
    for k in range(5):
        assert step(0.2 + k) == pytest.approx(21 * (0.7 + k))
    assert programs.new_count == before


def test_hand_written_loop_runs_one_graph_an_iteration():
    w = torch.zeros(3, requires_grad=True)
    x = torch.arange(6.0).reshape(2, 3)
    counts = []
    for _ in range(6):
        ((x @ w - 1) ** 2).sum().backward()
        with torch.no_grad():
            w -= 0.01 * w.grad
        w.grad = None
        counts.append(programs.new_count)
    assert counts[-1] == counts[2]


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        (
            "attention",
            lambda q, w: torch.nn.functional.scaled_dot_product_attention(q, q, q).square().mean(),
        ),
        ("conv", lambda q, w: torch.nn.functional.conv2d(q, w).square().mean()),
        ("linear", lambda q, w: torch.nn.functional.linear(q, w[0, 0]).square().mean()),
    ],
)
def test_what_a_printed_loss_computed_is_not_computed_again_for_its_gradient(
    monkeypatch, name, loss
):
    runs = []

    def find(walk, outputs, place):
        runs.append(sum(node.op.name == name for node in walk.nodes))
        return found(walk, outputs, place)

    found = programs.find
    q, w = torch.randn(2, 4, 6, 5, requires_grad=True), torch.randn(3, 4, 5, 5, requires_grad=True)
    monkeypatch.setattr(programs, "find", find)
    value = loss(q, w)
    value.item()
    value.backward()
    q.grad.numpy()
    assert sum(runs) == 1


def test_operations_met_often_are_checked_as_at_first():
    """What a pass repeats of an operation that came before is its arithmetic alone."""
    for _ in range(4):
        x = param(1.0, 2.0)
        kept = x * 2
        loss = (kept * kept).sum()
        kept.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace"):
            loss.backward()
        loss = (x * x).sum()
        loss.backward()
        assert x.grad.tolist() == [2, 4]
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        loss = (x * x).sum()
        x.data.fill_(5.0)  # which no version counts: the gradient reads what is there now
        loss.backward()
        assert x.grad.tolist() == [12, 14]
        seen = []
        x.grad, square = None, x * x
        square.grad_fn.register_hook(lambda found, given, seen=seen: seen.append(found[0].tolist()))
        square.sum().backward()
        assert seen == [[5, 5]] and x.grad.tolist() == [10, 10]


def test_gradients_nobody_wants_are_left_out_however_often():
    for wanted in ((True, False), (False, True), (True, True)) * 3:
        a, b = (torch.tensor([3.0], requires_grad=w) for w in wanted)
        (a * b).backward()
        assert [t.grad is not None for t in (a, b)] == list(wanted)
