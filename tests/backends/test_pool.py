"""The thread pool: every task exactly once, whoever calls, also after fork."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Kernel, Name, load
from graphtorch.backends.llvm import runtime
from graphtorch.backends.llvm.code import Code
from graphtorch.backends.llvm.jit import kernel_text
from graphtorch.backends.llvm.native import compile_object
from graphtorch.backends.llvm.processor import available_cpus, host
from graphtorch.ir.dtype import i64


@pytest.fixture
def threads():
    """Set the number of threads inside a test; restored afterwards."""
    before = runtime.get_num_threads()
    yield runtime.set_num_threads
    runtime.set_num_threads(before)


class Counter:
    """Adds 1 to each of n numbers, one task a number."""

    def __init__(self) -> None:
        x, n = Buffer("x", i64, "readwrite"), Name("n")
        b = Builder()
        with b.loop(n, "parallel") as i:
            b.store(x, i, load(x, i) + 1)
        obj = compile_object(kernel_text(Kernel("count", (x,), (n,), b.body), host()), host())
        self._code = Code([obj], ("run",), runtime.pool().address)
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(
            self._code.address("run")
        )

    def __call__(self, array: np.ndarray) -> None:
        args = (ctypes.c_int64 * 2)(array.ctypes.data, len(array))
        status = ctypes.c_int32()
        self._run(ctypes.addressof(args), ctypes.addressof(status))


@pytest.fixture(scope="module")
def count() -> Counter:
    return Counter()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_every_task_runs_once(count, threads, workers):
    threads(workers)
    assert runtime.get_num_threads() == workers
    for n in (0, 1, 2, 7, 64, 1000):
        x = np.zeros(n, np.int64)
        for _ in range(50):
            count(x)
        assert (x == 50).all()


def test_short_calls_in_a_row(count, threads):
    threads(4)
    x = np.zeros(3, np.int64)
    for _ in range(20000):
        count(x)
    assert (x == 20000).all()


def test_many_python_threads(count, threads):
    threads(3)
    arrays = [np.zeros(16 + i, np.int64) for i in range(8)]

    def work(x):
        for _ in range(1000):
            count(x)

    callers = [threading.Thread(target=work, args=(x,)) for x in arrays]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all((x == 1000).all() for x in arrays)


def test_resizing_while_running(count, threads):
    x = np.zeros(32, np.int64)
    for i in range(300):
        threads(1 + i % 5)
        count(x)
    assert (x == 300).all()


def _in_child(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_are_started_again_after_fork(count, threads):
    threads(3)
    x = np.zeros(100, np.int64)
    count(x)

    def work() -> int:
        for _ in range(100):
            count(x)
        tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 3
        grandchild = _in_child(lambda: count(x) or int((x != 102).any()))
        return int((x != 101).any()) + 2 * (tasks != 3) + 4 * grandchild

    assert _in_child(work) == 0
    count(x)
    assert (x == 2).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_while_other_threads_use_the_pool(count, threads):
    threads(3)
    stop = threading.Event()
    busy = np.zeros(1000, np.int64)

    def work():
        while not stop.is_set():
            count(busy)

    caller = threading.Thread(target=work)
    caller.start()
    try:
        for _ in range(20):
            x = np.zeros(50, np.int64)
            assert (
                _in_child(lambda x=x: [count(x) for _ in range(20)] and int((x != 20).any())) == 0
            )
    finally:
        stop.set()
        caller.join()


def test_number_of_threads_is_checked(threads):
    with pytest.raises(RuntimeError, match="positive"):
        threads(0)
    with pytest.raises(TypeError, match="int"):
        threads(2.0)


def test_default_follows_affinity():
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


def test_neighbours_run_on_one_thread(threads):
    """Each thread begins with its own share of the tasks, in order, and helps only after it."""
    threads(2)
    caller, ran, turn = threading.get_ident(), [], threading.Lock()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    def task(_, i):
        with turn:
            ran.append((threading.get_ident() == caller, i))
        time.sleep(1e-3)  # so that there is time for both

    run = ctypes.CFUNCTYPE(None, type(task), ctypes.c_void_p, ctypes.c_int64)
    for _ in range(3):
        ran.clear()
        run(runtime.pool().address["gt_parallel_for"])(task, None, 65)
        assert sorted(i for _, i in ran) == list(range(65))
        for mine, own in ((True, range(32)), (False, range(32, 65))):
            order = [i for by_caller, i in ran if by_caller is mine]
            at_home = [i for i in order if i in own]
            assert at_home == sorted(at_home)
            assert order[: len(at_home)] == at_home
        assert ran[0] in ((True, 0), (False, 32))
