"""Benchmarks, each against a named peer or a measured limit in the same run.

python tools/bench                 list them
python tools/bench overhead        run one (or several)
python tools/bench programs -h     what follows the name of one and names none is its own
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    # none hides Python's `random`
    modules = {p.stem.rstrip("_"): p.stem for p in FOLDER.glob("[a-z]*.py")}
    names = sorted(modules)
    given = sys.argv[1:]
    if not given or given[0] not in names:
        raise SystemExit(
            "usage: python tools/bench NAME ...   with NAME one of " + ", ".join(names)
        )
    chosen, arguments = (given, []) if set(given) <= set(names) else (given[:1], given[1:])
    sys.path.insert(0, str(FOLDER))
    for name in chosen:
        print(f"== {name}")
        sys.argv[1:] = arguments
        importlib.import_module(modules[name]).main()


if __name__ == "__main__":
    main()
