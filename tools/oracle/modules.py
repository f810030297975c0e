"""Replays PyTorch's own module samples on graphtorch: outputs, gradients, running statistics, and
errors.

    python tools/oracle/modules.py                     float32, in training and in evaluation mode
    python tools/oracle/modules.py --dtype float64
    python tools/oracle/modules.py --module nn.GRU -v  one class, every failing sample
    python tools/oracle/modules.py --compiled          each module compiled, and called three times
    python tools/oracle/modules.py --device cuda       on a GPU (GRAPHTORCH_CUDA=emulated: on the
                                                       emulated one, slowly); --every 9: one class
                                                       in 9, --most 2: two samples of each

Weights are PyTorch's, copied over by ``state_dict``. Every sample that differs is listed with the
reason. Needs ``pip install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import itertools
import types
import warnings
from typing import Any

import numpy as np
import torch
from conversion import (
    Place,
    brief,
    difference,
    elements,
    module_of,
    ours,
    tensors,
    to_array,
    use,
)
from opinfo import Tally
from torch.testing._internal.common_modules import module_db

import graphtorch

TOLERANCE = {"float32": (1e-3, 1e-4), "float64": (1e-7, 1e-8)}
RANDOM = (
    "nn.Dropout",
    "nn.AlphaDropout",
    "nn.FeatureAlphaDropout",
    "nn.RReLU",
    "nn.FractionalMaxPool",
)


def converted(x: Any, leaves: list[Any] | None = None) -> Any:
    """An argument for graphtorch; modules and functions of PyTorch become ours of the same name."""
    if isinstance(x, torch.nn.TransformerEncoderLayer):
        made = graphtorch.nn.TransformerEncoderLayer(
            x.self_attn.embed_dim,
            x.self_attn.num_heads,
            x.linear1.out_features,
            x.dropout.p,
            converted(x.activation),
            x.norm1.eps,
            x.self_attn.batch_first,
            x.norm_first,
            x.linear1.bias is not None,
        )
        return made
    if isinstance(x, torch.nn.Module):
        return module_of(x)
    if isinstance(x, (types.FunctionType, types.BuiltinFunctionType)):
        return getattr(graphtorch.nn.functional, x.__name__, x)
    if type(x) in (list, tuple):
        return type(x)(converted(v, leaves) for v in x)
    if isinstance(x, dict):
        return {k: converted(v, leaves) for k, v in x.items()}
    return ours(x, leaves)


def leaves_of(x: Any) -> Any:
    """The same arguments, tensors that require grad made leaves."""
    if isinstance(x, torch.Tensor):
        return x.detach().requires_grad_() if x.requires_grad and not x.is_leaf else x
    if type(x) in (list, tuple):
        return type(x)(leaves_of(v) for v in x)
    return {k: leaves_of(v) for k, v in x.items()} if isinstance(x, dict) else x


class Replay:
    """All samples of one class, at one dtype and in one mode."""

    def __init__(
        self,
        info: Any,
        dtype: torch.dtype,
        training: bool,
        tally: Tally,
        shown: bool,
        compiled: bool = False,
        most: int | None = None,
    ):
        self.compiled, self.most = compiled, most
        self.info, self.dtype, self.training, self.tally, self.shown = (
            info,
            dtype,
            training,
            tally,
            shown,
        )
        self.tolerance = TOLERANCE[str(dtype).split(".")[1]]
        self.cls: Any = graphtorch
        for part in info.name.split("."):
            self.cls = getattr(self.cls, part, None)

    def run(self) -> None:
        if self.cls is None:
            self.tally.counts["no such name"] += 1
            print(f"  no such name: {self.info.name}")
            return
        torch.manual_seed(0)
        samples = self.info.module_inputs_func(
            self.info, device="cpu", dtype=self.dtype, requires_grad=True, training=self.training
        )
        called = (sample for sample in samples if sample.forward_input is not None)
        for sample in itertools.islice(called, self.most):
            self.sample(sample)

    def sample(self, sample: Any) -> None:
        given = sample.constructor_input
        if "_random_samples" in given.kwargs:
            self.tally.counts["random"] += 1  # its own random numbers, in a dtype of PyTorch's
            return
        args, kwargs = (
            leaves_of(tuple(sample.forward_input.args)),
            leaves_of(sample.forward_input.kwargs),
        )
        theirs = (
            self.info.module_cls(*given.args, **given.kwargs).to(self.dtype).train(self.training)
        )
        if self.info.is_lazy:
            with torch.no_grad():
                theirs(*args, **kwargs)
        state = {k: v.clone() for k, v in theirs.state_dict().items()}
        mine, leaves, result = None, [], None
        wanted = theirs(*args, **kwargs)
        try:
            mine = self.built(given, state, args, kwargs)
            if self.compiled:
                run = self.repeated(mine, state, args, kwargs)
                self.tally.counts["replayed"] += run.recorded > 0
            else:
                run = mine
            leaves = []
            result = run(*converted(args, leaves), **converted(kwargs, leaves))
            wrong = self.compare(result, wanted) or self.statistics(mine, theirs)
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        self.note("forward", wrong, sample)
        if wrong is None:
            self.gradients(sample, theirs, mine, (args, kwargs), leaves, wanted, result)

    def built(self, given: Any, state: dict[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
        mine = self.cls(*converted(given.args), **converted(given.kwargs))
        mine = mine.to(Place.name, getattr(graphtorch, str(self.dtype).split(".")[1])).train(
            self.training
        )
        if self.info.is_lazy:
            mine(*converted(args), **converted(kwargs))
        self.loaded(mine, state)
        return mine

    def loaded(self, mine: Any, state: dict[str, torch.Tensor]) -> None:
        mine.load_state_dict({k: graphtorch.tensor(v.numpy()) for k, v in state.items()})

    def repeated(self, mine: Any, state: dict[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
        """The module compiled, after two calls; what they did to its buffers is undone."""
        run = graphtorch.compile(mine)
        for _ in range(2):
            run(*converted(args), **converted(kwargs))
            self.loaded(mine, state)
        return run

    def compare(self, result: Any, wanted: Any) -> str | None:
        got, expected = tensors(result, graphtorch.Tensor), tensors(wanted)
        if len(got) != len(expected):
            return f"{len(got)} results instead of {len(expected)}"
        if self.training and self.info.name.startswith(RANDOM):
            same = all(tuple(g.shape) == tuple(w.shape) for g, w in zip(got, expected, strict=True))
            return None if same else "another shape"
        pairs = zip(map(elements, got), map(to_array, expected), strict=True)
        return next((d for g, w in pairs if (d := difference(g, w, self.tolerance))), None)

    def statistics(self, mine: Any, theirs: torch.nn.Module) -> str | None:
        """Buffers after the call."""
        for name, buffer in theirs.named_buffers():
            wrong = difference(elements(mine.get_buffer(name)), to_array(buffer), self.tolerance)
            if wrong:
                return f"{name}: {wrong}"
        return None

    def gradients(
        self,
        sample: Any,
        theirs: Any,
        mine: Any,
        given: Any,
        leaves: list[Any],
        wanted: Any,
        result: Any,
    ) -> None:
        outs = [t for t in tensors(wanted) if t.requires_grad]
        inputs = [t for t in tensors(given) if t.requires_grad and t.is_leaf]
        if not outs or (self.training and self.info.name.startswith(RANDOM)):
            return
        seeds = [torch.randn_like(o) for o in outs]
        wrt = [*inputs, *(p for p in theirs.parameters() if p.requires_grad)]
        if not wrt:
            return
        expected = torch.autograd.grad(outs, wrt, seeds, allow_unused=True)
        try:
            made = [t for t in tensors(result, graphtorch.Tensor) if t.requires_grad]
            own = [*leaves, *(p for p in mine.parameters() if p.requires_grad)]
            found = graphtorch.autograd.grad(made, own, [ours(s) for s in seeds], allow_unused=True)
            wrong = self.differ(found, expected)
        except Exception as error:
            wrong = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        self.note("gradient", wrong, sample)

    def differ(self, found: Any, expected: Any) -> str | None:
        if len(found) != len(expected):
            return f"{len(found)} gradients instead of {len(expected)}"
        for g, w in zip(found, expected, strict=True):
            if w is None or g is None:
                if (w is not None and w.any()) or (g is not None and np.any(elements(g))):
                    return "a gradient is missing, or one too many"
                continue
            wrong = difference(
                elements(g), to_array(w), (self.tolerance[0], 10 * self.tolerance[1])
            )
            if wrong:
                return wrong
        return None

    def note(self, kind: str, wrong: str | None, sample: Any) -> None:
        self.tally.note(kind, f"{self.info.name} {'train' if self.training else 'eval'}", wrong)
        if wrong is not None and self.shown:
            given = sample.constructor_input
            print(f"    {self.info.name}{brief(given.args)} {brief(given.kwargs)}: {kind}: {wrong}")


def errors(info: Any, tally: Tally, shown: bool) -> None:
    """Wrong constructor arguments and inputs: the exception type is PyTorch's."""
    cls: Any = graphtorch
    for part in info.name.split("."):
        cls = getattr(cls, part, None)
    if info.module_error_inputs_func is None or cls is None:
        return
    for one in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    ):
        sample = one.module_error_input
        given, forward = sample.constructor_input, sample.forward_input
        got = "nothing"
        try:
            module = cls(*converted(given.args), **converted(given.kwargs)).to(Place.name)
            if forward is not None:
                elements(
                    tensors(
                        module(*converted(forward.args), **converted(forward.kwargs)),
                        graphtorch.Tensor,
                    )[0]
                )
        except Exception as error:
            got = type(error).__name__
        wanted = one.error_type.__name__
        same = got == wanted
        tally.note("error", info.name, None if same else f"{got} instead of {wanted}")
        if shown and not same:
            print(f"    {info.name}{brief(given.args)}: {got} instead of {wanted}")


def modes(info: Any) -> tuple[bool, ...]:
    """Training and eval mode, where a class knows them apart."""
    return (True, False) if info.train_and_eval_differ else (True,)


def replay(
    dtype: torch.dtype,
    only: str | None = None,
    shown: bool = False,
    every: int = 1,
    compiled: bool = False,
    most: int | None = None,
) -> Tally:
    """All classes (or each `every`-th) at one dtype."""
    tally = Tally()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for info in [i for i in module_db if only in (None, i.name)][::every]:
            for training in modes(info):
                Replay(info, dtype, training, tally, shown, compiled, most).run()
            errors(info, tally, shown)
    finally:
        torch.set_default_dtype(before)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--module", help="one class, such as nn.GRU")
    parser.add_argument("--dtype", default="float32", choices=sorted(TOLERANCE))
    parser.add_argument("--compiled", action="store_true", help="each module compiled")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="where our tensors are"
    )
    parser.add_argument("--every", type=int, default=1, help="one class in so many")
    parser.add_argument("--most", type=int, help="samples of each class in each mode")
    parser.add_argument("-v", action="store_true", help="the arguments of each sample that differs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    use(given.device)
    dtype = getattr(torch, given.dtype)
    tally = replay(dtype, given.module, given.v, given.every, given.compiled, given.most)
    tally.report()
    total, same = tally.counts["error"], tally.counts["error equal"]
    if given.compiled:
        print(f"  compiled modules that were replayed: {tally.counts['replayed']}")
    print(f"  errors: {same} of {total} of the same type")


if __name__ == "__main__":
    main()
