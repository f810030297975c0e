"""Kernels through LLVM: each statement and expression, and the corners of integer and float
semantics."""

from __future__ import annotations

import numpy as np
import pytest

from graphtorch.backends.kernels import ir as k
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import (
    INDEX,
    Buffer,
    Const,
    Kernel,
    KType,
    Name,
    binary,
    load,
    unary,
)
from graphtorch.backends.llvm.emit import ModuleEmitter
from graphtorch.backends.llvm.jit import run_kernel
from graphtorch.backends.llvm.native import compile_assembly, compile_object
from graphtorch.backends.llvm.processor import host, named
from graphtorch.ir.dtype import (
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    narrow_through,
    u8,
)

INTEGERS = (u8, i8, i16, i32, i64)
N = Name("n")


def elementwise(f, *arrays: np.ndarray, out: DType, lanes: int = 1) -> np.ndarray:
    """f applied to the elements of arrays of one length, one at a time or in vectors."""
    ins = [Buffer(f"x{i}", DType.of(a.dtype)) for i, a in enumerate(arrays)]
    y, b = Buffer("y", out, "write"), Builder()
    with b.loop(N, "vector" if lanes == 1 else "serial", step=lanes) as i:
        b.store(y, i, f(*(load(x, i, lanes) for x in ins)))
    result = np.empty(len(arrays[0]), out.numpy)
    run_kernel(Kernel("k", (*ins, y), (N,), b.body), [*arrays, result], [len(result)])
    return result


def corners(dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    return np.array(
        [
            info.min,
            info.min + 1,
            -1 if dtype.signed else info.max,
            0,
            1,
            2,
            7,
            info.max - 1,
            info.max,
        ],
        object,
    )


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(corners(dtype), corners(dtype))
    pad = -x.size % 4
    return tuple(np.concatenate([v.ravel(), v.ravel()[:pad]]).astype(dtype.numpy) for v in (x, y))


def wrapped(values: list[int], dtype: DType) -> np.ndarray:
    return (
        np.array([v % 2**dtype.bits for v in values], np.uint64)
        .astype(f"u{dtype.itemsize}")
        .view(dtype.numpy)
    )


def truncating(a: int, b: int) -> tuple[int, int]:
    q = 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return q, 0 if b == 0 else a - q * b


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division_never_traps(dtype, lanes):
    x, y = pairs(dtype)
    expected = [truncating(int(a), int(b)) for a, b in zip(x, y, strict=True)]
    for op, part in (("div", 0), ("rem", 1)):
        got = elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=dtype, lanes=lanes)
        assert (got == wrapped([e[part] for e in expected], dtype)).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_arithmetic_wraps(dtype):
    x, y = pairs(dtype)
    for op, f in (("add", int.__add__), ("sub", int.__sub__), ("mul", int.__mul__)):
        got = elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=dtype)
        assert (got == wrapped([f(int(a), int(b)) for a, b in zip(x, y, strict=True)], dtype)).all()
    for op, f in (("min", np.minimum), ("max", np.maximum)):
        assert (elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=dtype) == f(x, y)).all()
    for op, f in (("neg", np.negative), ("abs", np.abs), ("not", np.invert)):
        assert (elementwise(lambda a, op=op: unary(op, a), x, out=dtype) == f(x)).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_out_of_range(dtype):
    x, y = pairs(dtype)
    bits = dtype.bits

    def shifted(a: int, s: int, right: bool) -> int:
        inside = 0 <= s < bits
        if right:
            return a >> (s if inside else bits - 1) if dtype.signed else a >> s if inside else 0
        return a << s if inside else 0

    for op in ("shl", "shr"):
        got = elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=dtype)
        assert (
            got
            == wrapped(
                [shifted(int(a), int(b), op == "shr") for a, b in zip(x, y, strict=True)], dtype
            )
        ).all()


@pytest.mark.parametrize("dtype", [i32, i64])
def test_unsigned_readings(dtype):
    x, y = pairs(dtype)
    unsigned = [(int(a) % 2**dtype.bits, int(b) % 2**dtype.bits) for a, b in zip(x, y, strict=True)]
    for op, f in (
        ("div_u", lambda a, b: a // b if b else 0),
        ("rem_u", lambda a, b: a % b if b else 0),
        ("mulhi_u", lambda a, b: a * b >> dtype.bits),
        ("shr_u", lambda a, s: a >> s if s < dtype.bits else 0),
    ):
        got = elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=dtype)
        assert (got == wrapped([f(a, b) for a, b in unsigned], dtype)).all(), op
    less = elementwise(lambda a, b: binary("lt_u", a, b), x, y, out=boolean)
    assert (less == [a < b for a, b in unsigned]).all()


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", [f16, bf16, f32, f64])
def test_float_to_integer_wraps_or_saturates(source, target, lanes):
    values = [
        0.0,
        -0.0,
        1.9,
        -1.9,
        127.5,
        255.5,
        -300,
        40000,
        -40000,
        3e9,
        -3e9,
        1e19,
        -1e19,
        np.inf,
        -np.inf,
        np.nan,
    ]
    with np.errstate(over="ignore"):
        x = np.array(values, np.float64).astype(source.numpy)
    info = np.iinfo(target.numpy)
    exact = [float(v) for v in x]
    if bits := narrow_through(source, target):
        held = [v if abs(v) < 2.0 ** (bits - 1) else 0 for v in exact]
        expected = [(int(v) - int(info.min)) % 2**target.bits + int(info.min) for v in held]
    else:
        expected = [
            0 if v != v else info.min if v <= info.min else info.max if v >= info.max else int(v)
            for v in exact
        ]
    got = elementwise(lambda a: k.cast(a, target), x, out=target, lanes=lanes)
    assert (got == np.array(expected, object).astype(target.numpy)).all()


def test_casts_between_floats_round_to_nearest_even():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.standard_normal(4000) * 10.0 ** rng.uniform(-9, 6, 4000),
            np.array(
                [
                    0.0,
                    -0.0,
                    np.inf,
                    -np.inf,
                    np.nan,
                    65519.99,
                    65520.0,
                    1 + 2.0**-11,
                    1 + 2.0**-11 + 2.0**-40,
                    6e-8,
                    2.9e-8,
                    1e-40,
                    1e-45,
                    3.3953e38,
                    3.4e38,
                ]
            ),
        ]
    )
    for target in (f16, bf16, f32):
        with np.errstate(over="ignore"):
            want = (x.astype(np.float32) if target is bf16 else x).astype(target.numpy)
            narrow = x.astype(np.float32)
        for source, data in ((f64, x), (f32, narrow)):
            with np.errstate(over="ignore"):
                want = (
                    data.astype(np.float32).astype(target.numpy)
                    if target is bf16
                    else data.astype(target.numpy)
                )
            got = elementwise(lambda a, t=target: k.cast(a, t), data, out=target)
            same = got.view(f"u{target.itemsize}") == want.view(f"u{target.itemsize}")
            assert (same | (np.isnan(got.astype(float)) & np.isnan(want.astype(float)))).all(), (
                source,
                target,
            )


def test_every_half_value_survives_the_way_through_f32():
    for dtype in (f16, bf16):
        x = np.arange(2**16, dtype=np.uint16).view(dtype.numpy)
        wide = elementwise(lambda a: k.cast(a, f32), x, out=f32)
        assert np.array_equal(wide, x.astype(np.float32), equal_nan=True)
        back = elementwise(lambda a, t=dtype: k.cast(a, t), wide, out=dtype)
        number = ~np.isnan(wide)
        assert (back.view(np.uint16)[number] == x.view(np.uint16)[number]).all()
        assert np.isnan(back.astype(np.float32)[~number]).all()


def test_bools():
    x = np.array([True, True, False, False])
    y = np.array([True, False, True, False])
    for op, f in (
        ("and", np.logical_and),
        ("or", np.logical_or),
        ("xor", np.logical_xor),
        ("ne", np.not_equal),
        ("max", np.maximum),
        ("min", np.minimum),
        ("lt", np.less),
    ):
        assert (
            elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=boolean) == f(x, y)
        ).all()
    assert (elementwise(lambda a: unary("not", a), x, out=boolean) == ~x).all()
    numbers = np.array([0.0, -0.0, np.nan, 1e-45], np.float32)
    assert list(elementwise(lambda a: k.cast(a, boolean), numbers, out=boolean)) == [
        False,
        False,
        True,
        True,
    ]
    assert list(elementwise(lambda a: k.cast(a, f32), x, out=f32)) == [1, 1, 0, 0]


@pytest.mark.parametrize("lanes", [1, 4])
def test_nan_in_minima_and_comparisons(lanes):
    x, y = (a.ravel().astype(np.float32) for a in np.meshgrid(*[[1, np.nan, -np.inf, 2]] * 2))
    with np.errstate(invalid="ignore"):
        table = {"max": np.maximum, "min": np.minimum, "maxnum": np.fmax, "minnum": np.fmin}
        for op, f in table.items():
            got = elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=f32, lanes=lanes)
            assert np.array_equal(got, f(x, y), equal_nan=True), op
        for op, f in (
            ("lt", np.less),
            ("ge", np.greater_equal),
            ("eq", np.equal),
            ("ne", np.not_equal),
        ):
            assert (
                elementwise(lambda a, b, op=op: binary(op, a, b), x, y, out=boolean, lanes=lanes)
                == f(x, y)
            ).all()


def test_rounding_and_roots():
    x = np.array(
        [0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, -0.0, np.inf, 1e30, 3.7, -3.7, 9.0], np.float32
    )
    with np.errstate(invalid="ignore"):
        for op, f in (
            ("round", np.rint),
            ("floor", np.floor),
            ("ceil", np.ceil),
            ("trunc", np.trunc),
            ("sqrt", np.sqrt),
        ):
            got = elementwise(lambda a, op=op: unary(op, a), x, out=f32)
            assert np.array_equal(got, f(x), equal_nan=True)
            assert (np.signbit(got) == np.signbit(f(x)))[~np.isnan(got)].all()
    assert (
        elementwise(lambda a: binary("fmod", a, 2.5), x[:6], out=f32)
        == np.fmod(x[:6], np.float32(2.5))
    ).all()


# ---- statements


def test_reductions_are_vectorised_and_keep_nan():
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    total, top = b.var(Const(0.0, KType(f32))), b.var(Const(-np.inf, KType(f32)))
    with b.loop(N, "vector") as i:
        value = b.let(load(x, i))
        b.assign(total, total + value * value)
        b.assign(top, binary("max", top, value))
    b.store(y, 0, total)
    b.store(y, 1, top)
    kernel = Kernel("k", (x, y), (N,), b.body)
    data, out = (
        np.random.default_rng(0).standard_normal(1003).astype(np.float32),
        np.empty(2, np.float32),
    )
    run_kernel(kernel, [data, out], [1003])
    np.testing.assert_allclose(
        out, [np.square(data, dtype=np.float64).sum(), data.max()], rtol=1e-6
    )
    data[500] = np.nan
    run_kernel(kernel, [data, out], [1003])
    assert np.isnan(out).all()
    module = ModuleEmitter("m", host())
    module.functions.append(
        f"define void @f(ptr %x, ptr %y, i64 %n, ptr %s) {{\n call void @{module.kernel(kernel)}"
        "(ptr %x, ptr %y, i64 %n, ptr %s)\n ret void\n}"
    )
    asm = compile_assembly(module.text(), host())
    assert {512: "zmm", 256: "ymm", 128: "xmm"}.get(host().vector_bits, "v") in asm


def test_masks_read_and_write_nothing_outside():
    x, y, b = Buffer("x", f32), Buffer("y", f32, "readwrite"), Builder()
    lanes = k.Lanes(KType(i32, 8))
    b.store(y, 0, load(x, Const(4), 8, mask=binary("lt", lanes, 3)))
    b.store(y, 8, load(x, k.Lanes(KType(i64, 8)) * 2, mask=binary("ge", lanes, 5)))
    b.store(y, 16, load(x, Const(0), 8), mask=binary("eq", lanes, 2))
    b.store(y, k.Lanes(KType(i64, 8)) * 2 + 24, load(x, Const(0), 8), mask=binary("lt", lanes, 4))
    with b.loop(8, "vector") as i:
        b.store(y, i + 40, load(x, i - 4, mask=binary("ge", i, 4)), mask=binary("ne", i, 6))
    data, out = np.arange(1, 17, dtype=np.float32), np.full(48, -1, np.float32)
    run_kernel(Kernel("k", (x, y), (), b.body), [data, out])
    assert list(out[:8]) == [5, 6, 7, 0, 0, 0, 0, 0]
    assert list(out[8:16]) == [0, 0, 0, 0, 0, 11, 13, 15]
    assert list(out[16:24]) == [-1, -1, 3, -1, -1, -1, -1, -1]
    assert list(out[24:32]) == [1, -1, 2, -1, 3, -1, 4, -1]
    assert list(out[40:]) == [0, 0, 0, 0, 1, 2, -1, 4]


def test_shuffles_splats_and_lane_reductions():
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    v = b.let(load(x, Const(0), 4))
    b.store(y, 0, k.Shuffle(v, v, (3, 2, 1, 4), KType(f32, 4)))
    b.store(y, 4, k.splat(load(x, Const(2)), 4) * v)
    for i, op in enumerate(("add", "mul", "min", "max")):
        b.store(y, 8 + i, k.reduce(op, v))
    b.store(y, 12, k.Shuffle(v, v, (6,), KType(f32)))
    b.store(y, 13, k.select(k.reduce("and", binary("gt", v, 0.0)), load(x, Const(0)), 7.0))
    b.store(y, 14, k.fma(load(x, Const(1)), load(x, Const(1)), load(x, Const(0))))
    data, out = np.array([1, 2, 3, 4], np.float32), np.zeros(15, np.float32)
    run_kernel(Kernel("k", (x, y), (), b.body), [data, out])
    assert list(out) == [4, 3, 2, 1, 3, 6, 9, 12, 10, 24, 1, 4, 3, 1, 5]


def test_control_flow_scratch_and_calls():
    x, y, b = Buffer("x", f32), Buffer("y", f32, "readwrite"), Builder()
    with b.loop(3, "unroll") as i:
        b.store(y, i, load(x, i) + 1.0)
    callee = Kernel("plus", (x, y), (), b.body)
    b = Builder()
    s = b.scratch(f32, 3)
    b.call(callee, k.Ref(x, k.as_expr(1)), k.Ref(s, k.as_expr(0)))
    with b.loop(9, lo=0, step=4) as i:
        with b.when(binary("lt", i, 4)):
            b.store(y, i, load(s, Const(2)))
        with b.otherwise():
            b.store(y, i, load(s, Const(0)))
    with b.loop(N, lo=5) as i:
        b.store(y, i, Const(9.0, KType(f32)))
    kernel = Kernel("k", (x, y), (N,), b.body)
    data, out = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    run_kernel(kernel, [data, out], [7])
    assert list(out) == [4, 0, 0, 0, 2, 9, 9, 0, 2, 0]
    run_kernel(kernel, [data, out], [-3])


def sums(lo: int, hi: k.Expr | int, step: int, kind: str = "rolled") -> Kernel:
    """Sums of two vectors at lo, lo + step, ... before hi, and the last such position."""
    x, y, last = Buffer("x", f32), Buffer("y", f32, "readwrite"), Buffer("last", i64, "readwrite")
    b = Builder()
    totals = [b.var(Const(0.0, KType(f32, 4)), "c") for _ in range(2)]
    with b.loop(hi, kind, "k", lo=lo, step=step) as at:
        row = b.let(load(x, at * 4, 4), "v")
        for scale, total in enumerate(totals):
            b.assign(total, k.fma(row, Const(scale + 1.0, KType(f32, 4)), total))
        b.store(last, 0, at)
    for i, total in enumerate(totals):
        b.store(y, 4 * i, total)
    return Kernel("sums", (x, y, last), (N,), b.body)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("lo", "step"), [(0, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize("hi", [*range(11), 40])
def test_sums_of_several_iterations_at_a_time(known: bool, lo: int, step: int, hi: int) -> None:
    """Each position counts once and in order, however many there are."""
    kernel = sums(lo, hi if known else N, step)
    x = np.random.default_rng(0).integers(-9, 9, (41, 4)).astype(np.float32)
    y, last = np.full(8, 7, np.float32), np.full(1, -1)
    run_kernel(kernel, [x.ravel(), y, last], [hi])
    total = x[lo:hi:step].sum(0)
    np.testing.assert_array_equal(y, [*total, *(2 * total)])
    assert last[0] == max([-1, *range(lo, hi, step)])


def test_sums_count_and_jump_once_for_several_iterations():
    module = ModuleEmitter("m", host())
    module.launcher("f", sums(0, N, 1), (0, 1, 2), "")
    text = module.text()
    assert text.count("store i64") == 4 + 1  # four at a time, and what is left
    assert text.count("!llvm.loop ") == 2 and ".p2align\t6" in compile_assembly(text, host())


def test_sums_of_a_single_iteration_at_a_time():
    module = ModuleEmitter("m", host())
    module.launcher("f", sums(0, N, 1, "single"), (0, 1, 2), "")
    text = module.text()
    assert text.count("store i64") == text.count("!llvm.loop ") == 1
    y, last = np.zeros(8, np.float32), np.zeros(1, np.int64)
    run_kernel(sums(0, 5, 1, "single"), [np.ones(20, np.float32), y, last], [0])
    assert list(y) == [5] * 4 + [10] * 4 and last[0] == 4


@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_parallel_loops_take_along_what_they_use(n):
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    scale = b.let(load(x, Const(0)) * 2.0)
    wide = b.let(k.splat(scale, 4))
    offset = b.var(Const(1.0, KType(f32)))
    b.assign(offset, offset + 1.0)
    with b.loop(N, "parallel", lo=1, step=2) as i:
        b.store(y, i, load(x, i) * scale + offset + k.reduce("max", wide))
    data, out = np.arange(1, n + 2, dtype=np.float32), np.zeros(n + 1, np.float32)
    run_kernel(Kernel("k", (x, y), (N,), b.body), [data, out], [n])
    want = np.where(np.arange(n + 1) % 2 == 1, data * 2 + 4, 0)
    want[n:] = 0
    assert (out == want).all()


def test_fail_reports_its_site_and_goes_on():
    x, y, b = Buffer("x", i64), Buffer("y", i64, "write"), Builder()
    with b.loop(N, "parallel") as i:
        bad = b.let(binary("or", binary("lt", load(x, i), 0), binary("ge", load(x, i), 10)))
        with b.when(bad):
            b.fail(4)
        b.store(y, i, k.select(bad, 0, load(x, i)))
    kernel = Kernel("k", (x, y), (N,), b.body)
    out = np.empty(3, np.int64)
    assert run_kernel(kernel, [np.array([1, 9, 0]), out], [3]) == 0
    assert run_kernel(kernel, [np.array([1, 10, 2]), out], [3]) == 5
    assert list(out) == [1, 0, 2]


def test_in_place_updates_share_one_pointer():
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    with b.loop(N, "vector") as i:
        b.store(y, i, load(x, i) + 1.0)
    module = ModuleEmitter("m", host())
    module.kernel(Kernel("k", (x, y), (N,), b.body), (0, 0))
    body = module.functions[-1]
    assert "getelementptr inbounds float, ptr %b1" not in body and "readonly" not in body


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda b, x, y: b.store(y, 0, load(Buffer("z", f32), Const(0))),
            "buffer 'z' is not a parameter",
        ),
        (lambda b, x, y: b.store(y, 0, Name("q", KType(f32))), "'q' is used outside"),
        (
            lambda b, x, y: b.assign(Name("q", KType(f32)), load(x, Const(0))),
            "'q' is assigned but not declared",
        ),
        (lambda b, x, y: b.store(y, 0, Const(1, INDEX)), "i64 stored to y of f32"),
    ],
)
def test_malformed_kernels_are_refused(make, message):
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    make(b, x, y)
    with pytest.raises((KeyError, TypeError), match=message):
        ModuleEmitter("m", host()).kernel(Kernel("k", (x, y), (), b.body))


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"])
def test_objects_for_named_machines(triple):
    x, y, b = Buffer("x", f32), Buffer("y", f32, "write"), Builder()
    with b.loop(N, "parallel") as i:
        b.store(y, i, unary("exp", load(x, i)))
    module = ModuleEmitter("m", named(triple))
    module.kernel(Kernel("k", (x, y), (N,), b.body))
    assert compile_object(module.text(), named(triple), pic=True)[:4] == b"\x7fELF"
