"""The thread pool, as LLVM IR text that names libc symbols only: linked once into this process and,
as the same text, into every ahead-of-time library.

    void gt_parallel_for(void (*task)(void *ctx, int64_t i), void *ctx, int64_t n)
    void gt_set_num_threads(int32_t n)      int32_t gt_get_num_threads(void)

How it works. A call writes task, ctx and n, then publishes the *ticket*: one 64-bit word,
``epoch << 32 | remaining``. Whoever claims a task reads the ticket, then the call's fields, and
takes the right to a task by compare-and-swap of the ticket it read: if the swap succeeds, the epoch
had not changed and the fields belong to it. So a late worker can neither run nor delay a later
call. The join counts finished tasks, not workers. Workers spin for about a millisecond (waking a
sleeper costs up to half of one), then sleep on the epoch half of the ticket.

Which task it is: the tasks are cut into as many *shares* of neighbours as there are threads. Each
thread does those of its own share, and then helps with the next one's. So what a thread wrote, or
read, in one call lies in the caches of the core that takes the same part of the next one. A share's
word is ``epoch << 32 | taken``: what it says of another epoch means none.

Several threads calling at once: the first owns the pool, the others run their own tasks inline, as
does a task that calls again. A page marked MADV_WIPEONFORK (where the kernel has none, the process
id) tells a forked child that its workers are gone; the next call starts new ones.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable

from .. import cache
from ..dataclass import dataclass
from . import walk
from .code import Code, immortal
from .processor import Processor, available_cpus, host

MAX_THREADS = 1024
SPINS = 20000  # pauses of ~50 ns before a worker sleeps
FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}  # numbers of the futex system call


def text(target: Processor, linkage: str = "") -> str:
    """The pool's LLVM IR for `target`. `linkage` is ``internal`` inside a library."""
    arch = target.triple.split("-")[0]
    pause = {
        "x86_64": "call void @llvm.x86.sse2.pause()",
        "aarch64": "call void @llvm.aarch64.hint(i32 1)",
    }
    futex = FUTEX.get(arch) if "linux" in target.triple else None
    body = _POOL.replace("PAUSE", pause.get(arch, "fence acquire")).replace("SPINS", str(SPINS))
    body = body.replace("LINKAGE", linkage).replace("MAX_THREADS", str(MAX_THREADS))
    return body + (_FUTEX.replace("FUTEX", str(futex)) if futex else _POLL)


RUN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
EXPORTS = ("gt_parallel_for", "gt_set_num_threads", "gt_get_num_threads", "gt_run")


@dataclass(frozen=True)
class Pool:
    """The pool of this process: `address` of each of EXPORTS, and three of them as functions.

    `run` walks a table of launches (walk.py).
    """

    address: dict[str, int]
    run: Callable[[int], int]
    set_num_threads: Callable[[int], None]
    get_num_threads: Callable[[], int]


@functools.cache
def pool() -> Pool:
    """This process's pool, made at the first call and never unloaded: its workers run to the
    end."""
    code = immortal(Code([pool_object()], EXPORTS))
    address = {name: code.address(name) for name in EXPORTS}
    setter = ctypes.CFUNCTYPE(None, ctypes.c_int32)(address["gt_set_num_threads"])
    getter = ctypes.CFUNCTYPE(ctypes.c_int32)(address["gt_get_num_threads"])
    setter(available_cpus())
    return Pool(address, RUN(address["gt_run"]), setter, getter)


@functools.cache
def pool_object() -> bytes:
    """The pool's object code for this machine: takes long where the cache does not have it."""
    source = text(host()) + walk.text()
    name = cache.key("pool", source, repr(host()))
    found = cache.load(name)
    if found is not None:
        return found[1]
    # LLVM is not even loaded where the cache has the code
    compile_object = importlib.import_module(".native", __package__).compile_object
    obj: bytes = compile_object(source, host())
    cache.store(name, {}, obj)
    return obj


def set_num_threads(count: int) -> None:
    """Threads that compiled calls use from now on, the calling one included."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads expects an int, but got {type(count).__name__}")
    if count < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, got {count}")
    pool().set_num_threads(min(count, MAX_THREADS))


def get_num_threads() -> int:
    """Threads that compiled calls use, the calling one included."""
    return pool().get_num_threads()


_POOL = r"""
%gt.call = type { ptr, ptr, i64, i64 }         ; task, ctx, n, shares
%gt.share = type { i64, [7 x i64] }            ; a line of the cache
@gt.ticket   = internal global i64 0, align 64 ; epoch << 32 | tasks not yet claimed
@gt.done     = internal global i64 0, align 64 ; finished tasks of this epoch
@gt.shares   = internal global [MAX_THREADS x %gt.share] zeroinitializer, align 64
@gt.current  = internal global %gt.call zeroinitializer, align 64
@gt.sleepers = internal global i32 0, align 64
@gt.busy     = internal global i32 0, align 64 ; 1 while a call owns the pool
@gt.threads  = internal global i32 0           ; wanted, callers included; 0: not asked yet
@gt.workers  = internal global i32 0           ; started
@gt.page     = internal global ptr null        ; its first i32: 0 not started, 1 starting, 2 running
@gt.pid      = internal global i32 0           ; not 0: compare process ids instead of the page
@gt.cpu_max  = private constant [23 x i8] c"/sys/fs/cgroup/cpu.max\00"
@gt.mode     = private constant [2 x i8] c"r\00"
@gt.format   = private constant [8 x i8] c"%ld %ld\00"

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_yield()
declare i32 @getpid()
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @madvise(ptr, i64, i32)
declare ptr @fopen(ptr, ptr)
declare i32 @fscanf(ptr, ptr, ...)
declare i32 @fclose(ptr)

; Claims and runs tasks, those of share `id` first, until none is left; returns how many it ran.
define internal i64 @gt.work(i64 %id) nounwind {
entry:
  br label %look
look:
  %ran = phi i64 [ 0, %entry ], [ %ran, %retry ], [ %ran1, %run ]
  %home = phi i64 [ %id, %entry ], [ %home, %retry ], [ %share, %run ]
  %t = load atomic i64, ptr @gt.ticket acquire, align 8
  %left = and i64 %t, 4294967295
  %none = icmp eq i64 %left, 0
  br i1 %none, label %out, label %claim
claim:
  %fp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 0
  %cp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 1
  %np = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 2
  %sp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 3
  %f = load atomic ptr, ptr %fp monotonic, align 8
  %c = load atomic ptr, ptr %cp monotonic, align 8
  %n = load atomic i64, ptr %np monotonic, align 8
  %shares = load atomic i64, ptr %sp monotonic, align 8
  %t1 = sub i64 %t, 1
  %swap = cmpxchg ptr @gt.ticket, i64 %t, i64 %t1 acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %first, label %retry
retry:
  PAUSE
  br label %look
first:
  %known = icmp ult i64 %home, %shares ; not where there were more threads when this one began
  %begin = select i1 %known, i64 %home, i64 0
  %epoch = and i64 %t, -4294967296
  br label %visit
visit:
  %share = phi i64 [ %begin, %first ], [ %after, %next ]
  %low.p = mul i64 %share, %n
  %low = udiv i64 %low.p, %shares
  %share1 = add i64 %share, 1
  %high.p = mul i64 %share1, %n
  %high = udiv i64 %high.p, %shares
  %size = sub i64 %high, %low
  %word = getelementptr inbounds [MAX_THREADS x %gt.share], ptr @gt.shares, i64 0, i64 %share, i32 0
  br label %take
take:
  %w = load atomic i64, ptr %word monotonic, align 8
  %w.epoch = and i64 %w, -4294967296
  %same = icmp eq i64 %w.epoch, %epoch
  %w.taken = and i64 %w, 4294967295
  %taken = select i1 %same, i64 %w.taken, i64 0
  %some = icmp ult i64 %taken, %size
  br i1 %some, label %swap.share, label %next
swap.share:
  %taken1 = add i64 %taken, 1
  %w1 = or i64 %epoch, %taken1
  %swap1 = cmpxchg ptr %word, i64 %w, i64 %w1 monotonic monotonic, align 8
  %won1 = extractvalue { i64, i1 } %swap1, 1
  br i1 %won1, label %run, label %take
next: ; as many tasks as rights to one are left: one of the others has it
  %last = icmp eq i64 %share1, %shares
  %after = select i1 %last, i64 0, i64 %share1
  br label %visit
run:
  %i = add i64 %low, %taken
  call void %f(ptr %c, i64 %i)
  %ran1 = add i64 %ran, 1
  br label %look
out:
  ret i64 %ran
}

define internal ptr @gt.worker(ptr %arg) nounwind {
entry:
  %id64 = ptrtoint ptr %arg to i64
  %id = trunc i64 %id64 to i32
  br label %wait
wait:
  br label %spin
spin:
  %k = phi i32 [ 0, %wait ], [ %k1, %again ]
  %t = load atomic i64, ptr @gt.ticket acquire, align 8
  %left = trunc i64 %t to i32
  %work = icmp ne i32 %left, 0
  br i1 %work, label %wanted, label %again
again:
  PAUSE
  %k1 = add i32 %k, 1
  %tired = icmp uge i32 %k1, SPINS
  br i1 %tired, label %sleep, label %spin
wanted:
  %threads = load atomic i32, ptr @gt.threads monotonic, align 4
  %mine = icmp slt i32 %id, %threads
  br i1 %mine, label %go, label %sleep
go:
  %ran = call i64 @gt.work(i64 %id64)
  %d = atomicrmw add ptr @gt.done, i64 %ran acq_rel
  br label %wait
sleep:
  %s0 = atomicrmw add ptr @gt.sleepers, i32 1 seq_cst
  %t2 = load atomic i64, ptr @gt.ticket seq_cst, align 8
  %left2 = trunc i64 %t2 to i32
  %none = icmp eq i32 %left2, 0
  %threads2 = load atomic i32, ptr @gt.threads monotonic, align 4
  %idle = icmp sge i32 %id, %threads2
  %rest = or i1 %none, %idle
  br i1 %rest, label %nap, label %up
nap:
  %e64 = lshr i64 %t2, 32
  %e = trunc i64 %e64 to i32
  call void @gt.sleep(i32 %e)
  br label %up
up:
  %s1 = atomicrmw sub ptr @gt.sleepers, i32 1 seq_cst
  br label %wait
}

; Processors this process may use: affinity mask, lowered by the cgroup's limit.
define internal i32 @gt.processors() nounwind {
entry:
  %mask = alloca [1024 x i8], align 8
  %quota = alloca i64
  %period = alloca i64
  %r = call i32 @sched_getaffinity(i32 0, i64 1024, ptr %mask)
  %failed = icmp slt i32 %r, 0
  br i1 %failed, label %one, label %count
count:
  %w = phi i64 [ 0, %entry ], [ %w1, %count ]
  %sum = phi i64 [ 0, %entry ], [ %sum1, %count ]
  %p = getelementptr inbounds i64, ptr %mask, i64 %w
  %bits = load i64, ptr %p
  %pop = call i64 @llvm.ctpop.i64(i64 %bits)
  %sum1 = add i64 %sum, %pop
  %w1 = add i64 %w, 1
  %last = icmp eq i64 %w1, 128
  br i1 %last, label %limit, label %count
limit:
  %file = call ptr @fopen(ptr @gt.cpu_max, ptr @gt.mode)
  %nofile = icmp eq ptr %file, null
  br i1 %nofile, label %done, label %read
read:
  %got = call i32 (ptr, ptr, ...) @fscanf(ptr %file, ptr @gt.format, ptr %quota, ptr %period)
  %closed = call i32 @fclose(ptr %file)
  %both = icmp eq i32 %got, 2
  br i1 %both, label %divide, label %done
divide:
  %q = load i64, ptr %quota
  %d0 = load i64, ptr %period
  %d = call i64 @llvm.smax.i64(i64 %d0, i64 1)
  %half = lshr i64 %d, 1
  %up = add i64 %q, %half
  %cpus = sdiv i64 %up, %d
  %least = call i64 @llvm.smin.i64(i64 %cpus, i64 %sum1)
  br label %done
done:
  %found = phi i64 [ %sum1, %limit ], [ %sum1, %read ], [ %least, %divide ]
  %atleast = call i64 @llvm.smax.i64(i64 %found, i64 1)
  %result = trunc i64 %atleast to i32
  ret i32 %result
one:
  ret i32 1
}

define LINKAGE void @gt_set_num_threads(i32 %n) nounwind {
entry:
  %low = call i32 @llvm.smax.i32(i32 %n, i32 1)
  %m = call i32 @llvm.smin.i32(i32 %low, i32 MAX_THREADS)
  store atomic i32 %m, ptr @gt.threads monotonic, align 4
  ret void
}

define LINKAGE i32 @gt_get_num_threads() nounwind {
entry:
  %n = load atomic i32, ptr @gt.threads monotonic, align 4
  %unset = icmp eq i32 %n, 0
  br i1 %unset, label %ask, label %out
ask:
  %p = call i32 @gt.processors()
  call void @gt_set_num_threads(i32 %p)
  br label %out
out:
  %r = phi i32 [ %n, %entry ], [ %p, %ask ]
  ret i32 %r
}

; The page that a fork wipes; null where there is no memory for one.
define internal ptr @gt.state() nounwind {
entry:
  %page = load atomic ptr, ptr @gt.page acquire, align 8
  %have = icmp ne ptr %page, null
  br i1 %have, label %check, label %make
check:
  %pid = load atomic i32, ptr @gt.pid monotonic, align 4
  %bypid = icmp ne i32 %pid, 0
  br i1 %bypid, label %compare, label %ready
compare:
  %now = call i32 @getpid()
  %forked = icmp ne i32 %now, %pid
  br i1 %forked, label %wipe, label %ready
wipe:
  %swap0 = cmpxchg ptr @gt.pid, i32 %pid, i32 %now seq_cst monotonic
  %first0 = extractvalue { i32, i1 } %swap0, 1
  br i1 %first0, label %clear, label %ready
clear:
  store atomic i32 0, ptr %page seq_cst, align 4
  br label %ready
ready:
  ret ptr %page
make:
  ; 3 = PROT_READ | PROT_WRITE, 34 = MAP_PRIVATE | MAP_ANONYMOUS, 18 = MADV_WIPEONFORK
  %new = call ptr @mmap(ptr null, i64 4096, i32 3, i32 34, i32 -1, i64 0)
  %nomem = icmp eq ptr %new, inttoptr (i64 -1 to ptr)
  br i1 %nomem, label %fail, label %advise
advise:
  %r = call i32 @madvise(ptr %new, i64 4096, i32 18)
  %ok = icmp eq i32 %r, 0
  br i1 %ok, label %publish, label %remember
remember:
  %me = call i32 @getpid()
  store atomic i32 %me, ptr @gt.pid monotonic, align 4
  br label %publish
publish:
  %swap = cmpxchg ptr @gt.page, ptr null, ptr %new acq_rel acquire
  %mine = extractvalue { ptr, i1 } %swap, 1
  %other = extractvalue { ptr, i1 } %swap, 0
  br i1 %mine, label %keep, label %drop
keep:
  ret ptr %new
drop:
  %u = call i32 @munmap(ptr %new, i64 4096)
  ret ptr %other
fail:
  ret ptr null
}

; Makes sure that the state belongs to this process. False: another thread is at it, run inline.
define internal i1 @gt.ready() nounwind {
entry:
  %page = call ptr @gt.state()
  %none = icmp eq ptr %page, null
  br i1 %none, label %no, label %look
look:
  %s = load atomic i32, ptr %page acquire, align 4
  %running = icmp eq i32 %s, 2
  br i1 %running, label %yes, label %start
start:
  %swap = cmpxchg ptr %page, i32 0, i32 1 acq_rel monotonic
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %reset, label %no
reset:
  %seen = load atomic i64, ptr @gt.ticket monotonic, align 8
  %idle = and i64 %seen, -4294967296 ; of the epoch that it was: the shares know it
  store atomic i64 %idle, ptr @gt.ticket monotonic, align 8
  store atomic i32 0, ptr @gt.sleepers monotonic, align 4
  store atomic i32 0, ptr @gt.workers monotonic, align 4
  store atomic i32 0, ptr @gt.busy monotonic, align 4
  store atomic i32 2, ptr %page release, align 4
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}

; Starts workers up to the wanted number; the owner of the pool calls it.
define internal void @gt.hire(i32 %threads) nounwind {
entry:
  %attr = alloca [128 x i8], align 16
  %id = alloca i64
  %wanted = sub i32 %threads, 1
  %have = load atomic i32, ptr @gt.workers monotonic, align 4
  %enough = icmp sge i32 %have, %wanted
  br i1 %enough, label %out, label %prepare
prepare:
  %a = call i32 @pthread_attr_init(ptr %attr)
  %b = call i32 @pthread_attr_setstacksize(ptr %attr, i64 8388608)
  br label %next
next:
  %i = phi i32 [ %have, %prepare ], [ %i1, %made ]
  %full = icmp sge i32 %i, %wanted
  br i1 %full, label %stop, label %create
create:
  %i1 = add i32 %i, 1
  %i64 = zext i32 %i1 to i64
  %arg = inttoptr i64 %i64 to ptr
  %r = call i32 @pthread_create(ptr %id, ptr %attr, ptr @gt.worker, ptr %arg)
  %ok = icmp eq i32 %r, 0
  br i1 %ok, label %made, label %stop
made:
  %t = load i64, ptr %id
  %d = call i32 @pthread_detach(i64 %t)
  store atomic i32 %i1, ptr @gt.workers monotonic, align 4
  br label %next
stop:
  %x = call i32 @pthread_attr_destroy(ptr %attr)
  br label %out
out:
  ret void
}

define internal void @gt.inline(ptr %f, ptr %c, i64 %n) nounwind {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  call void %f(ptr %c, i64 %i)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %loop, label %out
out:
  ret void
}

define LINKAGE void @gt_parallel_for(ptr %f, ptr %c, i64 %n) nounwind {
entry:
  %threads = call i32 @gt_get_num_threads()
  %alone = icmp sle i32 %threads, 1
  %few = icmp sle i64 %n, 1
  %many = icmp sgt i64 %n, 2147483647
  %x0 = or i1 %alone, %few
  %x1 = or i1 %x0, %many
  br i1 %x1, label %serial, label %prepare
prepare:
  %ready = call i1 @gt.ready()
  br i1 %ready, label %lock, label %serial
lock:
  %swap = cmpxchg ptr @gt.busy, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %swap, 1
  br i1 %mine, label %hire, label %serial
hire:
  call void @gt.hire(i32 %threads)
  %fp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 0
  %cp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 1
  %np = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 2
  store atomic ptr %f, ptr %fp monotonic, align 8
  store atomic ptr %c, ptr %cp monotonic, align 8
  store atomic i64 %n, ptr %np monotonic, align 8
  %sp = getelementptr inbounds %gt.call, ptr @gt.current, i64 0, i32 3
  %shares = zext i32 %threads to i64
  store atomic i64 %shares, ptr %sp monotonic, align 8
  store atomic i64 0, ptr @gt.done monotonic, align 8
  %old = load atomic i64, ptr @gt.ticket monotonic, align 8
  %epoch = and i64 %old, -4294967296
  %epoch1 = add i64 %epoch, 4294967296
  %ticket = or i64 %epoch1, %n
  store atomic i64 %ticket, ptr @gt.ticket seq_cst, align 8
  %asleep = load atomic i32, ptr @gt.sleepers seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %work
wake:
  call void @gt.wake()
  br label %work
work:
  %ran = call i64 @gt.work(i64 0)
  %before = atomicrmw add ptr @gt.done, i64 %ran acq_rel
  br label %join
join:
  %k = phi i32 [ 0, %work ], [ %k1, %spin ], [ 0, %yield ]
  %d = load atomic i64, ptr @gt.done acquire, align 8
  %all = icmp eq i64 %d, %n
  br i1 %all, label %unlock, label %spin
spin:
  PAUSE
  %k1 = add i32 %k, 1
  %long = icmp uge i32 %k1, 2048
  br i1 %long, label %yield, label %join
yield:
  %y = call i32 @sched_yield()
  br label %join
unlock:
  store atomic i32 0, ptr @gt.busy release, align 4
  ret void
serial:
  call void @gt.inline(ptr %f, ptr %c, i64 %n)
  ret void
}
"""

# 128, 129: FUTEX_WAIT and FUTEX_WAKE, private to the process; the epoch is the upper half of the
# ticket.
_FUTEX = r"""
declare i64 @syscall(i64, ...)
define internal void @gt.sleep(i32 %epoch) nounwind {
entry:
  %p = getelementptr inbounds i8, ptr @gt.ticket, i64 4
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %p, i32 128, i32 %epoch, ptr null, ptr null,
      i32 0)
  ret void
}
define internal void @gt.wake() nounwind {
entry:
  %p = getelementptr inbounds i8, ptr @gt.ticket, i64 4
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %p, i32 129, i32 2147483647, ptr null,
      ptr null, i32 0)
  ret void
}
"""

# Elsewhere a tired worker polls five thousand times a second.
_POLL = r"""
declare i32 @usleep(i32)
define internal void @gt.sleep(i32 %epoch) nounwind {
entry:
  %r = call i32 @usleep(i32 200)
  ret void
}
define internal void @gt.wake() nounwind {
entry:
  ret void
}
"""
