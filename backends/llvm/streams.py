"""Copies that pass by the caches, as LLVM IR text."""

from __future__ import annotations

from .processor import Processor

LINE = 64  # bytes of a line of the caches
NAME = "gt.stream"
FENCE = "llvm.x86.sse.sfence"

_COPY = """\
; Whole lines of the target go past the caches, what is ahead of and behind them does not.
define internal void @gt.stream(ptr noalias %to, ptr noalias %from, i64 %bytes) noinline nounwind {
entry:
  %start = ptrtoint ptr %to to i64
  %below = sub i64 0, %start
  %ahead = and i64 %below, 63
  %head = call i64 @llvm.umin.i64(i64 %ahead, i64 %bytes)
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %head, i1 false)
  %rest = sub i64 %bytes, %head
  %tail = and i64 %rest, 63
  %end = sub i64 %bytes, %tail
  %some = icmp ult i64 %head, %end
  br i1 %some, label %line, label %done
line:
  %i = phi i64 [ %head, %entry ], [ %next, %line ]
MOVES
  %next = add nuw i64 %i, 64
  %more = icmp ult i64 %next, %end
  br i1 %more, label %line, label %done
done:
  %to.e = getelementptr inbounds i8, ptr %to, i64 %end
  %from.e = getelementptr inbounds i8, ptr %from, i64 %end
  call void @llvm.memcpy.p0.p0.i64(ptr %to.e, ptr %from.e, i64 %tail, i1 false)
  ret void
}
"""
_MOVE = """\
  %at.{k} = add nuw i64 %i, {k}
  %from.{k} = getelementptr inbounds i8, ptr %from, i64 %at.{k}
  %to.{k} = getelementptr inbounds i8, ptr %to, i64 %at.{k}
  %x.{k} = load <{n} x i8>, ptr %from.{k}, align 1
  store <{n} x i8> %x.{k}, ptr %to.{k}, align {n}, !nontemporal !{{i32 1}}"""


def text(target: Processor) -> str:
    """``void gt.stream(to, from, bytes)``: bytes that nobody reads soon.

    On x86 others see them in order only after a fence.
    """
    n = min(LINE, target.vector_bits // 8)
    moves = "\n".join(_MOVE.format(k=k, n=n) for k in range(0, LINE, n))
    return _COPY.replace("MOVES", moves)
