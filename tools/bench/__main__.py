"""Benchmarks, each against a named peer or a measured limit in the same run.

    python tools/bench                 list them
    python tools/bench overhead        run one (or several)
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    names = sorted(p.stem for p in FOLDER.glob("[a-z]*.py"))
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= set(names):
        raise SystemExit("usage: python tools/bench NAME ...   with NAME one of " + ", ".join(names))
    sys.path.insert(0, str(FOLDER))
    for name in sys.argv[1:]:
        print(f"== {name}")
        importlib.import_module(name).main()


if __name__ == "__main__":
    main()
