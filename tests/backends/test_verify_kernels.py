"""Kernels with one rule broken each: the verifier names the rule, the kernel, the statement and the
fault."""

from __future__ import annotations

import pytest

from graphtorch.backends.cpu import lower as lowering
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels import ir as k
from graphtorch.backends.kernels.ir import Buffer, Const, Expr, Kernel, KType, Name, Store, load
from graphtorch.backends.kernels.program.program import Launch, Program, Slot
from graphtorch.backends.kernels.verify import RULES, KernelError, verify, verify_program
from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f32, f64, i32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import pipeline

F32, F32X8, F64, I32, BOOL = KType(f32), KType(f32, 8), KType(f64), KType(i32), KType(boolean)
ONE, LINE, YES, ZERO = Const(1.0, F32), Const(1.0, F32X8), Const(True, BOOL), Const(0)
X, Y, S = Buffer("x", f32), Buffer("y", f32, "write"), Buffer("s", f32, "readwrite", 64)
D = Buffer("d", f64, "readwrite", 64)
N, VAR, J, T, R = Name("n"), Name("i"), Name("j"), Name("t", F32), Name("acc", F32)


def kernel(*body: k.Stmt) -> Kernel:
    return Kernel("planted", (X, Y), (N,), list(body))


def each(
    *body: k.Stmt, kind: str = "serial", var: Name = VAR, hi: Expr = N, step: int = 1
) -> k.For:
    return k.For(var, ZERO, hi, Const(step), kind, list(body))


def let(e: Expr, to: Name | None = None) -> Kernel:
    return kernel(k.Let(to or Name("t", e.type), e))


def put(e: Expr, at: Expr = ZERO, mask: Expr | None = None) -> Store:
    return Store(Y, at, e, mask)


INNER = Kernel("inner", (Buffer("a", f32), Buffer("b", f32, "write")), (Name("count"),), [])
TASKS = Kernel("tasks", (), (), [each(kind="parallel", hi=Const(4))])
AGAIN = Kernel("again", (), (), [])
AGAIN.body.append(k.Call(AGAIN, ()))


def call(*args: k.Ref | Expr) -> Kernel:
    return kernel(k.Call(INNER, args))


# What is planted: the kernel, the rule it breaks, what the message says, and the statement that it
# shows.
FAULTS: dict[str, tuple[Kernel, str, str, str]] = {
    "used too early": (kernel(put(T), k.Let(T, ONE)), "name", "t is not declared", "y[0] = t"),
    "used outside": (kernel(each(k.Let(T, ONE)), put(T)), "name", "t is not declared", "y[0] = t"),
    "variable outside": (
        kernel(each(), put(ONE, VAR)),
        "name",
        "i is not declared",
        "y[i] = 1.0:f32",
    ),
    "used in itself": (
        let(k.Unary("neg", T, F32), T),
        "name",
        "t is not declared",
        "let t: f32 = neg(t)",
    ),
    "let twice": (
        kernel(k.Let(T, ONE), k.Let(T, ONE)),
        "name",
        "t is declared twice",
        "let t: f32 = 1.0:f32",
    ),
    "name of a parameter": (let(ONE, Name("x", F32)), "name", "x is declared twice", "let x: f32"),
    "parameters alike": (Kernel("planted", (X, X), (), []), "name", "two parameters share", ""),
    "loops alike": (kernel(each(each())), "name", "i is declared twice", "for i in 0..n {"),
    "scratch twice": (
        kernel(k.Scratch(S, 8), k.Scratch(S, 8)),
        "name",
        "s is declared twice",
        "scratch s",
    ),
    "scratch of nothing": (
        kernel(k.Scratch(S, 0)),
        "buffer",
        "s has 0 elements",
        "scratch s: f32[0]",
    ),
    "scratch outside": (
        kernel(k.If(YES, [k.Scratch(S, 8)]), Store(S, N, ONE)),
        "buffer",
        "s is not declared",
        "s[n] = 1.0:f32",
    ),
    "foreign buffer": (
        let(load(Buffer("z", f32), N)),
        "buffer",
        "z is not declared",
        "let t: f32 = z[n]",
    ),
    "write to what is read": (
        kernel(Store(X, N, ONE)),
        "access",
        "x, declared read, is written",
        "x[n] =",
    ),
    "read of what is written": (
        let(load(Y, N)),
        "access",
        "y, declared write, is read",
        "let t: f32 = y[n]",
    ),
    "stream of what is no scratch": (
        kernel(k.Stream(Y, ZERO, N, X)),
        "buffer",
        "y gets x",
        "stream y[0:n] = x",
    ),
    "stream to scratch": (
        kernel(k.Scratch(S, 8), k.Stream(S, ZERO, N, S)),
        "buffer",
        "s gets s",
        "stream s[0:n] = s",
    ),
    "stream to what is read": (
        kernel(k.Scratch(S, 8), k.Stream(X, ZERO, N, S)),
        "access",
        "x, declared read, is written",
        "stream x[0:n] = s",
    ),
    "stream of another dtype": (
        kernel(k.Scratch(D, 8), k.Stream(Y, ZERO, N, D)),
        "type",
        "f64 is copied to y of f32",
        "stream y[0:n] = d",
    ),
    "stream of too much": (
        kernel(k.Scratch(S, 8), k.Stream(Y, ZERO, Const(9), S)),
        "bounds",
        "elements 0 to 8 of s are touched, which has 8",
        "stream y[0:9] = s",
    ),
    "store of another dtype": (
        kernel(put(Const(1.0, F64))),
        "type",
        "f64 is stored into y of f32",
        "y[0] =",
    ),
    "load of another dtype": (
        let(k.Load(X, N, F64)),
        "type",
        "x of f32 is read as f64",
        "let t: f64 = x[n]",
    ),
    "let of another dtype": (
        let(Const(1.0, F64), T),
        "type",
        "t is f32, gets f64",
        "let t: f32 = 1.0:f64",
    ),
    "let of other lanes": (let(LINE, T), "type", "t is f32, gets f32x8", "let t: f32"),
    "register of another dtype": (
        kernel(k.Var(R, ONE), k.Assign(R, Const(1, I32))),
        "type",
        "acc is f32, gets i32",
        "acc = 1:i32",
    ),
    "operands differ": (
        let(k.Binary("add", ONE, Const(1.0, F64), F32)),
        "type",
        "add of f32 and f64",
        "let t",
    ),
    "result differs": (let(k.Binary("lt", ONE, ONE, F32)), "type", "lt is bool, gets f32", "let t"),
    "unary": (let(k.Unary("isnan", ONE, F32)), "type", "isnan is bool, gets f32", "let t"),
    "fma of integers": (
        let(k.Fma(N, N, N, k.INDEX)),
        "type",
        "fma of i64",
        "let t: i64 = fma(n, n, n)",
    ),
    "fma of three dtypes": (
        let(k.Fma(ONE, ONE, Const(1.0, F64), F32)),
        "type",
        "fma is f32, gets f64",
        "let t",
    ),
    "select by a number": (
        let(k.Select(N, ONE, ONE, F32)),
        "type",
        "condition of select is bool",
        "let t",
    ),
    "select of two lanes": (
        let(k.Select(YES, ONE, LINE, F32)),
        "type",
        "select is f32, gets f32x8",
        "let t",
    ),
    "cast of lanes": (let(k.Cast(LINE, F64)), "type", "a cast from f32x8 to f64", "let t"),
    "splat of a vector": (let(k.Splat(LINE, F32X8)), "type", "splat of f32x8 to f32x8", "let t"),
    "reduced lanes": (
        let(k.Reduce("add", LINE, F32X8)),
        "type",
        "reduce_add is f32, gets f32x8",
        "let t",
    ),
    "shuffled lanes": (
        let(k.Shuffle(LINE, LINE, (0, 16), KType(f32, 2))),
        "type",
        "lanes (0, 16) of 16",
        "let",
    ),
    "lanes of floats": (let(k.Lanes(F32X8)), "type", "lanes of f32x8", "let t"),
    "mask of other lanes": (
        kernel(put(LINE, N, YES)),
        "type",
        "mask of y is boolx8, gets bool",
        "y[n] =",
    ),
    "condition": (kernel(k.If(N)), "type", "the condition n is i64", "if n {"),
    "while": (kernel(k.While(ONE)), "type", "the condition 1.0:f32 is f32", "while 1.0:f32 {"),
    "constant": (let(Const(1.5)), "type", "1.5 is no i64", "let t: i64 = 1.5"),
    "index of floats": (
        kernel(put(ONE, ONE)),
        "index",
        "1 lanes of y at 1.0:f32: f32",
        "y[1.0:f32] =",
    ),
    "lanes of an index": (
        let(k.Load(X, k.Lanes(KType(i32, 4)), F32X8)),
        "index",
        "8 lanes of x",
        "let t",
    ),
    "bound": (kernel(each(hi=Const(4, I32))), "index", "4:i32 is i32", "for i in 0..4:i32 {"),
    "site": (kernel(k.Fail(ONE)), "index", "1.0:f32 is f32", "fail 1.0:f32"),
    "before the start": (
        kernel(put(ONE, Const(-1))),
        "bounds",
        "elements -1 to -1 of y",
        "y[-1] =",
    ),
    "beyond the end": (
        kernel(k.Scratch(S, 8), each(Store(S, VAR * 2 + 1, ONE), hi=Const(5))),
        "bounds",
        "elements 1 to 9 of s are touched, which has 8",
        "s[((i * 2) + 1)] =",
    ),
    "last vector": (
        kernel(k.Scratch(S, 20), each(Store(S, VAR, LINE), hi=Const(20), step=8)),
        "bounds",
        "elements 0 to 23 of s are touched, which has 20",
        "s[i] =",
    ),
    "unary op": (
        let(k.Unary("halve", ONE, F32)),
        "op",
        "no unary operation 'halve'",
        "let t: f32 = halve",
    ),
    "binary op": (
        let(k.Binary("plus", ONE, ONE, F32)),
        "op",
        "no binary operation 'plus'",
        "let t",
    ),
    "reduction": (let(k.Reduce("sub", LINE, F32)), "op", "no reduction 'sub'", "let t"),
    "expression": (
        let(Expr.__new__(type("Odd", (Expr,), {"type": F32}))),
        "op",
        "no expression Odd",
        "no text",
    ),
    "statement": (kernel(type("Jump", (), {})()), "op", "no statement Jump", "no text"),  # type: ignore[arg-type]
    "kind of loop": (
        kernel(each(kind="blocks")),
        "loop",
        "i is 'blocks'",
        "for i in 0..n blocks {",
    ),
    "parallel inside": (
        kernel(each(each(kind="parallel", var=J))),
        "loop",
        "over j stands inside",
        "for j in",
    ),
    "parallel in parallel": (
        kernel(each(each(kind="parallel", var=J), kind="parallel")),
        "loop",
        "the parallel loop over j stands inside a block",
        "for j in 0..n parallel {",
    ),
    "standing still": (kernel(each(step=0)), "loop", "i advances by 0", "for i in 0..n step 0 {"),
    "vectors in vectors": (
        kernel(each(each(each(kind="vector", var=J), var=Name("k")), kind="vector")),
        "nested",
        "the loop over j stands in another one",
        "for j in 0..n vector {",
    ),
    "assigned let": (
        kernel(k.Let(T, ONE), k.Assign(T, ONE)),
        "register",
        "t is no register",
        "t = 1.0:f32",
    ),
    "shared register": (
        kernel(k.Var(R, ONE), each(k.Assign(R, ONE), kind="parallel")),
        "register",
        "acc is no register of this task",
        "acc = 1.0:f32",
    ),
    "too few arguments": (
        call(k.Ref(X, ZERO)),
        "call",
        "inner takes 3 arguments, gets 1",
        "call inner(x + 0)",
    ),
    "number for a buffer": (
        call(N, k.Ref(Y, ZERO), N),
        "call",
        "inner takes a buffer as a, gets n",
        "call",
    ),
    "buffer for a number": (
        call(k.Ref(X, ZERO), k.Ref(Y, ZERO), k.Ref(X, ZERO)),
        "call",
        "inner takes a number as count, gets x",
        "call inner",
    ),
    "number of a dtype": (
        call(k.Ref(X, ZERO), k.Ref(Y, ZERO), ONE),
        "call",
        "count is i64, gets f32",
        "call inner",
    ),
    "called to write": (
        call(k.Ref(X, ZERO), k.Ref(X, ZERO), N),
        "access",
        "x, declared read, is",
        "call",
    ),
    "calls tasks": (
        kernel(k.Call(TASKS, ())),
        "call",
        "tasks has a parallel or block loop",
        "call tasks()",
    ),
    "calls itself": (AGAIN, "call", "again calls itself", "call again()"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refused(fault: str) -> None:
    planted, rule, detail, at = FAULTS[fault]
    with pytest.raises(KernelError) as error:
        verify(planted)
    assert error.value.rule == rule
    first, *rest = str(error.value).split("\n")
    assert first.startswith(f"kernel {planted.name} breaks the rule '{rule}'") and detail in first
    assert not at or rest[0].startswith(f"  in: {at}") or at in rest[0]


def slots(kinds: str = "input output", size: int = 8) -> tuple[Slot, ...]:
    return tuple(Slot(kind, f32, (size,), size) for kind in kinds.split())


def launched(launch: Launch) -> Program:
    outputs = tuple(s for s in launch.slots if s.kind == "output")
    return Program("p", (), tuple(s for s in launch.slots if s.kind == "input"), outputs, [launch])


COPY = kernel(each(put(load(X, VAR), VAR), hi=Const(8)))
BOTH = Kernel("both", (X, Buffer("z", f32, "readwrite")), (), [])
CONSTANT = Slot("constant", f32, (8,), 8, literal=Literal(f32, (8,), bytes(32)))
LAUNCHES: dict[str, tuple[Launch, str, str]] = {
    "no sizes": (Launch(COPY, slots()), "launch", "and 0 sizes"),
    "other dtype": (
        Launch(COPY, (Slot("input", f64, (8,), 8), *slots("output")), (8,)),
        "launch",
        "['f64', ",
    ),
    "writes an input": (Launch(COPY, slots("input input"), (8,)), "writes", "y is the input 0"),
    "writes a constant": (
        Launch(COPY, (*slots("input"), CONSTANT), (8,)),
        "writes",
        "y is the constant",
    ),
    "given twice": (Launch(BOTH, slots("temporary") * 2), "writes", "z is given a second time"),
    "too short": (
        Launch(COPY, slots(size=7), (8,), "copying"),
        "bounds",
        "element 7 of x is touched; in the launch 'copying' it has 7",
    ),
}


@pytest.mark.parametrize("fault", LAUNCHES)
def test_a_planted_fault_of_a_launch_is_refused(fault: str) -> None:
    launch, rule, detail = LAUNCHES[fault]
    with pytest.raises(KernelError) as error:
        verify_program(launched(launch))
    assert error.value.rule == rule and detail in str(error.value)


def test_every_rule_is_tested() -> None:
    # by test_gpu_blocks.py and test_gpu_matrices.py
    tested = {"threads", "barrier", "warp", "matrix"}
    tested |= {rule for _, rule, *_ in FAULTS.values()} | {rule for _, rule, _ in LAUNCHES.values()}
    assert tested == set(RULES)


def test_what_need_not_run_has_no_bounds() -> None:
    """An index under a condition, a mask or a loop of unknown length may lie anywhere."""
    far, x8 = Const(99), KType(boolean, 8)
    body = [
        k.If(YES, [Store(S, far, ONE)]),
        each(Store(S, far, ONE)),
        Store(S, far, LINE, Const(False, x8)),
        each(Store(S, far, ONE), var=J, hi=ZERO),
    ]
    verify(kernel(k.Scratch(S, 8), *body))


def test_a_donated_input_is_written() -> None:
    source, out = slots()
    out.alias = source
    launch = Launch(Kernel("k", (Buffer("z", f32, "readwrite"),), (), []), (source,))
    verify_program(Program("p", (), (source,), (out,), [launch]))


def test_lowerings_are_verified_under_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering that makes a wrong kernel fails where every pass is verified."""
    x = Value(Type(f32, (64,)), name="x")
    graph = pipeline.run(Graph("g", (x,), (ops.exp(x),)), supports)

    def spoil(program: Program) -> None:
        program.kernels()[0].body.append(Store(X, ZERO, ONE))

    monkeypatch.setattr(lowering, "share_kernels", spoil)
    with pytest.raises(KernelError, match=r"'buffer'.*x is not declared here\n  in: x"):
        lowering.lower(graph)
