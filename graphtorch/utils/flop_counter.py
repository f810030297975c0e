"""``torch.utils.flop_counter``: floating-point operations of matrix products, convolutions and
attention.

They are counted when a function is called and when a backward pass comes to its node, as PyTorch
counts them: by the shapes of what the program asks for, whatever the compiled code makes of it.
https://docs.pytorch.org/docs/stable/ (torch.utils.flop_counter)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from graphtorch.ir import ops
from graphtorch.ir.graph import Node, Value, topological
from graphtorch.ir.op import Weight

from .._deferred.tensor import Tensor
from .._torch.absent import attribute_of
from ..autograd.engine import watching
from ..autograd.nodes import GradNode
from ..nn.modules._call import register_module_forward_hook, register_module_forward_pre_hook
from ..ops.operators import ENTRIES, Entry, Overload, lookup
from ..overrides import TorchFunctionMode
from . import _pytree

Shape = Sequence[int]
flop_registry: dict[Any, Callable[..., int]] = {}  # by operator: the count of a call


def register_flop_formula(targets: Any, get_raw: bool = False) -> Callable[[Any], Any]:
    """A decorator for what counts the calls of an operator, or of several.

    It is called as the operator is, with shapes in the place of tensors (for `get_raw` the tensors
    themselves, and ``out_val``) and ``out_shape``, the result's.
    """

    def decorate(formula: Callable[..., int]) -> Callable[..., int]:
        count = formula if get_raw else _of_shapes(formula)
        for target in targets if isinstance(targets, (tuple, list)) else (targets,):
            flop_registry[_packet(target)] = count
        return formula

    return decorate


def _of_shapes(formula: Callable[..., int]) -> Callable[..., int]:
    def count(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        args, kwargs, out = _pytree.tree_map(_shape, (args, kwargs, out_val))
        return formula(*args, out_shape=out, **kwargs)

    return count


def _shape(x: Any) -> Any:
    return tuple(x.shape) if isinstance(x, (Tensor, Value)) else x


def _packet(operator: Any) -> Any:
    return operator.overloadpacket if isinstance(operator, Overload) else operator


def _aten(name: str) -> Any:
    """The operator; one that nothing here implements is declared, as the name of what is
    counted."""
    found = lookup("aten", name) or ENTRIES.setdefault(f"aten::{name}", Entry(f"aten::{name}"))
    return found.packet


# ----------------------------------------------------------------------------------------- formulas


@register_flop_formula(_aten("mm"))
def mm_flop(
    a_shape: Shape, b_shape: Shape, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Of [m, k] @ [k, n]: 2 m k n."""
    return 2 * prod(a_shape) * b_shape[-1]


@register_flop_formula(_aten("addmm"))
def addmm_flop(self_shape: Shape, a_shape: Shape, b_shape: Shape, **kwargs: Any) -> int:
    """As `mm_flop`; the sum is not counted."""
    return mm_flop(a_shape, b_shape)


@register_flop_formula(_aten("bmm"))
def bmm_flop(a_shape: Shape, b_shape: Shape, **kwargs: Any) -> int:
    """Of [b, m, k] @ [b, k, n]: 2 b m k n."""
    return mm_flop(a_shape, b_shape)


@register_flop_formula(_aten("baddbmm"))
def baddbmm_flop(self_shape: Shape, a_shape: Shape, b_shape: Shape, **kwargs: Any) -> int:
    """As `bmm_flop`; the sum is not counted."""
    return mm_flop(a_shape, b_shape)


def conv_flop_count(
    x_shape: Shape, w_shape: Shape, out_shape: Shape, transposed: bool = False
) -> int:
    """Of a convolution [N, C, *] with weights [O, C / groups, *]: 2 for each product of an output
    position (input position, where transposed) with the weights."""
    return 2 * x_shape[0] * prod((x_shape if transposed else out_shape)[2:]) * prod(w_shape)


@register_flop_formula(_aten("convolution"))
def conv_flop(
    x_shape: Shape,
    w_shape: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """See `conv_flop_count`."""
    return conv_flop_count(x_shape, w_shape, out_shape, transposed)


def _turned(shape: Shape) -> Shape:
    return (shape[1], shape[0], *shape[2:])


@register_flop_formula(_aten("convolution_backward"))
def conv_backward_flop(
    grad_shape: Shape,
    x_shape: Shape,
    w_shape: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: Sequence[bool],
    out_shape: Any = None,
) -> int:
    """Of the gradients that `output_mask` asks for: a convolution each, of the gradient with the
    weights and of the input with the gradient. As in PyTorch the latter counts all channels with
    each other."""
    count = 0
    if output_mask[0]:
        count += conv_flop_count(grad_shape, w_shape, x_shape, not transposed)
    if output_mask[1]:
        moved, kernel = (grad_shape, x_shape) if transposed else (x_shape, grad_shape)
        count += conv_flop_count(_turned(moved), _turned(kernel), _turned(w_shape))
    return count


def sdpa_flop_count(query_shape: Shape, key_shape: Shape, value_shape: Shape) -> int:
    """Of attention, heads [b, h, s, d]: the scores and their product with the values."""
    *heads, rows, width = query_shape
    return 2 * prod(heads) * rows * key_shape[-2] * (width + value_shape[-1])


@register_flop_formula(_aten("_scaled_dot_product_flash_attention"))
def sdpa_flop(
    query_shape: Shape,
    key_shape: Shape,
    value_shape: Shape,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """See `sdpa_flop_count`."""
    return sdpa_flop_count(query_shape, key_shape, value_shape)


def sdpa_backward_flop_count(
    grad_out_shape: Shape, query_shape: Shape, key_shape: Shape, value_shape: Shape
) -> int:
    """Of the gradient of attention: the scores once more, and two products for each of its two
    products."""
    *heads, rows, width = query_shape
    return 2 * prod(heads) * rows * key_shape[-2] * (3 * width + 2 * value_shape[-1])


@register_flop_formula(_aten("_scaled_dot_product_flash_attention_backward"))
def sdpa_backward_flop(
    grad_out_shape: Shape,
    query_shape: Shape,
    key_shape: Shape,
    value_shape: Shape,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """See `sdpa_backward_flop_count`."""
    return sdpa_backward_flop_count(grad_out_shape, query_shape, key_shape, value_shape)


# ----------------------------------------------------------------------------------- what is called


class _Call(NamedTuple):
    """A contraction in PyTorch's terms: its operator and arguments, and how often it is called."""

    name: str
    args: tuple[Any, ...]
    out: Any
    times: int = 1


_ADDED = {
    "addmm": "addmm",
    "baddbmm": "baddbmm",
    "gru": "addmm",
    "gru_cell": "addmm",
    "lstm": "addmm",
    "lstm_cell": "addmm",
    "rnn_relu": "addmm",
    "rnn_relu_cell": "addmm",
    "rnn_tanh": "addmm",
    "rnn_tanh_cell": "addmm",
}
_UNCOUNTED = frozenset({"addbmm", "bilinear", "cdist"})  # PyTorch has no formula for these


def _counts(node: Node) -> bool:
    """Whether a node has products to count, itself or in its body."""
    return node.op.weight is Weight.CONTRACTION or node.op is ops.scan


def _calls(node: Node, function: str) -> Iterator[_Call]:
    """What a node of the graph is, recorded by a function of that name."""
    name, values, out = node.op.name, node.operands, node.result()
    if name == "scan":
        body: Any = node.attrs
        for inner in body.body.nodes:
            for call in _calls(inner, function):
                yield call._replace(times=call.times * _length(node))
    elif name == "affine":
        yield _Call("addmm", (values[0], values[1], _turned(values[2].shape)), out)
    elif name == "linear":
        yield _Call("mm", (values[0], _turned(values[1].shape)), out)
    elif name == "matmul":
        yield from _product(node, function)
    elif name in ("conv", "conv_transpose"):
        attrs: Any = node.attrs
        yield _Call(
            "convolution",
            (
                values[0],
                values[1],
                None,
                attrs.stride,
                attrs.padding,
                attrs.dilation,
                name != "conv",
                0,
                attrs.groups,
            ),
            out,
        )
    elif name in ("attention", "dropped_attention"):
        yield _Call("_scaled_dot_product_flash_attention", values[:3], out)
    elif _counts(node):
        raise NotImplementedError(
            "FlopCounterMode: second derivatives of convolutions and attention are not "
            "counted; leave the block before that backward pass"
        )


def _product(node: Node, function: str) -> Iterator[_Call]:
    a, b = node.operands
    if a.shape[-1] == 1 if function == "einsum" else _is_vector(b):
        # PyTorch has no formula for the product with a vector, and none is called for an outer one
        return
    out = node.result()
    name = "mm" if out.rank == 2 and function != "einsum" else "bmm"
    args: tuple[Any, ...] = ((*out.shape[:-1], a.shape[-1]), b.shape)
    name = _ADDED.get(function, name)
    yield _Call(name, (out, *args) if name in ("addmm", "baddbmm") else args, out)


def _is_vector(value: Value) -> bool:
    """Whether a matrix is a vector that got a second dimension."""
    node = value.node
    return node is not None and node.op.name == "reshape" and node.operands[0].rank == 1


def _length(node: Node) -> int:
    attrs: Any = node.attrs
    return int(attrs.length)


def _backward_calls(call: _Call, wanted: Sequence[bool]) -> Iterator[_Call]:
    """The calls of the gradient of a contraction; `wanted`: of its two factors."""
    if call.name == "convolution":
        x, w, *rest = call.args
        yield _Call(
            "convolution_backward", (call.out, x, w, *rest, (*wanted, False)), None, call.times
        )
    elif call.name == "_scaled_dot_product_flash_attention":
        yield _Call(call.name + "_backward", (call.out, *call.args), None, call.times)
    else:
        a, b = [_shape(x) for x in call.args[-2:]]
        name, out = "bmm" if "bmm" in call.name else "mm", _shape(call.out)
        if wanted[0]:
            yield _Call(name, (out, (*b[:-2], b[-1], b[-2])), a, call.times)
        if wanted[1]:
            turned = (*a[:-2], a[-1], a[-2]) if name == "bmm" else (a[-1], prod(a[:-1]))
            yield _Call(name, (turned, out), b, call.times)


# -------------------------------------------------------------------------------------- the counter


class FlopCounterMode:
    """Counts the floating-point operations of a ``with`` block, in all and for each module that is
    called.

    Args:
        mods: not needed; modules are found when they are called.
        depth: to which depth of modules the table goes; None for all of them.
        display: whether the table is printed at the end.
        custom_mapping: for operators of your own what counts a call, see `register_flop_formula`;
            with an attribute ``_get_raw`` that is true it gets tensors instead of shapes.

    Compiled functions called inside run line by line. Attention counts as PyTorch's fused kernels
    for GPUs do (those for CPUs have no formula); of an LSTM the products count as those of a GRU.
    """

    def __init__(
        self,
        mods: Any = None,
        depth: int | None = 2,
        display: bool = True,
        custom_mapping: dict[Any, Any] | None = None,
    ):
        self.depth, self.display = depth, display
        self.flop_counts: dict[str, dict[Any, int]] = {}
        self.flop_registry = {
            **flop_registry,
            **{
                _packet(k): f if getattr(f, "_get_raw", False) else _of_shapes(f)
                for k, f in (custom_mapping or {}).items()
            },
        }

    def __enter__(self) -> FlopCounterMode:
        self.flop_counts = defaultdict(lambda: defaultdict(int))
        self.flop_counts["Global"] = defaultdict(int)
        self._modules = _Modules()
        self._mode = _Watching(self, self._modules)
        self._modules.__enter__()
        self._mode.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._mode.__exit__(*exc)
        self._modules.__exit__(*exc)
        if self.display:
            print(self.get_table(self.depth))

    def _count(
        self, operator: Any, modules: Any, args: Any, kwargs: Any, out: Any, times: int = 1
    ) -> None:
        found = self.flop_registry[operator](*args, out_val=out, **kwargs) * times
        for name in modules:
            self.flop_counts[name][operator] += found

    def get_flop_counts(self) -> dict[str, dict[Any, int]]:
        """For "Global" and the path of each module that was called: the count of each operator."""
        return {k: dict(v) for k, v in self.flop_counts.items()}

    def get_total_flops(self) -> int:
        """What was counted in all."""
        return sum(self.flop_counts.get("Global", {}).values())

    def get_table(self, depth: int | None = None) -> str:
        """A table of modules to a depth (by default the counter's): counts and their part of the
        whole."""
        depth = self.depth if depth is None else depth
        total = self.get_total_flops()
        suffix = max(0, min(len(_SUFFIXES) - 1, (len(str(total)) - 2) // 3))
        names = [
            n
            for n in sorted(self.flop_counts)
            if n != "Global" and (depth is None or n.count(".") < depth)
        ]
        beyond = all(sum(self.flop_counts[n].values()) < total for n in names)
        rows = [r for n in names for r in self._rows(n, n.count(".") + beyond, total, suffix)]
        if beyond:
            rows = [*self._rows("Global", 0, total, suffix), *rows]
        return _table(
            [("Module", "FLOP", "% Total"), *(rows if total else [("Global", "0", "0%")])]
        )

    def _rows(
        self, name: str, indent: int, total: int, suffix: int
    ) -> Iterator[tuple[str, str, str]]:
        counts = self.flop_counts[name]
        for label, count in (
            (name, sum(counts.values())),
            *((f" - {k}", v) for k, v in counts.items()),
        ):
            part = f"{count / total:.2%}" if total else "0%"
            yield " " * indent + label, f"{count / 1000**suffix:.3f}{_SUFFIXES[suffix]}", part


_SUFFIXES = ("", "K", "M", "B", "T")


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    rows = [rows[0], ("-" * widths[0], "-" * widths[1], "-" * widths[2]), *rows[1:]]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)


class _Modules:
    """The paths of the modules whose call is in progress, "Global" among them."""

    def __init__(self) -> None:
        self.parents = ["Global"]
        self._names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def _name(self, module: Any) -> str:
        if module not in self._names:
            for path, inner in module.named_modules(prefix=type(module).__name__):
                self._names.setdefault(inner, path)
        return self._names[module]

    def __enter__(self) -> None:
        self._handles = [
            register_module_forward_pre_hook(lambda m, args: self.parents.append(self._name(m))),
            register_module_forward_hook(lambda m, args, result: self._left(), always_call=True),
        ]

    def _left(self) -> None:
        self.parents.pop()

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()


class _Watching(TorchFunctionMode):
    """Sees the functions that a program calls, and the nodes that its backward passes come to."""

    def __init__(self, counter: FlopCounterMode, modules: _Modules):
        self._counter, self._modules = counter, modules
        self._counted: WeakSet[Node] = WeakSet()
        self._made: WeakKeyDictionary[GradNode, tuple[str, frozenset[str]]] = WeakKeyDictionary()

    def __enter__(self) -> Any:
        watching.append(self._came_to)
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        watching.remove(self._came_to)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _PASSES and hasattr(func, "__wrapped__"):
            super().__enter__()  # functions of the user's own may be called from there
            try:
                return func.__wrapped__(*args, **kwargs)
            finally:
                super().__exit__()
        operator = _packet(func)
        if name == "__get__":
            return func(*args, **kwargs)
        border = {t._value() for t in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        modules = frozenset(self._modules.parents)
        if (
            isinstance(getattr(operator, "__module__", None), str)
            and operator in self._counter.flop_registry
        ):
            self._counter._count(operator, modules, args, kwargs, result)
        elif name not in _UNCOUNTED:
            self._recorded(name, modules, [t for t in _tensors(result) if not t.is_meta], border)
        return result

    def _recorded(
        self, name: str, modules: frozenset[str], results: list[Any], border: set[Value]
    ) -> None:
        for tensor in results:
            if tensor._base is None and tensor._fn is not None:
                self._made.setdefault(tensor._fn, (name, modules))
        for node in topological([t._value() for t in results], border):
            if _counts(node) and node not in self._counted:
                self._counted.add(node)
                for call in _calls(node, name):
                    self._add(call, modules)

    def _add(self, call: _Call, modules: frozenset[str]) -> None:
        self._counter._count(_aten(call.name), modules, call.args, {}, call.out, call.times)

    def _came_to(self, fn: GradNode) -> None:
        """Count the gradient of an operation; nodes inside of a function belong to where it was
        called."""
        name, modules = self._made.get(fn, ("", frozenset({"Global"})))
        for edge in fn.edges:
            if edge is not None:
                self._made.setdefault(edge[0], (name, modules))
        flowing = {v for v, e in zip(fn.operands, fn.edges, strict=True) if e is not None}
        if name in _UNCOUNTED or not fn.outputs:
            return
        for node in topological(fn.outputs, frozenset(fn.operands)):
            if flowing.isdisjoint(node.operands):
                continue
            flowing.update(node.results())
            if _counts(node):
                first = node.op.name == "affine"  # its first operand is what is added
                wanted = [v in flowing for v in node.operands[first : first + 2]]
                for call in _calls(node, name):
                    for one in _backward_calls(call, wanted):
                        self._add(one, modules)


_PASSES = frozenset({"backward", "grad"})


def _tensors(tree: Any) -> list[Any]:
    return [t for t in _pytree.tree_leaves(tree) if isinstance(t, Tensor) and not t.is_sparse]


__all__ = ["FlopCounterMode", "register_flop_formula"]
__getattr__ = attribute_of(__name__)
