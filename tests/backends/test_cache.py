"""The object cache: right results whatever happens to its folder, and at most one warning."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from graphtorch.backends import Buffer, cache, compile
from graphtorch.backends.llvm import build
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Location, Type, Value, located

PROGRAM = textwrap.dedent("""
    import sys, warnings
    warnings.simplefilter("always")
    import numpy as np
    from graphtorch.backends import Buffer, compile
    from graphtorch.ir import ops
    from graphtorch.ir.dtype import f32
    from graphtorch.ir.graph import Graph, Type, Value
    x = Value(Type(f32, (64, 64)), name="x")
    run = compile(Graph("g", [x], [ops.softmax(ops.matmul(x, ops.exp(x)), dim=1)]))
    a = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
    y = run([Buffer.of(a)])[0].numpy()
    z = a.astype(np.float64) @ np.exp(a.astype(np.float64))
    e = np.exp(z - z.max(1, keepdims=True))
    assert np.abs(y - e / e.sum(1, keepdims=True)).max() < 1e-5
    print("compiled" if "graphtorch.backends.llvm.build" in sys.modules else "loaded")
""")


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def heed_permissions() -> None:
    """In a child about to be executed: even root may not write where the mode forbids it
    (prctl(2))."""
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError("the capability to ignore permissions cannot be dropped")


def start(**environment: str | None) -> subprocess.Popen:
    env = {**os.environ, **{k: v for k, v in environment.items() if v is not None}}
    for name in [k for k, v in environment.items() if v is None]:
        env.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_permissions,
    )


def finish(process: subprocess.Popen) -> tuple[str, int]:
    """What the program says it did, and the number of warnings."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip(), err.count("RuntimeWarning")


def graph(size: int, line: int = 1) -> Graph:
    x = Value(Type(f32, (size,)), name="x")
    with located(Location("user.py", line)):
        return Graph("g", [x], [ops.exp(x)])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHTORCH_DEBUG", raising=False)
    monkeypatch.setattr(cache, "_stores", 0)
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch) -> list[str]:
    """Names of the graphs that were really compiled."""
    made: list[str] = []
    plain = build.build
    monkeypatch.setattr(build, "build", lambda g, *rest: (made.append(g.name), plain(g, *rest))[1])
    return made


def test_a_second_compile_takes_the_entry(folder, builds):
    for line in (1, 2):  # where the user's code stands makes no difference
        run = compile(graph(5, line))
        assert run([Buffer.of(np.zeros(5, np.float32))])[0].numpy().tolist() == [1] * 5
    assert builds == ["g"] and "exp" in run.explain()
    compile(graph(6))
    compile(graph(6), stable=(0,))
    assert len(builds) == 3
    assert folder.stat().st_mode & 0o777 == 0o700


def test_lines_count_where_errors_name_them():
    from graphtorch.backends.llvm.compiler import cache_text
    from graphtorch.ir.dtype import i64

    texts = []
    for line in (3, 4):
        x, i = Value(Type(f32, (5,)), name="x"), Value(Type(i64, (2,)), name="i")
        with located(Location("user.py", line)):
            texts.append(cache_text(Graph("g", [x, i], [ops.index_select(x, i, dim=0)])))
    assert texts[0] != texts[1]


def test_damaged_entries_are_made_anew(folder, builds):
    compile(graph(7))
    for path in list(folder.glob("*.gto")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    run = compile(graph(7))
    assert builds == ["g", "g"] and run([Buffer.of(np.zeros(7, np.float32))])[0].numpy()[0] == 1
    del run  # a program in use would be taken instead of its entry
    for path in list(folder.glob("*.gto")):
        path.write_bytes(path.read_bytes()[:20])
    compile(graph(7))
    compile(graph(7))
    assert len(builds) == 3


def two_programs(folder: Path) -> list[set[Path]]:
    """The entries of two programs of one size: exp, and its negative."""
    entries, x = [], Value(Type(f32, (11,)), name="x")
    for made in (ops.exp, ops.neg):
        before = set(folder.glob("*.gto"))
        compile(Graph("g", [x], [made(x)]))
        entries.append(set(folder.glob("*.gto")) - before)
    return entries


def results() -> list[float]:
    x = Value(Type(f32, (11,)), name="x")
    return [
        float(
            compile(Graph("g", [x], [made(x)]))([Buffer.of(np.ones(11, np.float32))])[0].numpy()[0]
        )
        for made in (ops.exp, ops.neg)
    ]


def test_exchanged_entries_are_made_anew(folder, builds):
    first, second = two_programs(folder)
    assert len(builds) == 2
    for one in first:
        for other in second:
            mine, theirs = one.read_bytes(), other.read_bytes()
            one.write_bytes(theirs)
            other.write_bytes(mine)
            assert results() == pytest.approx([np.e, -1.0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_what_is_no_file_is_not_waited_for(folder, make):
    for path in set.union(*two_programs(folder)):
        path.unlink()
        getattr(os, make)(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a folder in an entry's place cannot be replaced
        assert results() == pytest.approx([np.e, -1.0])


def test_entries_of_another_version_are_made_anew(folder, builds, monkeypatch):
    name = "0" * 64
    cache.store(name, {"version": "this"}, b"code")
    assert cache.load(name) == ({"version": "this"}, b"code")
    monkeypatch.setattr(cache, "sources_digest", lambda: "other sources")
    assert cache.load(name) is None and not (folder / f"{name}.gto").exists()


def test_the_folder_stays_below_its_limit(folder, monkeypatch):
    monkeypatch.setenv("GRAPHTORCH_CACHE_MB", "1")
    for i in range(3):
        cache.store(f"old{i}", {}, bytes(400_000))
        os.utime(folder / f"old{i}.gto", (i, i))
    monkeypatch.setattr(cache, "_stores", cache.EVICT_EVERY - 1)
    cache.store("new", {}, bytes(300_000))
    assert sorted(p.stem for p in folder.glob("*.gto")) == ["new", "old2"]


def test_eight_processes_and_one_killed(tmp_path):
    where = str(tmp_path / "cache")
    processes = [start(GRAPHTORCH_CACHE=where) for _ in range(8)]
    victim = start(GRAPHTORCH_CACHE=where)
    victim.kill()
    assert {finish(p)[1] for p in processes} == {0}
    victim.communicate()
    assert finish(start(GRAPHTORCH_CACHE=where)) == ("loaded", 0)


def test_no_home():
    assert finish(start(GRAPHTORCH_CACHE=None, XDG_CACHE_HOME=None, HOME=None)) == ("compiled", 1)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert finish(start(GRAPHTORCH_CACHE=str(tmp_path / "file" / "cache"))) == ("compiled", 1)


def test_read_only_folder(tmp_path):
    where = tmp_path / "cache"
    where.mkdir(mode=0o500)
    assert finish(start(GRAPHTORCH_CACHE=str(where))) == ("compiled", 1)
    assert not list(where.iterdir())


def test_a_folder_others_may_write_is_not_trusted(tmp_path):
    where = tmp_path / "cache"
    where.mkdir()
    where.chmod(0o777)
    assert finish(start(GRAPHTORCH_CACHE=str(where))) == ("compiled", 1)
    assert not list(where.iterdir())


def test_switched_off(tmp_path):
    assert finish(start(GRAPHTORCH_CACHE="off", XDG_CACHE_HOME=str(tmp_path))) == ("compiled", 0)
    assert not list(tmp_path.iterdir())


def test_writing_that_fails_costs_one_warning(folder, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(cache, "_write", refuse)
    with pytest.warns(RuntimeWarning, match="Read-only") as caught:
        compile(graph(9))
        compile(graph(10))
    assert len(caught) == 1


FAILING = textwrap.dedent("""\
    import graphtorch as torch
    i, w = torch.tensor([0, 9]), torch.ones(3, 3)
    for function in (
        lambda: w.exp()[i + 0] * 2,
        lambda: (w * 3).gather(0, i[:, None] + 0),
        lambda: torch.linalg.inv((w + i.sum() - i.sum()) * 2),
        lambda: torch.linalg.cholesky(-w * 2 - i.sum()),
        lambda: torch.bernoulli(w * 3 + i.sum()),
        lambda: i // (i - i),
    ):
        compiled = torch.compile(function)
        for call in (function, compiled, compiled):
            try:
                call().sum().item()
            except Exception as error:
                print(str(error).rsplit(":", 1)[1].rstrip(")"))
    """)


def test_failures_of_programs_from_the_cache_name_the_script_that_runs(tmp_path: Path) -> None:
    """Two scripts with the same functions at other lines share a cache."""
    env = {**os.environ, "GRAPHTORCH_CACHE": str(tmp_path / "cache")}
    for _ in range(2):  # written, then read
        for above in (0, 5):
            script = tmp_path / f"script{above}.py"
            script.write_text("\n" * above + FAILING)
            run = subprocess.run(
                [sys.executable, str(script)], env=env, text=True, capture_output=True
            )
            lines = [str(line + above) for line in range(4, 10) for _ in range(3)]
            assert run.stdout.split() == lines, run.stderr
