"""Bad input: PyTorch's exception type, and a message with what was given, the user's line and what
to do."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from typing import Any

import pytest

import graphtorch
from graphtorch import nn
from graphtorch.backends.cpu import lower
from graphtorch.backends.llvm.emit import ModuleEmitter
from graphtorch.ir.failure import InternalError
from graphtorch.ir.passes import cse, fold
from graphtorch.ir.verify import VerifyError

HERE = re.escape(__file__)


def here(offset: int = 0) -> str:
    """A pattern for the caller's line, or one so many lines after it."""
    return rf"{HERE}:{inspect.currentframe().f_back.f_lineno + offset}\b"


# ----------------------------------------------------------------------------------- beside PyTorch
# name: (a program of the module `t`, exception, pattern of our message)

SHAPES = {
    "add": (
        lambda t: t.ones(2, 3) + t.ones(4),
        RuntimeError,
        r"tensor a \(3\) must match .* tensor b \(4\)",
    ),
    "matmul": (
        lambda t: t.ones(2, 3) @ t.ones(4, 5),
        RuntimeError,
        r"cannot be multiplied \(2x3 and 4x5\)",
    ),
    "mm": (lambda t: t.mm(t.ones(3), t.ones(3, 2)), RuntimeError, "must be matrices"),
    "cat": (
        lambda t: t.cat([t.ones(2, 3), t.ones(2, 4)]),
        RuntimeError,
        "Expected size 3 but got size 4",
    ),
    "stack": (
        lambda t: t.stack([t.ones(2), t.ones(3)]),
        RuntimeError,
        r"\[2\] at entry 0 and \[3\] at entry 1",
    ),
    "reshape": (
        lambda t: t.ones(6).reshape(-1, 4),
        RuntimeError,
        r"\[-1, 4\]' is invalid for input of size",
    ),
    "view": (lambda t: t.ones(2, 3).t().view(6), RuntimeError, r"Use \.reshape"),
    "expand": (lambda t: t.ones(2).expand(3), RuntimeError, r"expanded size of the tensor \(3\)"),
    "conv": (
        lambda t: t.nn.functional.conv2d(t.ones(1, 3, 8, 8), t.ones(4, 2, 3, 3)),
        RuntimeError,
        "to have 2 channels, but got 3",
    ),
    "conv kernel": (
        lambda t: t.nn.functional.conv2d(t.ones(1, 1, 2, 2), t.ones(1, 1, 3, 3)),
        RuntimeError,
        "Kernel size can't be greater",
    ),
    "linear": (lambda t: t.nn.Linear(3, 4)(t.ones(2, 5)), RuntimeError, r"\(2x5 and 3x4\)"),
    "layer norm": (
        lambda t: t.nn.LayerNorm(4)(t.ones(2, 3)),
        RuntimeError,
        r"normalized_shape=\[4\]",
    ),
    "batch norm": (
        lambda t: t.nn.BatchNorm1d(3)(t.ones(1, 3)),
        ValueError,
        "more than 1 value per channel",
    ),
    "cross entropy": (
        lambda t: t.nn.functional.cross_entropy(t.ones(2, 3), t.tensor([0, 1, 2])),
        ValueError,
        r"batch_size \(2\) to match target batch_size \(3\)",
    ),
    "assign": (
        lambda t: t.ones(3).__setitem__(slice(0, 2), t.ones(3)),
        RuntimeError,
        "expanded size",
    ),
    "state dict": (
        lambda t: t.nn.Linear(2, 2).load_state_dict({"weight": t.ones(3, 3)}),
        RuntimeError,
        r'Missing key.*"bias"[\s\S]*size mismatch for weight',
    ),
    "empty max": (lambda t: t.zeros(0).max(), RuntimeError, "numel"),
    "empty argmax": (lambda t: t.zeros(0).argmax(), IndexError, "numel"),
    "ragged": (
        lambda t: t.tensor([[1, 2], [3]]),
        ValueError,
        "expected sequence of length 2 at dim 1",
    ),
    "dim": (
        lambda t: t.ones(2).sum(3),
        IndexError,
        r"expected to be in range of \[-1, 0\], but got 3",
    ),
    "softmax dim": (lambda t: t.softmax(t.ones(2), 2), IndexError, "Dimension out of range"),
    "bool": (lambda t: bool(t.ones(2)), RuntimeError, "ambiguous"),
    "float": (lambda t: float(t.ones(2)), ValueError, "only one element tensors"),
    "item": (lambda t: t.ones(2).item(), RuntimeError, "2 elements cannot be converted to Scalar"),
}
TYPES = {
    "matmul": (
        lambda t: t.ones(2, 2) @ t.ones(2, 2, dtype=t.float64),
        RuntimeError,
        r"float != double.*\.to",
    ),
    "linear": (
        lambda t: t.nn.Linear(2, 2)(t.ones(2, 2, dtype=t.float64)),
        RuntimeError,
        r"float64.*\.to\(",
    ),
    "conv": (
        lambda t: t.nn.functional.conv2d(t.ones(1, 3, 8, 8).double(), t.ones(4, 3, 3, 3)),
        RuntimeError,
        "float64",
    ),
    "in place": (
        lambda t: t.ones(2, dtype=t.int64).add_(0.5),
        RuntimeError,
        "result type .* can't be cast",
    ),
    "index": (lambda t: t.ones(3)[t.tensor([0.5])], IndexError, "must be long, int, byte or bool"),
    "embedding": (
        lambda t: t.nn.functional.embedding(t.ones(2), t.ones(3, 4)),
        RuntimeError,
        "Long, Int",
    ),
    "mean": (
        lambda t: t.ones(2, dtype=t.int64).mean(),
        RuntimeError,
        "could not infer output dtype",
    ),
    "bits": (lambda t: t.ones(2) & t.ones(2), NotImplementedError, "not implemented for"),
    "gradient": (
        lambda t: t.ones(2, dtype=t.int64, requires_grad=True),
        RuntimeError,
        "can require gradients",
    ),
    "str": (
        lambda t: t.sqrt("a"),
        TypeError,
        r"sqrt\(\): argument 'input' .* must be Tensor, not str",
    ),
    "list": (lambda t: t.relu([1.0]), TypeError, "must be Tensor, not list"),
    "operator": (lambda t: t.ones(2) + "a", TypeError, "unsupported operand"),
    "cat of a tensor": (lambda t: t.cat(t.ones(2)), TypeError, "tuple of Tensors, not Tensor"),
    "linear of None": (
        lambda t: t.nn.Linear(3, 4)(None),
        TypeError,
        "must be Tensor, not NoneType",
    ),
    "keyword": (lambda t: t.sum(t.ones(2), bogus=1), TypeError, "bogus"),
    "missing": (lambda t: t.matmul(t.ones(2)), TypeError, "other"),
    "dim": (lambda t: t.ones(2).sum("x"), TypeError, "dim"),
    "size": (lambda t: t.zeros("a"), TypeError, "str"),
    "dtype": (lambda t: t.zeros(2, dtype="float32"), TypeError, "dtype"),
    "object": (lambda t: t.tensor(object()), RuntimeError, "Could not infer dtype of object"),
    "from_numpy": (lambda t: t.from_numpy([1, 2]), TypeError, "np.ndarray"),
    "device name": (lambda t: t.ones(2).to("bogus"), RuntimeError, "bogus"),
    "tensor attribute": (
        lambda t: t.ones(2).bogus,
        AttributeError,
        "'Tensor' object has no attribute 'bogus'",
    ),
    "module attribute": (
        lambda t: t.nn.Linear(2, 2).bogus,
        AttributeError,
        "'Linear' object has no attribute",
    ),
    "function": (lambda t: t.bogus, AttributeError, "no attribute 'bogus'"),
    "functional": (lambda t: t.nn.functional.bogus, AttributeError, "no attribute 'bogus'"),
    "learning rate": (
        lambda t: t.optim.SGD([t.ones(2, requires_grad=True)], lr=-1),
        ValueError,
        "Invalid learning",
    ),
    "no parameters": (lambda t: t.optim.SGD([], lr=1), ValueError, "empty parameter list"),
}


def twice(t: Any) -> None:
    y = t.ones(2, requires_grad=True).square().sum()
    y.backward()
    y.backward()


def write_to_leaf(t: Any) -> None:
    t.ones(2, requires_grad=True).add_(1)


def write_to_view_of_leaf(t: Any) -> None:
    t.ones(2, requires_grad=True)[0] = 1


def modified(t: Any) -> None:
    y = t.ones(2, requires_grad=True) * 2
    z = y * y
    y.add_(1)
    z.sum().backward()


def unused(t: Any) -> None:
    x, y = t.ones(2, requires_grad=True), t.ones(2, requires_grad=True)
    t.autograd.grad(x.sum(), y)


GRADIENTS = {
    "freed graph": (
        twice,
        RuntimeError,
        r"backward through the graph a second time[\s\S]*retain_graph=True",
    ),
    "leaf": (
        write_to_leaf,
        RuntimeError,
        "a leaf Variable that requires grad is being used in an in-place",
    ),
    "view of a leaf": (write_to_view_of_leaf, RuntimeError, "a view of a leaf Variable"),
    "modified": (
        modified,
        RuntimeError,
        "modified by an inplace operation.*is at version 1; expected version 0",
    ),
    "not a scalar": (
        lambda t: (t.ones(2, requires_grad=True) * 2).backward(),
        RuntimeError,
        "implicitly created only for scalar outputs",
    ),
    "no history": (lambda t: t.ones(2).sum().backward(), RuntimeError, "does not require grad"),
    "shape": (
        lambda t: (t.ones(2, requires_grad=True) * 2).backward(t.ones(3)),
        RuntimeError,
        "Mismatch in shape",
    ),
    "unused": (unused, RuntimeError, "allow_unused=True"),
    "numpy": (
        lambda t: t.ones(2, requires_grad=True).numpy(),
        RuntimeError,
        r"tensor\.detach\(\)\.numpy\(\)",
    ),
    "non-leaf": (
        lambda t: t.optim.SGD([t.ones(2, requires_grad=True) * 2], lr=1),
        ValueError,
        "non-leaf",
    ),
    "grad": (lambda t: setattr(t.ones(2), "grad", 1), TypeError, "expected to be a Tensor or None"),
}
INDICES = {
    "item": (
        lambda t: t.ones(3)[5],
        IndexError,
        "index 5 is out of bounds for dimension 0 with size 3",
    ),
    "too many": (lambda t: t.ones(3)[0, 0], IndexError, "too many indices"),
    "array": (
        lambda t: t.ones(3)[t.tensor([1, 7])].tolist(),
        IndexError,
        "index 7 is out of bounds",
    ),
    "embedding": (
        lambda t: t.nn.Embedding(3, 4)(t.tensor([9])).tolist(),
        IndexError,
        "index 9 is out of bounds",
    ),
    "select": (
        lambda t: t.ones(3).index_select(0, t.tensor([3])).tolist(),
        IndexError,
        "index 3 is out",
    ),
    "target": (
        lambda t: t.nn.functional.cross_entropy(t.ones(2, 3), t.tensor([1, 3])).item(),
        IndexError,
        "Target 3 is out of bounds",
    ),
}
CASES = {
    f"{kind}: {name}": case
    for kind, table in (
        ("shapes", SHAPES),
        ("types", TYPES),
        ("gradients", GRADIENTS),
        ("indices", INDICES),
    )
    for name, case in table.items()
}


@pytest.mark.parametrize("name", list(CASES))
def test_exception_and_message(name):
    program, error, message = CASES[name]
    with pytest.raises(error, match=message) as caught:
        program(graphtorch)
    assert caught.type is error
    assert any(frame.filename == __file__ for frame in traceback.extract_tb(caught.tb)[1:])


@pytest.mark.parametrize("name", list(CASES))
def test_exception_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    program, error, _ = CASES[name]
    with pytest.raises(error) as caught:
        program(torch)
    assert caught.type is error


def test_missing_device():
    assert not graphtorch.cuda.is_available()
    for program in (
        lambda: graphtorch.ones(2).to("cuda"),
        lambda: graphtorch.zeros(2, device="cuda:0"),
        lambda: nn.Linear(2, 2).cuda(),
    ):
        with pytest.raises(
            AssertionError, match=r"not compiled with CUDA.*No CUDA GPUs.*GRAPHTORCH_CUDA"
        ):
            program()


# ---------------------------------------------------------------------------------- the user's line

F = nn.functional
WRONG = graphtorch.tensor([0, 9])
LOOKUPS = {
    "embedding": lambda w, i: F.embedding(i, w),
    "gather": lambda w, i: w[:, 0].gather(0, i),
    "index": lambda w, i: w[i] * 2,
    "select": lambda w, i: w.exp().index_select(0, i),
    "scatter": lambda w, i: w[:, 0].scatter(0, i, 2.0),
    "scatter_add": lambda w, i: w[:, 0].scatter_add(0, i, w[:2, 0]),
    "index_put": lambda w, i: w.index_put((i,), w[:2]),
    "cross_entropy": lambda w, i: F.cross_entropy(w[:2], i),
}


AT_HAND = ("gather", "scatter", "scatter_add")


@pytest.mark.parametrize("name", list(LOOKUPS))
@pytest.mark.parametrize("compiled", [False, True])
def test_an_index_out_of_range_names_the_line(name, compiled):
    function = LOOKUPS[name]
    line = rf"\(\w+ at {HERE}:{function.__code__.co_firstlineno}\)$"
    run = graphtorch.compile(function) if compiled else function
    weight = graphtorch.ones(3, 3)
    # as in PyTorch
    error = RuntimeError if name in ("gather", "scatter", "scatter_add") else IndexError
    end = "" if compiled and name in AT_HAND else line  # compiled functions know their arguments
    for _ in range(2):
        with pytest.raises(error, match=rf"out of bounds.*{end}"):
            run(weight, WRONG + 0).sum().item()
    assert run(weight, graphtorch.tensor([0, 2])).sum().item() != 0  # nothing is left broken


def test_programs_of_one_structure_name_their_own_lines():
    weight = graphtorch.ones(3, 3)
    for _ in range(4):  # interpreted at first, then compiled
        with pytest.raises(IndexError, match=here(1)):
            (weight.cos()[WRONG + 0]).tolist()
        with pytest.raises(IndexError, match=here(1)):
            (weight.cos()[WRONG + 0]).tolist()


def test_an_error_does_not_spread():
    weight, other = graphtorch.ones(3, 3), graphtorch.ones(2) + 1
    bad = weight[WRONG + 0]
    with pytest.raises(IndexError):
        bad.tolist()
    assert other.tolist() == [2, 2] and weight.sum().item() == 9
    with pytest.raises(IndexError):
        bad.tolist()


VALUES = {
    "if": lambda x: x if x.sum() > 0 else -x,
    "float": lambda x: x * float(x.sum()),
    "int": lambda x: x * int(x.sum()),
    "item": lambda x: x * x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "str": lambda x: f"{x.sum():.2f}",
    "range": lambda x: range(x.sum().long()),
    "in": lambda x: 1 in x,
}


@pytest.mark.parametrize("name", list(VALUES))
def test_a_value_needed_in_python_names_the_line(name):
    function = VALUES[name]
    line = function.__code__.co_firstlineno
    message = rf"needed in Python at {HERE}:{line} .*torch\.where instead of `if`"
    for attempt in (
        graphtorch.compile(function, fullgraph=True),
        lambda x: graphtorch.trace(function, x),
    ):
        with pytest.raises(RuntimeError, match=message):
            attempt(graphtorch.ones(3))
    x = graphtorch.ones(3)
    for _ in range(2):  # otherwise the call goes on line by line
        assert str(graphtorch.compile(function)(x)) == str(function(x))
    assert graphtorch.ones(3).sum().item() == 3


def test_errors_inside_a_compiled_function():
    for name in ("shapes: add", "types: matmul", "gradients: modified"):
        program, error, message = CASES[name]
        compiled = graphtorch.compile(lambda x, program=program: program(graphtorch))
        with pytest.raises(error, match=message):
            compiled(graphtorch.ones(2))
    freed = graphtorch.compile(lambda x: (x * x).sum())
    y = freed(graphtorch.ones(2, requires_grad=True))
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


# ---------------------------------------------------------------------------------- defects of ours


def program(x: Any) -> Any:
    y = graphtorch.exp(x)
    return (y + 1) @ y


LINE = program.__code__.co_firstlineno + 1


def failing(name: str) -> Any:
    def fail(node: Any) -> None:
        if node.op.name == name:
            raise ZeroDivisionError("division by zero")

    return fail


def refused(kind: type[Exception] = InternalError) -> str:
    with pytest.raises(kind) as caught:
        graphtorch.compile(program)(graphtorch.ones(3, 3))
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def assert_shows_the_graph(message: str) -> None:
    assert "This is a defect of graphtorch" in message
    command = message.split("\n")[-1].strip()
    assert command.startswith("GRAPHTORCH_DEBUG=graph,passes ") and sys.orig_argv[0] in command


def test_a_failing_pass_names_node_and_line(monkeypatch):
    monkeypatch.setattr(fold, "_folded", failing("exp"))
    message = refused()
    assert message.startswith(
        "pass fold of graph main failed with ZeroDivisionError: division by zero\n  at"
    )
    assert "= exp(%x) : f32[3, 3]" in message and f"recorded at {__file__}:{LINE}\n" in message
    assert_shows_the_graph(message)


def test_a_pass_that_fails_as_a_whole_names_the_lines(monkeypatch):
    def fail(graph):
        raise KeyError("gone")

    monkeypatch.setattr(cse, "run", fail)
    message = refused()
    assert message.startswith("pass cse of graph main failed with KeyError: 'gone'")
    assert f"recorded at {__file__}:{LINE} to {__file__}:{LINE + 1}\n" in message
    assert_shows_the_graph(message)


def test_a_pass_that_makes_an_invalid_graph(monkeypatch):
    monkeypatch.setattr(
        cse, "run", lambda graph: graph.with_outputs(graph.outputs, graph.nodes[1:])
    )
    message = refused(VerifyError)
    assert message.startswith("after cse, graph main breaks the rule 'order'")
    assert_shows_the_graph(message)


def test_failures_behind_the_passes(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("no tile")

    with monkeypatch.context() as patch:
        patch.setattr(lower, "lower_contraction", fail)
        message = refused()
        assert message.startswith("lowering of graph main failed with AssertionError: no tile")
        assert f"recorded at {__file__}:{LINE + 1}\n" in message
    with monkeypatch.context() as patch:
        patch.setattr(ModuleEmitter, "text", lambda *arguments: "not LLVM")
        message = refused()
        assert message.startswith(
            "code generation of graph main failed with RuntimeError: LLVM IR parsing"
        )
        assert_shows_the_graph(message)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: graphtorch.einsum(x, x), TypeError, "'equation'"),
        (lambda x: graphtorch.einsum("ij->i", (1,), x), TypeError, "element 0"),
        (lambda x: graphtorch.einsum("ij,jk->ik", x), RuntimeError, "2 operands"),
        (lambda x: graphtorch.nn.utils.rnn.pad_sequence([x, 1]), TypeError, "element 1"),
        (lambda x: x.type(x), TypeError, "type_as"),
    ],
)
def test_arguments_that_are_no_tensors_or_should_not_be(call, kind, words):
    with pytest.raises(kind, match=words):
        call(graphtorch.ones(2, 2))
