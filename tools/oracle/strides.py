"""Compares where results lie in memory: the strides of PyTorch's operator samples, on PyTorch and
here.

    python tools/oracle/strides.py                      float32, every entry that graphtorch has
    python tools/oracle/strides.py --op nn.functional.gelu -v

Each sample is called as it is, and with every tensor's dimensions in the reverse order in memory;
its tensors of four dimensions with their channels last as well. Strides of sizes 0 and 1 do not
count. Nothing is computed here: strides are known before. Needs ``pip install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import opinfo
import torch
from conversion import brief, ours, tensors

import graphtorch


def reversed_order(x: Any) -> Any:
    """The same elements, the first dimension the fastest."""
    if not isinstance(x, torch.Tensor) or x.layout is not torch.strided or x.ndim < 2:
        return x
    dims = tuple(reversed(range(x.ndim)))
    turned = x.detach().permute(dims).contiguous().permute(dims)
    return turned.requires_grad_(x.requires_grad)


def channels_last(x: Any) -> Any:
    """The same elements, tensors of four dimensions with dim 1 the fastest."""
    if not isinstance(x, torch.Tensor) or x.layout is not torch.strided or x.ndim != 4:
        return x
    return x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(x.requires_grad)


ORDERS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "reversed": reversed_order,
    "channels last": channels_last,
}


def seen(x: Any) -> tuple[Any, ...]:
    """The strides of a tensor that can be seen."""
    return (
        tuple([s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1])
        if 0 not in x.shape
        else ()
    )


class Strides(opinfo.Replay):
    """One entry: whether results lie in memory as PyTorch's."""

    def run(self) -> None:
        if self.function is not None and not self.op.name.startswith(opinfo.UNINITIALISED):
            for sample in self.samples():
                for name, order in ORDERS.items():
                    self.strides(name, sample.transform(order))

    def strides(self, order: str, sample: Any) -> None:
        args = (sample.input, *sample.args)
        try:
            theirs = [
                t for t in tensors(self.op(*args, **sample.kwargs)) if t.layout is torch.strided
            ]
        except Exception:
            return
        if theirs:
            wrong = self.caught(lambda: self.beside(args, sample.kwargs, theirs))
            self.tally.note(f"strides {order}", self.op.full_name, wrong)
            if wrong is not None and self.shown:
                print(f"    {self.op.full_name} {brief(args)} {brief(sample.kwargs)}: {wrong}")

    def beside(self, args: Any, kwargs: Any, theirs: list[torch.Tensor]) -> str | None:
        result = self.function(*ours(args), **ours(kwargs))
        got = [t for t in tensors(result, graphtorch.Tensor) if not t.is_sparse]
        for mine, other in zip(got, theirs, strict=True):
            if tuple(mine.shape) == tuple(other.shape) and seen(mine) != seen(other):
                return (
                    f"{tuple(mine.stride())} instead of {other.stride()} for {tuple(other.shape)}"
                )
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--op", help="one entry of the database")
    parser.add_argument("--dtype", default="float32", help="a dtype's name")
    parser.add_argument("-v", action="store_true", help="the arguments of each sample that differs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tally = opinfo.replay(getattr(torch, given.dtype), given.op, None, False, given.v, Strides)
    for name in ORDERS:
        kind = f"strides {name}"
        print(f"  {kind}: {tally.counts[kind + ' equal']} of {tally.counts[kind]} samples equal")
    for entry, reasons in sorted(tally.reasons.items()):
        print(f"    {entry}: {sum(reasons.values())}, as {next(iter(reasons))}")


if __name__ == "__main__":
    main()
