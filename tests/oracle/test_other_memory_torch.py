"""Tensors that get other memory (`set_`, `data`, `resize_`, `swap_tensors`, storages resized), and
what in-place operations read of before, against PyTorch; plain and in compiled functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch: Any = pytest.importorskip("torch")

Program = Callable[[Any], Any]
PROGRAMS: dict[str, Program] = {}


def program(define: Program) -> Program:
    """A program on either library, whose result is compared."""
    PROGRAMS[define.__name__] = define
    return define


def _pending(t: Any) -> Any:
    return t.arange(6.0).reshape(2, 3) * 2 + 1


@program
def set_none(t: Any) -> Any:
    y = _pending(t)
    y.set_()
    return y.shape, y.tolist(), y.dtype


@program
def set_source(t: Any) -> Any:
    y = _pending(t)
    s = _pending(t) + 1
    y.set_(s)
    s.add_(1)
    return y.tolist(), s.tolist()


@program
def set_source_before_after(t: Any) -> Any:
    x = t.zeros(3)
    y = _pending(t)
    z = y * 3
    y.set_(x)
    y.add_(5)
    return x.tolist(), y.tolist(), z.tolist()


@program
def set_storage(t: Any) -> Any:
    y = _pending(t)
    s = _pending(t) * 3
    y.set_(s.untyped_storage(), 1, (2, 2), (2, 1))
    y[0, 0] = 77
    return y.tolist(), s.tolist()


@program
def set_storage_default(t: Any) -> Any:
    y = _pending(t)
    s = _pending(t) * 3
    y.set_(s.untyped_storage())
    return y.shape, y.tolist()


@program
def set_storage_dtype(t: Any) -> Any:
    y = t.zeros(0)
    s = (_pending(t) * 3).storage()
    y.set_(s, 0, (3,))
    return y.shape, y.tolist()


@program
def set_self_view(t: Any) -> Any:
    y = _pending(t)
    y.set_(y[1])
    y.mul_(2)
    return y.shape, y.tolist()


@program
def set_other_dtype(t: Any) -> Any:
    y = _pending(t)
    y.set_(t.arange(3))
    return y.dtype


@program
def set_other_dtype_pending(t: Any) -> Any:
    y = _pending(t)
    s = t.arange(3) * 2
    y.set_(s)
    return y.dtype


@program
def data_pending(t: Any) -> Any:
    y = _pending(t)
    y.data = _pending(t)[0] + 1
    return y.tolist()


@program
def data_other_dtype(t: Any) -> Any:
    y = _pending(t)
    y.data = t.arange(3) * 2
    return str(y.dtype), y.tolist()


@program
def data_of_result_with_grad(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    y.data = t.tensor([5.0, 6, 7])
    z = (y * y).sum()
    z.backward()
    return a.grad.tolist(), y.tolist()


@program
def data_of_result_with_grad_size(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    y.data = t.ones(2)
    return y.shape, y.requires_grad


@program
def set_grad_result(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    y.set_(t.ones(2))
    return 1


@program
def set_grad_result_none(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    y.set_()
    return y.shape


@program
def set_nograd_result_none(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    with t.no_grad():
        y.set_()
    return y.shape, y.requires_grad


@program
def set_after_use_backward(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    z = (y * y).sum()
    with t.no_grad():
        y.set_()
    z.backward()
    return a.grad.tolist()


@program
def set_detached_use_backward(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    z = (y * y).sum()
    y.detach().set_()
    z.backward()
    return a.grad.tolist()


@program
def set_data_use_backward(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    y = a * 2
    z = (y * y).sum()
    y.data.set_()
    z.backward()
    return a.grad.tolist(), y.shape


@program
def data_set_source(t: Any) -> Any:
    x = _pending(t)
    x.data.set_(t.ones(2))
    return x.shape


@program
def leaf_set(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    a.set_(t.zeros(3))
    return a.tolist()


@program
def leaf_set_nograd(t: Any) -> Any:
    a = t.ones(3, requires_grad=True)
    with t.no_grad():
        a.set_(t.zeros(3))
    return a.tolist(), a.requires_grad


@program
def param_data_then_step(t: Any) -> Any:
    p = t.nn.Parameter(t.ones(3))
    o = t.optim.SGD([p], lr=0.1)
    (p * p).sum().backward()
    p.data = t.full((3,), 4.0)
    o.step()
    return p.tolist()


@program
def resize_pending(t: Any) -> Any:
    y = _pending(t)
    y.resize_(2, 2)
    return y.tolist()


@program
def resize_bigger(t: Any) -> Any:
    y = _pending(t)
    y.resize_(3, 3)
    y.zero_()
    return y.tolist()


@program
def resize_shared(t: Any) -> Any:
    y = _pending(t)
    v = y[0]
    d = y.detach()
    y.resize_(3)
    y[0] = 9
    return y.tolist(), v.tolist(), d.shape, d.tolist()


@program
def resize_zero(t: Any) -> Any:
    y = _pending(t)
    y.resize_(0)
    return y.shape


@program
def resize_view(t: Any) -> Any:
    y = _pending(t)
    v = y[1]
    v.resize_(2)
    v[0] = 5
    return v.tolist(), y.tolist()


@program
def swap(t: Any) -> Any:
    a = _pending(t)
    b = _pending(t)[0] + 5
    t.utils.swap_tensors(a, b)
    return a.tolist(), b.tolist()


@program
def swap_then_run(t: Any) -> Any:
    a = _pending(t)
    b = t.zeros(2)
    c = a * 2
    t.utils.swap_tensors(a, b)
    c.add_(1)
    return a.tolist(), b.tolist(), c.tolist()


@program
def swap_param(t: Any) -> Any:
    m = t.nn.Linear(2, 2, bias=False)
    w = t.nn.Parameter(t.eye(2) * 2)
    t.utils.swap_tensors(m.weight, w)
    return m(t.ones(1, 2)).tolist(), w.shape


@program
def storage_resize0(t: Any) -> Any:
    y = _pending(t)
    y.untyped_storage().resize_(0)
    return y.untyped_storage().size()


@program
def storage_resize0_back(t: Any) -> Any:
    y = _pending(t)
    z = y * 2
    n = y.untyped_storage().size()
    y.untyped_storage().resize_(0)
    y.untyped_storage().resize_(n)
    y.copy_(t.ones(2, 3))
    return y.tolist(), z.tolist()


@program
def storage_resize0_used(t: Any) -> Any:
    y = _pending(t)
    z = y * 2
    y.untyped_storage().resize_(0)
    return z.tolist()


@program
def storage_resize0_param(t: Any) -> Any:
    m = t.nn.Linear(2, 2)
    m.weight.untyped_storage().resize_(0)
    m.weight.data.untyped_storage().resize_(16)
    m.weight.data.fill_(1.0)
    m.bias.data.zero_()
    return m(t.ones(1, 2)).tolist()


@program
def set_in_loop(t: Any) -> Any:
    y = t.zeros(3)
    for i in range(3):
        y.set_(t.full((3,), float(i)) * 2)
    return y.tolist()


@program
def set_view(t: Any) -> Any:
    x = _pending(t)
    v = x[0]
    v.set_(t.ones(2))
    v.mul_(3)
    return x.tolist(), v.tolist()


@program
def set_version(t: Any) -> Any:
    x = _pending(t)
    a = x._version
    x.set_(t.ones(2))
    b = x._version
    x.data = t.ones(3)
    c = x._version
    x.resize_(2)
    return a, b, c, x._version


@program
def set_keeps_alias(t: Any) -> Any:
    x = _pending(t)
    d = x.detach()
    x.set_(t.ones(2))
    d.add_(1)
    return x.tolist(), d.tolist()


@program
def set_seq(t: Any) -> Any:
    x = t.zeros(0)
    x.set_(t.arange(6.0), 1, (2, 2), (2, 1))
    return x.tolist()


@program
def set_kwargs(t: Any) -> Any:
    x = t.zeros(0)
    s = t.arange(6.0)
    x.set_(source=s.untyped_storage(), storage_offset=2, size=(2,), stride=(1,))
    return x.tolist()


@program
def set_list_sizes(t: Any) -> Any:
    x = t.zeros(0)
    s = t.arange(6.0)
    x.set_(s.untyped_storage(), 2, t.Size([2]), [1])
    return x.tolist()


@program
def set_number(t: Any) -> Any:
    t.zeros(1).set_(3)


@program
def data_del(t: Any) -> Any:
    del t.zeros(1).data


@program
def data_none(t: Any) -> Any:
    t.zeros(1).data = None


@program
def host(t: Any) -> Any:
    import numpy as np

    a = np.ones(3, "float32")
    y = t.from_numpy(a)
    z = y * 2
    y.set_()
    a[:] = 5
    return z.tolist(), y.shape


@program
def host_resize(t: Any) -> Any:
    import numpy as np

    a = np.ones(3, "float32")
    y = t.from_numpy(a)
    y.resize_(2)
    y[0] = 7
    return a.tolist(), y.tolist()


@program
def views_of_what_was_left(t: Any) -> Any:
    x, y, z = _pending(t), _pending(t), _pending(t)
    a, b, c = x[0], y[1, 1:], z[0]
    x.set_()
    y.data = t.ones(2, 2)
    z.resize_(2)
    b.add_(1)
    c.mul_(2)
    return (a + 1).tolist(), (b + 1).tolist(), y.tolist(), (c + 1).tolist(), z.tolist()


@program
def views_that_get_other_memory(t: Any) -> Any:
    a = t.ones(4, requires_grad=True)
    x = a * 2
    v, w = x[1:3], x[2:]
    v.data = t.tensor([5.0, 6.0])
    (v * v + w).sum().backward()
    return v.tolist(), v.requires_grad, x.tolist(), a.grad.tolist()


@program
def retained_and_swapped(t: Any) -> Any:
    a = t.ones(2, requires_grad=True)
    x, other = a * 3, t.zeros(1)
    x.retain_grad()
    loss = (x * x).sum()
    t.utils.swap_tensors(other, t.ones(1))
    loss.backward()
    return x.grad.tolist(), other.tolist()


def _outcome(define: Program, t: Any) -> Any:
    try:
        return "done", str(define(t)).replace("graphtorch", "torch")
    except Exception as error:
        return "raised", type(error)


def _compiled(define: Program) -> Program:
    def twice(t: Any) -> Any:
        call = t.compile(lambda: define(t))
        call()
        return call()

    return twice


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_pytorch(name: str) -> None:
    define = PROGRAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = _outcome(define, torch)
        assert _outcome(define, graphtorch) == expected
        assert _outcome(_compiled(define), graphtorch) == expected


def test_freed_memory_is_not_read() -> None:
    x = graphtorch.arange(6.0) * 2
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="given back"):
        (x + 1).tolist()
    assert graphtorch.ones(2).tolist() == [1.0, 1.0]
    x.untyped_storage().resize_(24)
    assert x.fill_(2).tolist() == [2.0] * 6
    with pytest.raises(NotImplementedError, match="0 and back to 24"):
        x.untyped_storage().resize_(8)


def test_a_swapped_leaf_refuses_gradients() -> None:
    a, b = graphtorch.ones(2, requires_grad=True), graphtorch.zeros(2)
    loss = (a * 2).sum()
    graphtorch.utils.swap_tensors(a, b)
    assert b.requires_grad and not a.requires_grad
    with pytest.raises(RuntimeError, match="poisoned by swap_tensors"):
        loss.backward()


INDEX = [[0, 1, 0], [1, 0, 0]]
IN_PLACE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "logit": lambda t, x, y: x.logit_(0.2),
    "polygamma": lambda t, x, y: x.polygamma_(2),
    "renorm": lambda t, x, y: x.renorm_(2, 0, 0.5),
    "index_reduce": lambda t, x, y: x.index_reduce_(0, t.tensor([1, 0]), y, "mean"),
    "scatter_reduce": lambda t, x, y: x.scatter_reduce_(1, t.tensor(INDEX), y, "prod"),
    "conj_physical": lambda t, x, y: x.conj_physical_().mul_(y),
    "float_power": lambda t, x, y: x.float_power_(y),
    "index_copy": lambda t, x, y: x[0, 0].clone().index_copy_(0, t.tensor([0]), y[1, 1]),
}


def _in_place(t: Any, name: str, dtype: str, of_view: bool) -> Any:
    rows = [[0.1, 0.35, 0.6], [0.85, 0.95, 0.4]]
    x = t.tensor(rows, dtype=getattr(t, dtype), requires_grad=True)
    y = t.tensor(rows[::-1], dtype=getattr(t, dtype), requires_grad=True)
    target = x * 1
    try:
        made = IN_PLACE[name](t, target[:] if of_view else target, y * 1)
        (made * made).sum().backward()
    except RuntimeError:
        return "refused"
    return [np.asarray(v.detach()) for v in (made, x.grad, y.grad) if v is not None]


@pytest.mark.parametrize("of_view", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operations_of_several_steps_have_gradients(
    name: str, dtype: str, of_view: bool
) -> None:
    expected, found = (_in_place(t, name, dtype, of_view) for t in (torch, graphtorch))
    assert (
        (expected == "refused") == (found == "refused") == (name == "float_power" and "32" in dtype)
    )
    if expected != "refused":
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b, a, 1e-5, 1e-6)


def _mapped(t: Any) -> Any:
    x, columns = t.arange(6.0).reshape(2, 3), t.zeros(3, 2)
    return [
        x.apply_(lambda v: 2 * v + 1).tolist(),
        x.map_(t.tensor([1.0, 2.0, 3.0]), lambda a, b: a * b).tolist(),
        columns.t().apply_(lambda v: v - 1).stride(),
        columns.tolist(),
        t.tensor([1, 2]).apply_(lambda v: v + 1).tolist(),
    ]


def test_functions_of_elements() -> None:
    assert _mapped(graphtorch) == _mapped(torch)
    for t in (torch, graphtorch):
        with pytest.raises(RuntimeError, match=r"Use var.detach\(\).apply_\(\) instead"):
            t.ones(2, requires_grad=True).apply_(lambda v: v)
