"""`explain`: how a function is compiled, in figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._captured.compile import compile
from .._torch.dataclass import dataclass, field


@dataclass
class ExplainOutput:
    """What compiling a function for some arguments led to: its graphs, and why calls run line by
    line."""

    graphs: list[Any]
    graph_count: int
    graph_break_count: int
    break_reasons: list[Any]
    op_count: int
    ops_per_graph: list[list[Any]] = field(default_factory=list)
    out_guards: list[Any] = field(default_factory=list)
    compile_times: str = ""
    text: str = ""

    def __str__(self) -> str:
        return (
            f"Graph Count: {self.graph_count}\nGraph Break Count: {self.graph_break_count}\n"
            f"Op Count: {self.op_count}\nBreak Reasons:\n"
            + "".join(f"  {reason}\n" for reason in self.break_reasons)
            + self.text
        )


def explain(f: Callable[..., Any], *extra_args: Any, **extra_kwargs: Any) -> Any:
    """``explain(f)(*args)``: an `ExplainOutput` of one call of `f`, which runs."""

    def inner(*args: Any, **kwargs: Any) -> ExplainOutput:
        made = compile(f)
        made(*args, **kwargs)
        graphs, text = made.graphs, made.explain()
        mark = "runs line by line: "
        reasons = [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]
        ops = [[n.op.name for n in g.nodes] for g in graphs]
        return ExplainOutput(
            graphs, len(graphs), len(reasons), reasons, sum(map(len, ops)), ops, text=text
        )

    return inner(*extra_args, **extra_kwargs) if extra_args or extra_kwargs else inner
