"""What a defect of ours looks like to the user: the stage, the node, the line, and how to see
more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from .graph import Graph, Node
from .printer import node_line, value_names
from .verify import VerifyError

PASSED_ON = (NotImplementedError, MemoryError)  # what a stage says to the user on purpose


class InternalError(RuntimeError):
    """A stage of compilation failed: a defect of graphtorch, not of the user's code.

    Attributes:
        stage: the pass or step that failed.
        node: the node it worked on, where that is known.
    """

    def __init__(self, stage: str, graph: Graph, error: Exception, node: Node | None):
        lines = [f"{stage} of graph {graph.name} failed with {type(error).__name__}: {error}"]
        if node is not None:
            lines.append(f"  at  {node_line(node, value_names(graph))}")
        places = [
            n.location
            for n in ([node] if node is not None else graph.nodes)
            if n.location is not None
        ]
        if places:
            last = f" to {places[-1]}" if places[-1] != places[0] else ""
            lines.append(f"  recorded at {places[0]}{last}")
        super().__init__("\n".join([*lines, advice()]))
        self.stage, self.node = stage, node


@contextmanager
def stage(name: str, graph: Graph) -> Iterator[None]:
    """Failures inside become an `InternalError` of the stage `name`, which works on `graph`."""
    try:
        yield
    except (InternalError, *PASSED_ON):
        raise
    except VerifyError as error:  # it names stage, node and line itself
        error.add_note(advice())
        raise
    except Exception as error:
        raise InternalError(name, graph, error, _node_at_work(error.__traceback__)) from error


def advice() -> str:
    """The command that shows the graph at every stage."""
    import shlex  # of errors only

    command = " ".join(map(shlex.quote, sys.orig_argv)) or "python your_program.py"
    return (
        "This is a defect of graphtorch, please report it. To see the graph at every stage, run\n"
        f"  GRAPHTORCH_DEBUG=graph,passes {command} 2> graph.txt"
    )


def _node_at_work(traceback: TracebackType | None) -> Node | None:
    """The node in a variable of the innermost frame that has one: passes need not announce
    theirs."""
    found = None
    while traceback is not None:
        values = traceback.tb_frame.f_locals
        nodes = [v for v in (values.get("node"), *values.values()) if isinstance(v, Node)]
        found = nodes[0] if nodes else found
        traceback = traceback.tb_next
    return found
