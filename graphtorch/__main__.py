"""``python -m graphtorch``: run programs written for PyTorch, and say what is installed."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
