"""What tensors are asked and told: attributes, methods, operators, indexing, reductions, autograd
modes."""

import numpy as np

import graphtorch as torch
from surface import covers, raises


def same(x, expected, dtype=None):
    """`x` has these elements (and this dtype)."""
    np.testing.assert_allclose(x.detach().numpy(), np.asarray(expected), rtol=1e-5, atol=1e-6)
    assert x.shape == np.shape(expected) and (dtype is None or x.dtype is dtype)


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


A = numbers(3, 4)


def check_attributes():
    x = torch.tensor(A, requires_grad=True)
    assert (x.dtype, x.device, x.layout, x.shape) == (
        torch.float32,
        torch.device("cpu"),
        torch.strided,
        (3, 4),
    )
    assert x.requires_grad and x.grad is None and x.grad_fn is None
    y = (x * 2).sum()
    assert repr(y.grad_fn).startswith("<SumBackward0")
    y.backward()
    same(x.grad, np.full((3, 4), 2))
    x.data.fill_(1)
    assert x.requires_grad and not x.data.requires_grad
    same(x, np.ones((3, 4)))


def check_leaving_for_python():
    x = torch.tensor([[1.0, 2.0]])
    assert x.tolist() == [[1, 2]] and x[0, 1].item() == 2 and type(torch.tensor(3).item()) is int
    array = x.numpy()
    array[0, 0] = 8
    assert x[0, 0] == 8
    x[0, 1] = 5
    assert array[0, 1] == 5
    try:
        x.item()
    except RuntimeError:
        return
    raise AssertionError("item() of two elements")


def check_shapes():
    x = torch.arange(24).reshape(2, 3, 4)
    assert x.size() == (2, 3, 4) and x.size(1) == 3 and x.size()[1:] == (3, 4) and x.dim() == 3
    assert x.view(6, -1).shape == (6, 4) and x.reshape((4, 6)).shape == (4, 6)
    x.view(-1)[0] = 99
    assert x[0, 0, 0] == 99
    same(x.transpose(0, 2), x.numpy().transpose(2, 1, 0))
    same(x.permute(2, 0, 1), x.numpy().transpose(2, 0, 1))
    same(torch.transpose(input=x, dim0=0, dim1=1), x.numpy().swapaxes(0, 1))
    x.transpose(0, 1)[0, 0, 1] = -1
    assert x[0, 0, 1] == -1
    same(torch.t(input=x[0]), x[0].numpy().T)
    same(x[0].t(), x[0].numpy().T)
    one = torch.zeros(1, 3, 1)
    assert torch.squeeze(one).shape == one.squeeze(0).squeeze(-1).shape == (3,)
    assert torch.squeeze(input=one, dim=0).shape == (3, 1) and torch.squeeze(one, (0, 2)).shape == (
        3,
    )
    assert torch.unsqueeze(input=one, dim=-1).shape == (1, 3, 1, 1) and one.unsqueeze(0).shape == (
        1,
        1,
        3,
        1,
    )
    assert one.expand(2, 3, 5).shape == (2, 3, 5) and one.expand(2, 3, 5).stride() == (0, 1, 0)
    assert one.expand_as(torch.zeros(4, 3, 2)).shape == (4, 3, 2)
    assert torch.zeros(2).resize_(3, 2).shape == (3, 2)


def check_broadcasts():
    x = torch.arange(3)
    y = torch.broadcast_to(input=x, shape=(2, 3))
    same(y, [[0, 1, 2]] * 2)
    assert y.stride() == (0, 1)
    a, b = torch.broadcast_tensors(x, torch.zeros(2, 1))
    assert a.shape == b.shape == (2, 3)


def check_copies_and_graphs():
    x = torch.tensor(A, requires_grad=True)
    y = x.clone()
    y.sum().backward()
    same(x.grad, np.ones((3, 4)))
    z = torch.clone(input=x, memory_format=torch.preserve_format)
    assert z.grad_fn is not None and z.data_ptr() != x.data_ptr()
    d = x.detach()
    d[0, 0] = 42
    assert x[0, 0] == 42 and not d.requires_grad
    x.grad.detach_()
    w = (x * 2).detach_()
    assert w.is_leaf and not w.requires_grad
    assert torch.zeros(2).requires_grad_(requires_grad=True).requires_grad


def check_backward_with_gradient():
    x = torch.ones(3, 2, requires_grad=True)
    y = 2 * x
    try:
        y.backward()
        raise AssertionError("backward of a matrix without gradient")
    except RuntimeError:
        pass
    y.backward(gradient=torch.full((3, 2), 3.0))
    same(x.grad, np.full((3, 2), 6))


def check_casts_and_moves():
    x = torch.tensor([1.5, 2.5], dtype=torch.float64)
    assert x.float().dtype is torch.float32 and x.float().double().dtype is torch.float64
    assert x.is_floating_point() and not torch.tensor([1]).is_floating_point()
    assert (
        x.to(torch.int64).tolist() == [1, 2] and x.to("cpu", torch.float16).dtype is torch.float16
    )
    image = torch.zeros(1, 2, 3, 4)
    moved = image.to(torch.float64, non_blocking=True, memory_format=torch.channels_last)
    assert moved.stride() == (24, 1, 8, 2)
    assert x.cpu() is x
    if not torch.cuda.is_available():
        with raises(AssertionError):
            x.cuda()
    else:
        there = x.cuda()
        assert there.is_cuda and there.cuda() is there and there.tolist() == x.tolist()


def check_pointwise():
    x = torch.tensor(np.abs(A))
    same(torch.sin(x), np.sin(x.numpy()))
    same(torch.exp(input=x), np.exp(x.numpy()))
    same(torch.sigmoid(input=x), 1 / (1 + np.exp(-x.numpy())))
    same(x.log(), np.log(x.numpy()))
    same(x.pow(2), x.numpy() ** 2)
    same((-x).clamp(min=-1, max=-0.5), np.clip(-x.numpy(), -1, -0.5))
    same(x.clamp_min(1), np.maximum(x.numpy(), 1))
    rows = np.exp(A) / np.exp(A).sum(1, keepdims=True)
    same(torch.tensor(A).softmax(dim=1), rows)


def check_in_place():
    x = torch.ones(3)
    assert x.zero_() is x and x.tolist() == [0, 0, 0]
    assert x.fill_(4) is x and x.tolist() == [4, 4, 4]


@covers(
    "torch.Tensor.__getitem__",
    "torch.Tensor.__setitem__",
    "torch.Tensor.__iadd__",
    "torch.Tensor.__isub__",
)
def check_indexing_and_operators():
    a, b = torch.arange(5), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    same(a + 2, [2, 3, 4, 5, 6])
    same(a - b, [-1] * 5)
    same(a * b, [0, 2, 6, 12, 20])
    same(2 * b, [2, 4, 6, 8, 10])
    same(b / a.new_full((5,), 2), b.numpy() / 2)
    same(b / 2, b.numpy() / 2)
    same(b**2, b.numpy() ** 2)
    same(a % 3, [0, 1, 2, 0, 1])
    assert (a < 2).tolist() == [True, True, False, False, False]
    assert (a == b).tolist() == [False] * 5
    assert b @ b == 55
    c = b
    c += 1
    assert c is b and b[0] == 2
    c -= torch.ones(5)
    assert b.tolist() == [1, 2, 3, 4, 5]
    m = torch.zeros(2, 3)
    m[0, 1] = 10
    m[m < 5] = -1
    same(m, [[-1, 10, -1], [-1, -1, -1]])
    assert m[-1].shape == (3,) and m[:, 1:].shape == (2, 2) and m[..., None].shape == (2, 3, 1)
    with torch.no_grad():
        w = torch.ones(2, requires_grad=True)
        w -= 0.5
    assert w.is_leaf and w.tolist() == [0.5, 0.5]


def check_matrix_products():
    x, y = numbers(3, 4), numbers(4, 2)
    same(torch.tensor(x).mm(torch.tensor(y)), x @ y)
    a, b = torch.tensor(x), torch.tensor(y)
    same(a @ b, x @ y)


@covers("torch.Tensor.__repr__")
def check_printing():
    assert repr(torch.tensor([1.0, 2.5])) == "tensor([1.0000, 2.5000])"
    assert repr(torch.ones(1, requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert repr(torch.ones(1, requires_grad=True) * 2) == "tensor([2.], grad_fn=<MulBackward0>)"


def check_sums_and_means():
    x = torch.tensor(A)
    same(torch.sum(x), A.sum())
    same(x.sum(), A.sum())
    same(x.sum(0), A.sum(0))
    same(torch.sum(x, dim=(0, 1), keepdim=True), A.sum(keepdims=True))
    same(torch.mean(x, dim=1, keepdim=True), A.mean(1, keepdims=True))
    same(torch.mean(x), A.mean())
    same(torch.norm(x), np.linalg.norm(A))
    same(x.norm(1, 0, keepdim=True), np.abs(A).sum(0, keepdims=True))
    same(
        torch.cumsum(input=x, dim=1, dtype=torch.float64),
        A.astype(np.float64).cumsum(1),
        torch.float64,
    )
    out = torch.empty(3, 4)
    assert torch.cumsum(x, 0, out=out) is out
    same(out, A.cumsum(0))


def check_logical_reductions():
    x = torch.tensor(A > 0)
    same(torch.all(x, dim=0, keepdim=True), (A > 0).all(0, keepdims=True))
    same(torch.any(x, dim=1, keepdim=True), (A > 0).any(1, keepdims=True))
    assert torch.any(x) and not torch.all(x) and torch.all(torch.ones(2)).dtype is torch.bool


def check_extremes():
    x = torch.tensor(A)
    assert torch.max(x) == A.max() and torch.min(x) == A.min()
    values, indices = torch.max(x, dim=1, keepdim=True)
    same(values, A.max(1, keepdims=True))
    same(indices, A.argmax(1)[:, None], torch.int64)
    same(torch.min(x, dim=0, keepdim=True).values, A.min(0, keepdims=True))
    assert torch.argmax(x) == A.argmax() and torch.argmin(x) == A.argmin()
    same(torch.argmax(x, dim=0, keepdim=True), A.argmax(0)[None])
    same(torch.argmin(x, dim=1, keepdim=True), A.argmin(1)[:, None])
    same(torch.amax(x, dim=(0, 1), keepdim=True), A.max(keepdims=True))
    same(torch.amin(x, dim=1, keepdim=False), A.min(1))
    same(torch.amin(x, dim=(0, 1), keepdim=True), A.min(keepdims=True))


def check_topk():
    x = torch.tensor(A)
    values, indices = torch.topk(input=x, k=2, dim=0, largest=False, sorted=True)
    same(values, np.sort(A, 0)[:2])
    same(indices, np.argsort(A, 0)[:2], torch.int64)
    out = torch.empty(3, 1), torch.empty(3, 1, dtype=torch.int64)
    torch.topk(x, 1, out=out)
    same(out[0], A.max(1, keepdims=True))


def check_joins_and_gathers():
    x, y = torch.tensor(A), torch.tensor(A + 1)
    same(torch.cat(tensors=(x, y), dim=1), np.concatenate([A, A + 1], 1))
    same(torch.stack(tensors=[x, y], dim=1), np.stack([A, A + 1], 1))
    out = torch.empty(0)
    assert torch.cat([x, y], out=out) is out and out.shape == (6, 4)
    out = torch.empty(2, 3, 4)
    assert torch.stack([x, y], out=out) is out
    same(out[1], A + 1)
    index = torch.tensor([[3, 0], [1, 1], [2, 2]])
    same(
        torch.gather(input=x, dim=1, index=index, sparse_grad=False),
        np.take_along_axis(A, index.numpy(), 1),
    )
    out = torch.empty(3, 2)
    assert torch.gather(x, 1, index, out=out) is out
    same(out, np.take_along_axis(A, index.numpy(), 1))
    assert [c.shape for c in torch.chunk(x, 3, 1)] == [(3, 2), (3, 2)]
    assert [c.shape for c in torch.tensor_split(x, 3, dim=1)] == [(3, 2), (3, 1), (3, 1)]


def check_searchsorted():
    line, values = torch.tensor([10, 30, 20]), torch.tensor([20, 5, 31])
    order = torch.tensor([0, 2, 1])
    options = {"sorter": order}
    same(
        torch.searchsorted(sorted_sequence=line, values=values, side="left", **options),
        [1, 0, 3],
        torch.int64,
    )
    same(
        torch.searchsorted(line, values, side="right", out_int32=True, **options),
        [2, 0, 3],
        torch.int32,
    )
    ordered = torch.tensor([10, 20, 30])
    same(torch.searchsorted(ordered, values, right=True, sorter=torch.tensor([0, 1, 2])), [2, 0, 3])
    out = torch.empty(3, dtype=torch.int64)
    assert torch.searchsorted(ordered, values, out=out) is out and out.tolist() == [1, 0, 3]


def check_grad_modes():
    x = torch.ones(2, requires_grad=True)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert not torch.is_grad_enabled() and not (x * 2).requires_grad
        with torch.enable_grad():
            assert (x * 2).requires_grad
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()
        y = x * 2
    assert y.is_inference() and not y.requires_grad
    with torch.set_grad_enabled(mode=False):
        assert not (x * 2).requires_grad
    torch.set_grad_enabled(False)
    off = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert not off and torch.is_grad_enabled()


def check_own_functions():
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, i, scale=None):
            result = i.exp()
            ctx.save_for_backward(result, None)
            return result

        @staticmethod
        def backward(ctx, grad_output):
            result, nothing = ctx.saved_tensors
            assert nothing is None and ctx.saved_variables[0] is not None
            assert ctx.needs_input_grad == (True, False)
            return grad_output * result, None

    assert Exp.forward is not torch.autograd.Function.forward
    assert Exp.backward is not torch.autograd.Function.backward
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    y = Exp.apply(x, None)
    y.sum().backward()
    same(x.grad, np.exp([0, 1]))
    assert Exp().apply(x).grad_fn is not None


def check_variables():
    x = torch.autograd.Variable(torch.ones(2), requires_grad=True)
    assert (
        isinstance(x, torch.Tensor) and isinstance(x, torch.autograd.Variable) and x.requires_grad
    )
