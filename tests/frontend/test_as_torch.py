"""graphtorch under the name torch: the import hook, and ``python -m graphtorch``."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from graphtorch import cli
from graphtorch._torch import absent


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def graphtorch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "graphtorch", *arguments, cwd=folder)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_modules_are_the_same_objects_and_absent_names_are_explained() -> None:
    program = """
        import graphtorch, pickle
        graphtorch.install_as_torch()
        graphtorch.install_as_torch()
        import torch, torch.nn as nn, torch.nn.functional as F, torch.utils.data as data, torch.cuda
        import torch.optim.lr_scheduler, torch.nn.modules.fold, torch.onnx
        import torch.distributions as D
        from torch.distributions.categorical import Categorical
        from torch.optim import Adam
        assert D is graphtorch.distributions and D.Categorical is Categorical
        assert torch is graphtorch and F is graphtorch.nn.functional
        assert data is graphtorch.utils.data
        assert torch.nn.modules.fold.Fold is graphtorch.nn.Fold and torch.onnx is graphtorch.onnx
        assert torch.nn.__spec__.name == "graphtorch.nn"
        assert tuple(map(int, torch.__version__.split("+")[0].split("."))) >= (2, 13)
        assert type(pickle.loads(pickle.dumps(nn.ReLU()))) is nn.ReLU
        assert not hasattr(torch, "linspac") and not hasattr(torch.nn, "Lineer")

        def refused(statement, kind, *words):
            try:
                exec(statement, {"torch": torch})
            except kind as error:
                assert all(w in str(error) for w in words), error
            else:
                raise AssertionError(statement)

        refused("from torch import linspac", ImportError, "torch.linspac", "linspace")
        refused("import torch.nnn", ModuleNotFoundError, "torch.nnn", "nn")
        refused("from torch.nn.init import xavier_norm", ImportError, "xavier_normal_")
        refused("from torch.nn import Lineer", ImportError, "Linear")
        refused("torch.nn.Lineer", AttributeError, "Lineer", "Linear")
        refused("torch.optim.adamw", AttributeError, "adamw", "AdamW")
    """
    done = python("-c", textwrap.dedent(program))
    assert done.returncode == 0, done.stderr


def test_refused_when_torch_is_imported_already() -> None:
    program = (
        "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"
        "import graphtorch\ngraphtorch.install_as_torch()"
    )
    done = python("-c", program)
    assert done.returncode == 1
    assert "RuntimeError: install_as_torch(): 'torch' is already imported" in done.stderr


def test_a_script_runs_as_python_runs_it(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        "app/main.py",
        """
        import pickle, sys
        import helper, torch
        class Own: pass
        assert type(pickle.loads(pickle.dumps(Own()))) is Own
        assert sys.modules["__main__"].Own is Own and __file__ == sys.argv[0]
        print(__name__, sys.argv[1:], sys.path[0] == helper.folder, torch.ones(2).sum().item())
        sys.exit(7)
    """,
    )
    write(tmp_path, "app/helper.py", "import os, torch\nfolder = os.path.dirname(__file__)\n")
    done = graphtorch(tmp_path, "run", script, "--lr", "-m", "3")
    assert (done.returncode, done.stdout, done.stderr) == (
        7,
        "__main__ ['--lr', '-m', '3'] True 2.0\n",
        "",
    )


def test_a_module_runs_as_python_runs_it(tmp_path: Path) -> None:
    write(tmp_path, "app/__init__.py", "")
    write(
        tmp_path,
        "app/train.py",
        """
        import sys, torch
        from . import __name__ as package
        print(__name__, package, sys.argv[1:], torch.__version__[:4])
    """,
    )
    done = graphtorch(tmp_path, "run", "-m", "app.train", "--steps", "3")
    assert (done.stdout, done.stderr) == ("__main__ app ['--steps', '3'] 2.13\n", "")


FAILING = """
    import torch
    def step(x):
        return torch.nn.functional.linear(x, torch.ones(3, 4))
    try:
        step(torch.ones(5))
    except RuntimeError as error:
        raise ValueError("no step") from error
"""


def test_errors_show_the_programs_lines(tmp_path: Path) -> None:
    script = write(tmp_path, "fail.py", FAILING)
    done = graphtorch(tmp_path, "run", script)
    shown = [line for line in done.stderr.splitlines() if line.startswith("  File")]
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: no step")
    assert shown == [
        f'  File "{script}", line {n}, in {where}'
        for n, where in ((6, "<module>"), (4, "step"), (8, "<module>"))
    ]
    full = graphtorch(tmp_path, "run", "--full-traceback", script).stderr
    assert "functional" in full and "scripts.py" not in full


def test_commands_that_make_no_sense_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "run a program" in capsys.readouterr().out
    for arguments in (["run"], ["run", "absent.py"], ["walk"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
    assert "invalid choice: 'walk'" in capsys.readouterr().err
    assert cli.main(["info"]) == 0
    assert "vectors" in capsys.readouterr().out


def test_nearest_names() -> None:
    assert absent.nearest("relu7", ["relu6", "ReLU6", "_relu7"]) == "; the nearest are relu6, ReLU6"
    assert absent.nearest("LSTMCELL", ["LSTMCell", "tan"]) == "; the nearest are LSTMCell"
    assert absent.nearest("zzz", ["LSTMCell"]) == ""
