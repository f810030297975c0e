"""Python's cyclic garbage collector, set for programs that record graphs."""

from __future__ import annotations

import gc

# objects made since the last collection of the youngest before the next; Python waits for 700
YOUNG = 20_000
OLDER = 20  # collections of a generation before one of the next; Python has 10


def suit_recording() -> None:
    """Let the collector run less often, unless the program chose how often itself.

    An operation recorded with its gradient is some twenty small objects, which live until the graph
    has run: at Python's own thresholds a fifth of a plain loop's time goes into walking over them
    again
    and again. They are freed by reference counts; only cycles wait. What was imported until now is
    no longer walked over at all.
    """
    young, *older = gc.get_threshold()
    if 0 < young <= 2000 and older[0] == 10:  # as Python starts: 700, or 2000 from 3.12 on
        gc.set_threshold(YOUNG, OLDER, *older[1:])
    gc.freeze()
