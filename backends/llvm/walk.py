"""The native loop that walks a program's table of launches (abi.py), as LLVM IR text.

    int32_t gt_run(int64_t *frame)      runs ``frame[CODE]``; status: 0, or 1 + the site of an error

Linked once into this process with the thread pool, and, as the same text, into every library. A
launch costs a few nanoseconds: its operands are added up into an array, and the kernel is called
with that.
"""

from __future__ import annotations

from ..kernels.program import abi

_RUN = r"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define LINKAGE i32 @gt_run(ptr %frame) nounwind {
entry:
  %status = alloca i32, align 64
  store i32 0, ptr %status
  %code.p = getelementptr inbounds i64, ptr %frame, i64 CODE
  %code = load ptr, ptr %code.p
  call void @gt.walk(ptr %code, ptr %frame, ptr %status)
  %result = load atomic i32, ptr %status monotonic, align 4
  ret i32 %result
}
"""

_LOOP = r"""
; One part of a loop: a frame of its own, so that what moves in it moves for this part alone.
define internal void @gt.part(ptr %context, i64 %part) nounwind {
entry:
  %frame.p = getelementptr inbounds i8, ptr %context, i64 8
  %status.p = getelementptr inbounds i8, ptr %context, i64 16
  %code = load ptr, ptr %context
  %frame = load ptr, ptr %frame.p
  %status = load ptr, ptr %status.p
  %words.p = getelementptr inbounds i64, ptr %frame, i64 WORDS
  %words = load i64, ptr %words.p
  %own = alloca i64, i64 %words, align 64
  %bytes = shl i64 %words, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %own, ptr %frame, i64 %bytes, i1 false)
  %part.p = getelementptr inbounds i64, ptr %own, i64 PART
  store i64 %part, ptr %part.p
  call void @gt.walk(ptr %code, ptr %own, ptr %status)
  ret void
}

define internal i64 @gt.word(ptr %frame, ptr %at) alwaysinline nounwind {
  %i = load i32, ptr %at
  %i64 = zext i32 %i to i64
  %p = getelementptr inbounds i64, ptr %frame, i64 %i64
  %x = load i64, ptr %p
  ret i64 %x
}

define internal void @gt.put(ptr %frame, ptr %at, i64 %x) alwaysinline nounwind {
  %i = load i32, ptr %at
  %i64 = zext i32 %i to i64
  %p = getelementptr inbounds i64, ptr %frame, i64 %i64
  store i64 %x, ptr %p
  ret void
}

define internal void @gt.walk(ptr %code, ptr %frame, ptr %status) nounwind {
entry:
  %functions.p = getelementptr inbounds i64, ptr %frame, i64 FUNCTIONS
  %functions = load ptr, ptr %functions.p
  %most.p = getelementptr inbounds i64, ptr %frame, i64 OPERANDS
  %most = load i64, ptr %most.p
  %sizes.p = getelementptr inbounds i64, ptr %frame, i64 SIZES
  %sizes = load ptr, ptr %sizes.p
  %operands = alloca i64, i64 %most, align 64
  %parts.c = alloca { ptr, ptr, ptr }, align 64
  br label %next
next:
  %at = phi ptr [ %code, %entry ], [ %call.to, %call ], [ %set.to, %set ], [ %step.to, %step ],
             [ %half.to, %half ], [ %below.to, %below ], [ %test.to, %test ],
             [ %jump.to, %jump ], [ %parts.to, %parts ], [ %w1, %stop ]
  %op = load i32, ptr %at
  %w1 = getelementptr inbounds i32, ptr %at, i64 1
  %w2 = getelementptr inbounds i32, ptr %at, i64 2
  %w3 = getelementptr inbounds i32, ptr %at, i64 3
  %w4 = getelementptr inbounds i32, ptr %at, i64 4
  switch i32 %op, label %end [ i32 ICALL, label %operand.s
                               i32 ISET, label %set
                               i32 ISTEP, label %step
                               i32 IHALF, label %half
                               i32 IBELOW, label %below
                               i32 ITEST, label %test
                               i32 IJUMP, label %jump
                               i32 IPARTS, label %parts
                               i32 ISTOP, label %stop ]
operand.s:
  %kernel = load i32, ptr %w1
  %kernel64 = zext i32 %kernel to i64
  %function.p = getelementptr inbounds ptr, ptr %functions, i64 %kernel64
  %function = load ptr, ptr %function.p
  %count = load i32, ptr %w2
  %count64 = zext i32 %count to i64
  %none = icmp eq i32 %count, 0
  br i1 %none, label %call, label %operand
operand:
  %k = phi i64 [ 0, %operand.s ], [ %k1, %operand ]
  %pair = getelementptr inbounds { i32, i32 }, ptr %w3, i64 %k
  %pair.s = getelementptr inbounds i8, ptr %pair, i64 4
  %base = call i64 @gt.word(ptr %frame, ptr %pair)
  %more = call i64 @gt.word(ptr %sizes, ptr %pair.s)
  %sum = add i64 %base, %more
  %operand.p = getelementptr inbounds i64, ptr %operands, i64 %k
  store i64 %sum, ptr %operand.p
  %k1 = add nuw nsw i64 %k, 1
  %again = icmp ult i64 %k1, %count64
  br i1 %again, label %operand, label %call
call:
  call void %function(ptr %operands, ptr %status)
  %call.to = getelementptr inbounds { i32, i32 }, ptr %w3, i64 %count64
  br label %next
set:
  %set.b = call i64 @gt.word(ptr %frame, ptr %w2)
  %set.s = call i64 @gt.word(ptr %sizes, ptr %w3)
  %set.x = add i64 %set.b, %set.s
  call void @gt.put(ptr %frame, ptr %w1, i64 %set.x)
  %set.to = getelementptr inbounds i32, ptr %at, i64 4
  br label %next
step:
  %step.b = call i64 @gt.word(ptr %frame, ptr %w2)
  %step.k = call i64 @gt.word(ptr %frame, ptr %w3)
  %step.s = call i64 @gt.word(ptr %sizes, ptr %w4)
  %step.m = mul i64 %step.k, %step.s
  %step.x = add i64 %step.b, %step.m
  call void @gt.put(ptr %frame, ptr %w1, i64 %step.x)
  %step.to = getelementptr inbounds i32, ptr %at, i64 5
  br label %next
half:
  %half.b = call i64 @gt.word(ptr %frame, ptr %w2)
  %half.k = call i64 @gt.word(ptr %frame, ptr %w3)
  %half.s = call i64 @gt.word(ptr %sizes, ptr %w4)
  %half.o = and i64 %half.k, 1
  %half.m = mul i64 %half.o, %half.s
  %half.x = add i64 %half.b, %half.m
  call void @gt.put(ptr %frame, ptr %w1, i64 %half.x)
  %half.to = getelementptr inbounds i32, ptr %at, i64 5
  br label %next
below:
  %below.k = call i64 @gt.word(ptr %frame, ptr %w1)
  %below.s = call i64 @gt.word(ptr %sizes, ptr %w2)
  %below.c = icmp slt i64 %below.k, %below.s
  %below.j = load i32, ptr %w3
  %below.d = select i1 %below.c, i32 4, i32 %below.j
  %below.to = getelementptr inbounds i32, ptr %at, i32 %below.d
  br label %next
test:
  %test.b = call i64 @gt.word(ptr %frame, ptr %w1)
  %test.s = call i64 @gt.word(ptr %sizes, ptr %w2)
  %test.a = add i64 %test.b, %test.s
LOOK
  %test.c = icmp ne i8 %test.x, 0
  %test.j = load i32, ptr %w3
  %test.d = select i1 %test.c, i32 4, i32 %test.j
  %test.to = getelementptr inbounds i32, ptr %at, i32 %test.d
  br label %next
jump:
  %jump.d = load i32, ptr %w1
  %jump.to = getelementptr inbounds i32, ptr %at, i32 %jump.d
  br label %next
parts:
  %parts.n = load i32, ptr %w1
  %parts.n64 = zext i32 %parts.n to i64
  %parts.f = getelementptr inbounds i8, ptr %parts.c, i64 8
  %parts.t = getelementptr inbounds i8, ptr %parts.c, i64 16
  store ptr %w3, ptr %parts.c
  store ptr %frame, ptr %parts.f
  store ptr %status, ptr %parts.t
  call void @gt_parallel_for(ptr @gt.part, ptr %parts.c, i64 %parts.n64)
  %parts.d = load i32, ptr %w2
  %parts.to = getelementptr inbounds i32, ptr %at, i32 %parts.d
  br label %next
stop:
FAILED
  br i1 %stop.f, label %end, label %next
end:
  ret void
}
"""


_LOOK = """\
  %test.p = inttoptr i64 %test.a to ptr
  %test.x = load i8, ptr %test.p"""
_FAILED = """\
  %stop.s = load atomic i32, ptr %status monotonic, align 4
  %stop.f = icmp ne i32 %stop.s, 0"""


def text(linkage: str = "") -> str:
    """The walker's LLVM IR; `gt_parallel_for` is in the same module."""
    return _numbered(_RUN.replace("LINKAGE", linkage)) + loop(_LOOK, _FAILED)


def loop(look: str, failed: str) -> str:
    """The loop alone, ``void gt.walk(int32_t *code, int64_t *frame, void *status)``.

    Args:
        look: sets ``%test.x``, an i8, to what is in memory at the address ``%test.a``, an i64.
        failed: sets ``%stop.f``, an i1, to whether a kernel left an error.
    """
    return _numbered(_LOOP.replace("LOOK", look).replace("FAILED", failed))


def _numbered(body: str) -> str:
    for name in ("CALL", "SET", "STEP", "HALF", "BELOW", "TEST", "JUMP", "PARTS", "STOP"):
        body = body.replace(f"i32 I{name},", f"i32 {getattr(abi, name)},")
    for name in ("CODE", "FUNCTIONS", "OPERANDS", "WORDS", "PART", "SIZES"):
        body = body.replace(f"i64 {name}\n", f"i64 {getattr(abi, name)}\n")
    return body
