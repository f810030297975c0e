"""LLVM text of what a CUDA library calls: NVIDIA's driver, opened when the first context is
created.

No CUDA runtime is needed where the library runs, and no CUDA header where it is made: these are the
calls of https://docs.nvidia.com/cuda/cuda-driver-api/ by their names in ``libcuda.so.1``. A call
that fails leaves a message with its name, its number and the driver's words, and the library goes
on to its end.

Work is put into the legacy default stream, which waits for what other blocking streams were given
before.
"""

from __future__ import annotations

from ..kernels.program.abi import CODE
from ..llvm.tensor_check import DEVICE, constant_string
from .walk import MOST_BLOCKS, THREADS, UNKNOWN_BLOCKS

SONAME = "libcuda.so.1"
SYMBOLS = (
    "cuInit",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxGetDevice",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemsetD8_v2",
    "cuLaunchKernel",
    "cuStreamSynchronize",
)
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # attributes of a device
MAX_DYNAMIC_SHARED = 8  # attribute of a function
# kinds of images: EXACT is a cubin for one capability and no later one
CUBIN, PTX, EXACT = range(3)


def called(result: str, symbol: str, arguments: str) -> str:
    """A call of the driver: ``%result`` is its code."""
    row = SYMBOLS.index(symbol)
    place = f"getelementptr ([{len(SYMBOLS)} x ptr], ptr @gt.driver, i64 0, i64 {row})"
    return (
        f"  %{result}.f = load ptr, ptr {place}\n  %{result} = call i32 %{result}.f({arguments})\n"
    )


def checked(result: str, symbol: str, arguments: str, failure: str = "") -> str:
    """As `called`; a code that is not 0 is reported to ``%error`` in the name of ``%who``, and
    returned.

    Args: failure: what is returned instead of the code.
    """
    label = result.replace(".", "_")
    return (
        called(result, symbol, arguments)
        + f"  call void @gt.cuda.report(ptr %error, ptr %who, ptr @gt.driver.{symbol}, i32 "
        f"%{result})\n  %{result}.ok = icmp eq i32 %{result}, 0\n"
        f"  br i1 %{result}.ok, label %{label}.then, label %{label}.bad\n"
        f"{label}.bad:\n  ret i32 {failure or f'%{result}'}\n{label}.then:\n"
    )


def _attribute(result: str, attribute: int) -> str:
    """Puts an attribute of ``%device`` into ``%number``."""
    return checked(result, "cuDeviceGetAttribute", f"ptr %number, i32 {attribute}, i32 %device")


def context_type(pieces: int, functions: int) -> str:
    """What a context has: first what all libraries' have, then the GPU's."""
    return (
        f"%GtContext = type {{ ptr, ptr, i64, ptr, i64, [256 x i8], ptr, i32, i32, ptr, ptr, ptr, "
        f"[{pieces} x ptr], [{functions} x ptr] }}\n"
    )


# Fields of a context beyond those of CPU libraries (llvm/library.py)
ERROR, CONTEXT, ORDINAL, RETAINED, WEIGHTS, CONSTANTS, STATUS, MODULES, FUNCTIONS = range(5, 14)


def text(pieces: int, functions: int, images: int, errors: bool) -> str:
    """The functions that do not depend on the model.

    Args:
        pieces, functions: how many modules a context loads, and kernels are in them.
        images: how many machines there is code for.
        errors: whether kernels may report data-dependent errors.
    """
    names = "".join(constant_string(f"gt.driver.{s}", s) for s in SYMBOLS)
    table = ", ".join(f"ptr @gt.driver.{s}" for s in SYMBOLS)
    messages = "".join(constant_string(f"gt.msg.{key}", m) for key, m in _MESSAGES.items())
    head = (
        f"{names}@gt.driver.names = private constant [{len(SYMBOLS)} x ptr] [{table}]\n"
        f"@gt.driver = internal global [{len(SYMBOLS)} x ptr] zeroinitializer\n"
        f"{messages}{constant_string('gt.driver.soname', SONAME)}"
    )
    return "".join(
        (
            _DECLARATIONS,
            head,
            _open(),
            _REPORT,
            _begin(),
            _enter(),
            _load(pieces, images),
            _unload(pieces),
            _functions(functions),
            _memory(),
            _look(),
            _stage(),
            _launch(),
            _PARTS,
            _run(errors),
            _SAME_GPU,
        )
    )


_DECLARATIONS = """
declare ptr @dlopen(ptr, i32)
declare ptr @dlsym(ptr, ptr)
declare ptr @dlerror()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
%GtPlace = type { ptr, i32, i32 }
%GtState = type { i32, ptr, ptr }
"""
# GtPlace: the driver's context, the number of its GPU, whether it is the primary one and was
# retained GtState: the first code that was not 0, the name of that kernel, the context

_MESSAGES = {
    "missing": "%s: this library runs on NVIDIA GPUs and needs their driver: %s",
    "old": "%s: NVIDIA's driver is too old: libcuda.so.1 has no %s",
    "failed": "%s: %s: CUDA error %d: %s",
    "unknown": "an error that the driver has no words for",
    "machine": "%s: no code for this GPU, whose compute capability is %d.%d: the library has %s",
    "gpu": "%s %d ('%s'): in the memory of GPU %d, but the context works on GPU %d",
}


def _open() -> str:
    return f"""
define internal i32 @gt.cuda.open(ptr %error, ptr %who) {{
entry:
  %library = call ptr @dlopen(ptr @gt.driver.soname, i32 2)
  %none = icmp eq ptr %library, null
  br i1 %none, label %missing, label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %found ]
  %more = icmp ult i64 %i, {len(SYMBOLS)}
  br i1 %more, label %one, label %done
one:
  %name.p = getelementptr ptr, ptr @gt.driver.names, i64 %i
  %name = load ptr, ptr %name.p
  %f = call ptr @dlsym(ptr %library, ptr %name)
  %no = icmp eq ptr %f, null
  br i1 %no, label %old, label %found
found:
  %f.p = getelementptr ptr, ptr @gt.driver, i64 %i
  store ptr %f, ptr %f.p
  %i1 = add i64 %i, 1
  br label %next
missing:
  %why = call ptr @dlerror()
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr @gt.msg.missing, ptr %who, \
ptr %why)
  ret i32 1
old:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr @gt.msg.old, ptr %who, ptr %name)
  ret i32 1
done:
  ret i32 0
}}
"""


_REPORT = f"""
define internal void @gt.cuda.report(ptr %error, ptr %who, ptr %what, i32 %code) {{
entry:
  %text = alloca ptr
  store ptr @gt.msg.unknown, ptr %text
  %fine = icmp eq i32 %code, 0
  br i1 %fine, label %done, label %bad
bad:
{called("asked", "cuGetErrorString", "i32 %code, ptr %text")}\
  %words = load ptr, ptr %text
  %none = icmp eq ptr %words, null
  %said = select i1 %none, ptr @gt.msg.unknown, ptr %words
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr @gt.msg.failed, ptr %who, \
ptr %what, i32 %code, ptr %said)
  br label %done
done:
  ret void
}}
"""


def _begin() -> str:
    """Opens the driver, and makes a context current: the calling thread's own, else GPU 0's primary
    one."""
    return f"""
define internal i32 @gt.cuda.begin(ptr %error, ptr %who, ptr %place) {{
entry:
  %device.p = getelementptr %GtPlace, ptr %place, i32 0, i32 1
  %retained.p = getelementptr %GtPlace, ptr %place, i32 0, i32 2
  store ptr null, ptr %place
  store i32 0, ptr %device.p
  store i32 0, ptr %retained.p
  %opened = call i32 @gt.cuda.open(ptr %error, ptr %who)
  %open = icmp eq i32 %opened, 0
  br i1 %open, label %start, label %closed
closed:
  ret i32 %opened
start:
{checked("init", "cuInit", "i32 0")}\
{checked("current", "cuCtxGetCurrent", "ptr %place")}\
  %own = load ptr, ptr %place
  %has = icmp ne ptr %own, null
  br i1 %has, label %given, label %first
given:
{checked("asked", "cuCtxGetDevice", "ptr %device.p")}\
  br label %push
first:
{checked("got", "cuDeviceGet", "ptr %device.p, i32 0")}\
  %device = load i32, ptr %device.p
{checked("kept", "cuDevicePrimaryCtxRetain", "ptr %place, i32 %device")}\
  store i32 1, ptr %retained.p
  br label %push
push:
  %context = load ptr, ptr %place
{called("pushed", "cuCtxPushCurrent_v2", "ptr %context")}\
  call void @gt.cuda.report(ptr %error, ptr %who, ptr @gt.driver.cuCtxPushCurrent_v2, i32 %pushed)
  %in = icmp eq i32 %pushed, 0
  br i1 %in, label %done, label %out
out:
  call void @gt.cuda.end(ptr %place)
  ret i32 %pushed
done:
  ret i32 0
}}
define internal void @gt.cuda.end(ptr %place) {{
entry:
  %retained.p = getelementptr %GtPlace, ptr %place, i32 0, i32 2
  %retained = load i32, ptr %retained.p
  %kept = icmp ne i32 %retained, 0
  br i1 %kept, label %give, label %done
give:
  %device.p = getelementptr %GtPlace, ptr %place, i32 0, i32 1
  %device = load i32, ptr %device.p
{called("given", "cuDevicePrimaryCtxRelease_v2", "i32 %device")}\
  br label %done
done:
  ret void
}}
"""


def _enter() -> str:
    return f"""
define internal i32 @gt.cuda.enter(ptr %error, ptr %who, ptr %context) {{
entry:
  %driver.p = getelementptr %GtContext, ptr %context, i32 0, i32 {CONTEXT}
  %driver = load ptr, ptr %driver.p
{checked("pushed", "cuCtxPushCurrent_v2", "ptr %driver")}\
  ret i32 0
}}
define internal void @gt.cuda.leave() {{
entry:
  %before = alloca ptr
{called("popped", "cuCtxPopCurrent_v2", "ptr %before")}\
  ret void
}}
"""


def _best(images: int) -> str:
    """The blocks of a loop over ``@gt.machines`` (kind, major and minor), which leave in ``%best``
    the image that suits the GPU best: a cubin of its generation before PTX, later before earlier
    ones; -1 where none does."""
    return f"""\
next:
  %i = phi i64 [ 0, %asked_minor.then ], [ %i1, %one ]
  %best = phi i64 [ -1, %asked_minor.then ], [ %best1, %one ]
  %score = phi i32 [ -1, %asked_minor.then ], [ %score1, %one ]
  %more = icmp ult i64 %i, {images}
  br i1 %more, label %one, label %chosen
one:
  %machine = getelementptr {{ i32, i32, i32 }}, ptr @gt.machines, i64 %i
  %kind = load i32, ptr %machine
  %major.p = getelementptr {{ i32, i32, i32 }}, ptr %machine, i32 0, i32 1
  %its.major = load i32, ptr %major.p
  %minor.p = getelementptr {{ i32, i32, i32 }}, ptr %machine, i32 0, i32 2
  %its.minor = load i32, ptr %minor.p
  %same.major = icmp eq i32 %its.major, %major
  %same.minor = icmp eq i32 %its.minor, %minor
  %up.to.minor = icmp ule i32 %its.minor, %minor
  %is.ptx = icmp eq i32 %kind, {PTX}
  %is.exact = icmp eq i32 %kind, {EXACT}
  %minor.fits = select i1 %is.exact, i1 %same.minor, i1 %up.to.minor
  %cubin.fits = and i1 %same.major, %minor.fits
  %below = icmp ult i32 %its.major, %major
  %ptx.fits = or i1 %below, %cubin.fits
  %fits = select i1 %is.ptx, i1 %ptx.fits, i1 %cubin.fits
  %high = mul i32 %its.major, 1000
  %version = add i32 %high, %its.minor
  %bonus.cubin = select i1 %is.exact, i32 2000000, i32 1000000
  %bonus = select i1 %is.ptx, i32 0, i32 %bonus.cubin
  %its.score = add i32 %version, %bonus
  %higher = icmp sgt i32 %its.score, %score
  %better = and i1 %fits, %higher
  %score1 = select i1 %better, i32 %its.score, i32 %score
  %best1 = select i1 %better, i64 %i, i64 %best
  %i1 = add i64 %i, 1
  br label %next
"""


def _load(pieces: int, images: int) -> str:
    """Loads the modules of the best image for the GPU; ``@gt.images`` has each machine's pieces."""
    return f"""
define internal i32 @gt.cuda.load(ptr %error, ptr %who, ptr %context) {{
entry:
  %number = alloca i32
  %device.p = getelementptr %GtContext, ptr %context, i32 0, i32 {ORDINAL}
  %device = load i32, ptr %device.p
{_attribute("asked.major", CAPABILITY_MAJOR)}\
  %major = load i32, ptr %number
{_attribute("asked.minor", CAPABILITY_MINOR)}\
  %minor = load i32, ptr %number
  br label %next
{_best(images)}\
chosen:
  %none = icmp slt i64 %best, 0
  br i1 %none, label %no_code, label %modules
no_code:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr @gt.msg.machine, ptr %who, \
i32 %major, i32 %minor, ptr @gt.machines.text)
  ret i32 1
modules:
  %first = mul i64 %best, {pieces}
  br label %next_piece
next_piece:
  %p = phi i64 [ 0, %modules ], [ %p1, %loaded_then ]
  %more.pieces = icmp ult i64 %p, {pieces}
  br i1 %more.pieces, label %piece, label %done
piece:
  %at = add i64 %first, %p
  %image.p = getelementptr ptr, ptr @gt.images, i64 %at
  %image = load ptr, ptr %image.p
  %module.p = getelementptr %GtContext, ptr %context, i32 0, i32 {MODULES}, i64 %p
{checked("loaded", "cuModuleLoadData", "ptr %module.p, ptr %image")}\
  br label %loaded_then
loaded_then:
  %p1 = add i64 %p, 1
  br label %next_piece
done:
  ret i32 0
}}
"""


def _unload(pieces: int) -> str:
    return f"""\
define internal void @gt.cuda.unload(ptr %context) {{
entry:
  br label %next
next:
  %p = phi i64 [ 0, %entry ], [ %p1, %after ]
  %more = icmp ult i64 %p, {pieces}
  br i1 %more, label %one, label %done
one:
  %module.p = getelementptr %GtContext, ptr %context, i32 0, i32 {MODULES}, i64 %p
  %module = load ptr, ptr %module.p
  %none = icmp eq ptr %module, null
  br i1 %none, label %after, label %there
there:
{called("unloaded", "cuModuleUnload", "ptr %module")}\
  br label %after
after:
  %p1 = add i64 %p, 1
  br label %next
done:
  ret void
}}
"""


def _functions(count: int) -> str:
    """Finds the kernels: ``@gt.kernels`` has name, piece, and bytes of shared memory to ask for."""
    return f"""
define internal i32 @gt.cuda.functions(ptr %error, ptr %who, ptr %context) {{
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %after ]
  %more = icmp ult i64 %i, {count}
  br i1 %more, label %one, label %done
one:
  %row = getelementptr {{ ptr, i32, i32 }}, ptr @gt.kernels, i64 %i
  %name = load ptr, ptr %row
  %piece.p = getelementptr {{ ptr, i32, i32 }}, ptr %row, i32 0, i32 1
  %piece = load i32, ptr %piece.p
  %shared.p = getelementptr {{ ptr, i32, i32 }}, ptr %row, i32 0, i32 2
  %shared = load i32, ptr %shared.p
  %module.p = getelementptr %GtContext, ptr %context, i32 0, i32 {MODULES}, i32 %piece
  %module = load ptr, ptr %module.p
  %function.p = getelementptr %GtContext, ptr %context, i32 0, i32 {FUNCTIONS}, i64 %i
{checked("found", "cuModuleGetFunction", "ptr %function.p, ptr %module, ptr %name")}\
  %plain = icmp eq i32 %shared, 0
  br i1 %plain, label %after, label %large
large:
  %function = load ptr, ptr %function.p
{checked("set", "cuFuncSetAttribute", f"ptr %function, i32 {MAX_DYNAMIC_SHARED}, i32 %shared")}\
  br label %after
after:
  %i1 = add i64 %i, 1
  br label %next
done:
  ret i32 0
}}
"""


def _memory() -> str:
    return f"""
define internal i32 @gt.cuda.allocate(ptr %error, ptr %who, ptr %place, i64 %size) {{
entry:
{checked("made", "cuMemAlloc_v2", "ptr %place, i64 %size")}\
  ret i32 0
}}
define internal void @gt.cuda.free(ptr %place) {{
entry:
  %memory = load ptr, ptr %place
  %none = icmp eq ptr %memory, null
  br i1 %none, label %done, label %there
there:
{called("freed", "cuMemFree_v2", "ptr %memory")}\
  store ptr null, ptr %place
  br label %done
done:
  ret void
}}
; Copies rows (offset in the source, offset on the GPU, bytes) into new memory.
define internal i32 @gt.cuda.upload(ptr %error, ptr %who, ptr %place, i64 %size, ptr %source, \
ptr %rows, i64 %count) {{
entry:
{checked("made", "cuMemAlloc_v2", "ptr %place, i64 %size")}\
  %memory = load i64, ptr %place
  br label %next
next:
  %i = phi i64 [ 0, %made.then ], [ %i1, %copied.then ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %done
one:
  %row = getelementptr {{ i64, i64, i64 }}, ptr %rows, i64 %i
  %from.o = load i64, ptr %row
  %to.p = getelementptr {{ i64, i64, i64 }}, ptr %row, i32 0, i32 1
  %to.o = load i64, ptr %to.p
  %bytes.p = getelementptr {{ i64, i64, i64 }}, ptr %row, i32 0, i32 2
  %bytes = load i64, ptr %bytes.p
  %from = getelementptr i8, ptr %source, i64 %from.o
  %to = add i64 %memory, %to.o
{checked("copied", "cuMemcpyHtoD_v2", "i64 %to, ptr %from, i64 %bytes")}\
  %i1 = add i64 %i, 1
  br label %next
done:
  ret i32 0
}}
define internal i32 @gt.cuda.clear(ptr %error, ptr %who, ptr %memory, i64 %size) {{
entry:
{checked("cleared", "cuMemsetD8_v2", "ptr %memory, i8 0, i64 %size")}\
  ret i32 0
}}
"""


def _look() -> str:
    """A byte of the GPU's memory, once what was launched before has happened; 0 after an error."""
    return f"""
define internal i8 @gt.cuda.look(ptr %state, i64 %address) {{
entry:
  %byte = alloca i8
  store i8 0, ptr %byte
  %before = load i32, ptr %state
  %fine = icmp eq i32 %before, 0
  br i1 %fine, label %read, label %done
read:
{called("code", "cuMemcpyDtoH_v2", "ptr %byte, i64 %address, i64 1")}\
  store i32 %code, ptr %state
  %name.p = getelementptr %GtState, ptr %state, i32 0, i32 1
  store ptr @gt.driver.cuMemcpyDtoH_v2, ptr %name.p
  br label %done
done:
  %found = load i8, ptr %byte
  ret i8 %found
}}
"""


LOOK = "  %test.x = call i8 @gt.cuda.look(ptr %status, i64 %test.a)"  # for walk.loop
FAILED = "  %stop.f = icmp ne i32 0, 0"  # errors are known at the end: tables of GPUs do not stop


def _stage() -> str:
    """A stage for `count` iterations, -1 where that is not known, on the grid that walk.py says."""
    return f"""
define internal void @gt.cuda.stage(ptr %state, i64 %number, i64 %count, i32 %of.block, \
i32 %shared, ptr %operands, i64 %operand.count) {{
entry:
  %code = load i32, ptr %state
  %going = icmp eq i32 %code, 0
  %some = icmp ne i64 %count, 0
  %on = and i1 %going, %some
  br i1 %on, label %grid, label %done
grid:
  %unknown = icmp slt i64 %count, 0
  %warps = add i64 %count, 31
  %warps.n = sdiv i64 %warps, 32
  %lanes = mul i64 %warps.n, 32
  %few = icmp slt i64 %lanes, {THREADS}
  %fewer = select i1 %few, i64 %lanes, i64 {THREADS}
  %own.threads = select i1 %unknown, i64 {THREADS}, i64 %fewer
  %more.1 = add i64 %count, %own.threads
  %more = sub i64 %more.1, 1
  %own.blocks = sdiv i64 %more, %own.threads
  %is.block = icmp ne i32 %of.block, 0
  %all.blocks = select i1 %is.block, i64 %count, i64 %own.blocks
  %many = icmp sgt i64 %all.blocks, {MOST_BLOCKS}
  %most.blocks = select i1 %many, i64 {MOST_BLOCKS}, i64 %all.blocks
  %blocks64 = select i1 %unknown, i64 {UNKNOWN_BLOCKS}, i64 %most.blocks
  %blocks = trunc i64 %blocks64 to i32
  %own.threads32 = trunc i64 %own.threads to i32
  %threads = select i1 %is.block, i32 %of.block, i32 %own.threads32
  call void @gt.cuda.launch(ptr %state, i64 %number, i32 %blocks, i32 %threads, i32 %shared, \
ptr %operands, i64 %operand.count)
  br label %done
done:
  ret void
}}
"""


def _launch() -> str:
    """A kernel on the operands of a table, and the status word after them."""
    return f"""\
define internal void @gt.cuda.launch(ptr %state, i64 %number, i32 %blocks, i32 %threads, \
i32 %shared, ptr %operands, i64 %count) noinline {{
entry:
  %length = add i64 %count, 1
  %arguments = alloca ptr, i64 %length
  %context.p = getelementptr %GtState, ptr %state, i32 0, i32 2
  %context = load ptr, ptr %context.p
  %status.p = getelementptr %GtContext, ptr %context, i32 0, i32 {STATUS}
  %last = getelementptr ptr, ptr %arguments, i64 %count
  store ptr %status.p, ptr %last
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %go
one:
  %word = getelementptr i64, ptr %operands, i64 %i
  %argument = getelementptr ptr, ptr %arguments, i64 %i
  store ptr %word, ptr %argument
  %i1 = add i64 %i, 1
  br label %next
go:
  %function.p = getelementptr %GtContext, ptr %context, i32 0, i32 {FUNCTIONS}, i64 %number
  %function = load ptr, ptr %function.p
{
        called(
            "code",
            "cuLaunchKernel",
            "ptr %function, i32 %blocks, i32 1, i32 1, i32 %threads, i32 1, i32 1, "
            "i32 %shared, ptr null, ptr %arguments, ptr null",
        )
    }\
  store i32 %code, ptr %state
  %row = getelementptr {{ ptr, i32, i32 }}, ptr @gt.kernels, i64 %number
  %name = load ptr, ptr %row
  %name.p = getelementptr %GtState, ptr %state, i32 0, i32 1
  store ptr %name, ptr %name.p
  ret void
}}
"""


_PARTS = """\
; The parts of a loop, one after the other: each is launches that have the whole GPU.
define internal void @gt_parallel_for(ptr %function, ptr %context, i64 %count) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %one ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %one, label %done
one:
  call void %function(ptr %context, i64 %i)
  %i1 = add i64 %i, 1
  br label %next
done:
  ret void
}
define internal void @gt_set_num_threads(i32 %count) {
  ret void
}
"""


def _run(errors: bool) -> str:
    """Walks a table of launches and waits for them: 0, 1 + the site of an error in the data, or -1
    with a message in ``%error``."""
    read = f"""\
  %status.p = getelementptr %GtContext, ptr %context, i32 0, i32 {STATUS}
  %status = load ptr, ptr %status.p
{checked("got", "cuMemcpyDtoH_v2", "ptr %word, ptr %status, i64 4", "-1")}\
  %found = load i32, ptr %word
  %fine = icmp eq i32 %found, 0
  br i1 %fine, label %done, label %clear
clear:
{checked("cleared", "cuMemsetD8_v2", "ptr %status, i8 0, i64 4", "-1")}\
  br label %done
done:
  ret i32 %found
"""
    wait = checked("waited", "cuStreamSynchronize", "ptr null", "-1") + "  ret i32 0\n"
    return f"""
define internal i32 @gt.cuda.run(ptr %error, ptr %who, ptr %frame, ptr %context) {{
entry:
  %word = alloca i32
  %state = alloca %GtState
  store i32 0, ptr %state
  %context.p = getelementptr %GtState, ptr %state, i32 0, i32 2
  store ptr %context, ptr %context.p
  %code.p = getelementptr i64, ptr %frame, i64 {CODE}
  %code = load ptr, ptr %code.p
  call void @gt.walk(ptr %code, ptr %frame, ptr %state)
  %failed = load i32, ptr %state
  %good = icmp eq i32 %failed, 0
  br i1 %good, label %wait, label %bad
bad:
  %name.p = getelementptr %GtState, ptr %state, i32 0, i32 1
  %name = load ptr, ptr %name.p
  call void @gt.cuda.report(ptr %error, ptr %who, ptr %name, i32 %failed)
  ret i32 -1
wait:
{read if errors else wait}}}
"""


_SAME_GPU = f"""
define internal i32 @gt.cuda.same_gpu(ptr %error, ptr %role, i32 %position, ptr %tensor, \
ptr %spec, ptr %context) {{
entry:
  %name = load ptr, ptr %spec
  %id.p = getelementptr %GtTensor, ptr %tensor, i32 0, i32 2
  %id = load i32, ptr %id.p
  %own.p = getelementptr %GtContext, ptr %context, i32 0, i32 {ORDINAL}
  %own = load i32, ptr %own.p
  %same = icmp eq i32 %id, %own
  br i1 %same, label %good, label %bad
bad:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr @gt.msg.gpu, ptr %role, \
i32 %position, ptr %name, i32 %id, i32 %own)
  ret i32 {DEVICE}
good:
  ret i32 0
}}
"""
