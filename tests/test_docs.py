"""What the documents say is so: their code runs, what they show is what it prints, links lead
somewhere."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#]+)\)")

sys.path.insert(0, str(ROOT / "tools"))
docs = importlib.import_module("docs")
sys.path.remove(str(ROOT / "tools"))


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FRESH = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import docs
pages = [docs.current(Path(page)) for page in sys.argv[3:]]
json.dump(pages, open(sys.argv[2], "w", encoding="utf-8"))
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """What pages should say, by a fresh process: readers have no other, and tests leave traces in
    theirs."""
    every = [docs.OPS_PAGE, docs.SURFACE_PAGE, *docs.PAGES]
    found = tmp_path_factory.mktemp("pages") / "pages.json"
    subprocess.run(
        [sys.executable, "-c", FRESH, str(ROOT / "tools"), str(found), *map(str, every)],
        cwd=ROOT,
        check=True,
    )
    return dict(zip(every, json.loads(found.read_text(encoding="utf-8")), strict=True))


@pytest.mark.parametrize("path", [docs.OPS_PAGE, docs.SURFACE_PAGE, *docs.PAGES], ids=page_id)
def test_page_is_current(path: Path, pages: dict[Path, str]) -> None:
    message = f"{path.name} is out of date: run python3 tools/docs.py"
    assert pages[path] == path.read_text(encoding="utf-8"), message


@pytest.mark.parametrize("path", [*docs.PAGES, ROOT / "examples" / "README.md"], ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = LINK.findall(prose)
    assert [t for t in targets if "://" not in t and not (path.parent / t).exists()] == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_c_program_and_commands_of_the_aot_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "aot.md").read_text(encoding="utf-8")
    docs.run_page(page)
    (program,) = re.findall(r"^```c\n(.*?)^```$", page, re.M | re.S)
    (tmp_path / "main.c").write_text(program)
    commands = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
    printed = [
        subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=True).stdout
        for command in commands
    ]
    assert len(printed) == 2 and printed[0] == printed[1]
    assert "5: tiny_run: input 0 (" in printed[0] and "dimension 1 is 5, expected 4" in printed[0]


def test_error_codes_of_the_aot_page() -> None:
    from graphtorch.aot.header import ERROR_CODES

    page = (ROOT / "docs" / "aot.md").read_text(encoding="utf-8")
    listed = {
        name: int(code) for code, name in re.findall(r"^\| (\d+) \| `GT_(\w+)` \|", page, re.M)
    }
    assert listed == {name: code for name, (code, _) in ERROR_CODES.items()}


def test_both_readmes_show_the_same_code() -> None:
    code = re.compile(r"^```\w+\n.*?^```$", re.M | re.S)
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
    english, chinese = (re.sub(r" +#.*", "", "\n".join(code.findall(t))) for t in texts)
    assert english == chinese
