#!/usr/bin/env python3
"""Random wrong calls over the surface: is what PyTorch refuses refused with the same exception
type?

    python3 tools/fuzz_errors.py [--count 5000] [--first 0] [--show 20]

Each call is one of the calls in `CALLS` with one to three arguments exchanged, left out or added.
PyTorch and graphtorch evaluate the same text in processes of their own, so that a crash or a hang
is one call's outcome. What is counted: of the calls where PyTorch raises those with the same type,
and of those that it takes those that are taken here.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure("oracle")

import argparse
import ast
import json
import random
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT = 20.0  # seconds that a call may take

# Tensors of a call, by names: letter for the dtype, digits for the sizes.
TENSORS = [
    "f",
    "f2",
    "f3",
    "f34",
    "f43",
    "f44",
    "f234",
    "f1234",
    "f22",
    "i",
    "i3",
    "i34",
    "b34",
    "c34",
    "d34",
    "h34",
    "e0",
    "z3",
    "g34",
]
# What takes the place of an argument.
POOL = [
    *TENSORS,
    "None",
    "'abc'",
    "''",
    "'mean'",
    "-7",
    "-1",
    "0",
    "1",
    "2",
    "7",
    "99",
    "1.5",
    "-0.5",
    "True",
    "False",
    "()",
    "[]",
    "(1,)",
    "[1, 2]",
    "(0, 0)",
    "(2, 3, 4)",
    "(-1, 99)",
    "[1.5]",
    "['a']",
    "{}",
    "{'a': 1}",
    "object()",
    "torch.float32",
    "torch.int64",
    "torch.strided",
    "float('nan')",
    "1j",
    "[f3, f3]",
    "[f34, f2]",
    "range(3)",
    "np.zeros(3)",
    "slice(None)",
    "Ellipsis",
    "lambda x: x",
]
KEYWORDS = [
    "dim",
    "keepdim",
    "dtype",
    "out",
    "reduction",
    "weight",
    "device",
    "size",
    "foo",
    "p",
    "mode",
    "input",
]

CALLS = """
torch.tensor([1.0, 2.0], dtype=torch.float32, requires_grad=True)
torch.as_tensor([1, 2], dtype=torch.float32)
torch.from_numpy(np.zeros(3))
torch.arange(0, 10, 2)
torch.arange(5, dtype=torch.float32)
torch.linspace(0, 1, 5)
torch.logspace(0, 2, 3, base=2.0)
torch.zeros(2, 3)
torch.zeros((2, 3), dtype=torch.int64)
torch.ones(2, 3, dtype=torch.float32)
torch.full((2, 3), 1.5)
torch.zeros_like(f34)
torch.ones_like(f34, dtype=torch.int64)
torch.full_like(f34, 2.0)
torch.rand(2, 3)
torch.randn((2, 3))
torch.randint(0, 5, (2, 3))
torch.randperm(5)
torch.normal(f3, 1.0)
torch.normal(0.0, 1.0, (2, 3))
torch.eye(3, 4)
torch.clone(f34)
torch.gather(f34, 1, i34)
torch.stack([f34, f34], dim=1)
torch.cat([f34, f34], dim=0)
torch.squeeze(f34, 0)
torch.unsqueeze(f34, 1)
torch.chunk(f34, 2, 1)
torch.split(f34, 2, dim=1)
torch.tensor_split(f34, 2, dim=1)
torch.transpose(f34, 0, 1)
torch.permute(f234, (2, 0, 1))
torch.t(f34)
torch.reshape(f34, (4, 3))
torch.flatten(f234, 1, 2)
torch.broadcast_to(f3, (2, 3))
torch.broadcast_tensors(f34, f)
torch.sin(f34)
torch.exp(f34)
torch.sigmoid(f34)
torch.sqrt(f34)
torch.relu(f34)
torch.add(f34, f34, alpha=2)
torch.sub(f34, 1)
torch.mul(f34, f34)
torch.div(f34, f34, rounding_mode='floor')
torch.pow(f34, 2)
torch.maximum(f34, f34)
torch.clamp(f34, min=-1, max=1)
torch.where(b34, f34, f34)
torch.eq(f34, f34)
torch.all(f34, dim=1)
torch.any(f34, dim=1, keepdim=True)
torch.sum(f34, dim=1, keepdim=True)
torch.sum(f34, dim=(0, 1), dtype=torch.float64)
torch.mean(f34, dim=1)
torch.prod(f34, dim=1)
torch.var(f34, dim=1, unbiased=False)
torch.std(f34, dim=0)
torch.norm(f34, 2, 1)
torch.max(f34, dim=1)
torch.max(f34, f34)
torch.min(f34, dim=1, keepdim=True)
torch.argmax(f34, dim=1)
torch.argmin(f34, dim=0, keepdim=True)
torch.amax(f34, dim=(0, 1))
torch.amin(f34, dim=1)
torch.topk(f34, 2, dim=1)
torch.sort(f34, dim=1, descending=True)
torch.argsort(f34, dim=1)
torch.median(f34, dim=1)
torch.cumsum(f34, dim=1)
torch.cumprod(f34, dim=1)
torch.searchsorted(f3, f34, right=True)
torch.matmul(f34, f43)
torch.mm(f34, f43)
torch.bmm(f234, f234.transpose(1, 2))
torch.mv(f34, f234[0, 0])
torch.dot(f3, f3)
torch.outer(f3, f2)
torch.addmm(f33, f34, f43)
torch.einsum('ij,jk->ik', f34, f43)
torch.tril(f34, 1)
torch.triu(f34)
torch.diag(f44)
torch.flip(f34, (0, 1))
torch.roll(f34, 1, 0)
torch.index_select(f34, 1, i3)
torch.masked_select(f34, b34)
torch.masked_fill(f34, b34, 1.0)
torch.nonzero(f34)
torch.unique(i34, return_counts=True)
torch.repeat_interleave(f34, 2, dim=1)
torch.tile(f34, (2, 1))
torch.bincount(i3)
torch.isnan(f34)
torch.allclose(f34, f34)
torch.equal(f34, f34)
torch.typename(f34)
torch.manual_seed(3)
torch.set_grad_enabled(True)
torch.device('cpu')
torch.Generator('cpu')
torch.Size([2, 3])
torch.finfo(torch.float32)
torch.linalg.vector_norm(f34, 2, dim=1)
torch.linalg.matrix_norm(f34, 'fro', dim=(0, 1))
torch.linalg.norm(f34, 2, dim=1)
f34.view(4, 3)
f34.reshape(2, -1)
f34.expand(2, 3, 4)
f3.expand_as(f43.t())
f34.permute(1, 0)
f34.transpose(0, 1)
f34.size(1)
f34.sum(1)
f34.mean(0, keepdim=True)
f34.to(torch.float64)
f34.type(torch.float64)
f34.item()
f.item()
f34.backward()
f34.clone().detach_()
f34.new_zeros((2, 3))
f34.new_full((2,), 1.5)
f34.new_tensor([1.0])
f34.clamp(min=0)
f34.softmax(dim=1)
f34.masked_fill(b34, 0.0)
f34.index_select(0, i3)
f34.scatter(1, i34, f34)
f34.scatter_add(1, i34, f34)
f34.gather(0, i34)
f34.repeat(2, 1)
f34.unfold(1, 2, 1)
f34.narrow(1, 0, 2)
f34.select(1, 0)
f34.clone().fill_(1.0)
f34.clone().zero_()
f34.clone().add_(f34)
f34.clone().mul_(2.0)
f34.clone().copy_(f34)
f34.clone().uniform_(0, 1)
f34.clone().normal_(0, 1)
f34.clone().index_fill_(1, i3, 0.0)
f34.requires_grad_(True)
f34.register_hook(lambda g: g)
f34[1, 2]
f34[i3]
f34[:, 1:3]
f34[b34]
f34.__add__(f34)
f34 + f34
f34 @ f43
f34 * 2
f34 - f34
f34 / 2
f34 ** 2
f34 < f34
-f34
len(f34)
int(f)
float(f)
F.relu(f34)
F.softmax(f34, dim=1)
F.log_softmax(f34, dim=1)
F.gelu(f34, approximate='none')
F.glu(f34, dim=1)
F.leaky_relu(f34, 0.1)
F.elu(f34, 1.0)
F.dropout(f34, 0.5, True)
F.linear(f34, f24, f2)
F.conv1d(f234, w233, f2)
F.conv2d(f1234, w2233, padding=1)
F.conv_transpose2d(f1234, w2233)
F.max_pool1d(f234, 2, 1)
F.max_pool2d(f1234, 2)
F.avg_pool2d(f1234, 2, 1)
F.adaptive_avg_pool2d(f1234, (2, 2))
F.one_hot(i3, 5)
F.unfold(f1234, 2)
F.fold(f84, (3, 3), 2)
F.batch_norm(f234, f3, f3.abs(), training=True)
F.instance_norm(f234)
F.layer_norm(f34, (4,))
F.group_norm(f1434, 2)
F.normalize(f34, p=2.0, dim=1)
F.pad(f34, (1, 1), 'constant', 0.0)
F.pad(f1234, (1, 1, 1, 1), 'reflect')
F.interpolate(f1234, scale_factor=2, mode='bilinear')
F.embedding(i34, f54)
F.mse_loss(f34, f34, reduction='mean')
F.l1_loss(f34, f34)
F.smooth_l1_loss(f34, f34, beta=1.0)
F.huber_loss(f34, f34, delta=1.0)
F.cross_entropy(f34, i3)
F.nll_loss(f34, i3, weight=None)
F.binary_cross_entropy(p34, p34)
F.binary_cross_entropy_with_logits(f34, p34)
F.kl_div(f34, p34, reduction='batchmean')
F.cosine_similarity(f34, f34, dim=1)
F.pairwise_distance(f34, f34)
F.triplet_margin_loss(f34, f34, f34)
F.scaled_dot_product_attention(f234, f234, f234)
nn.Linear(4, 2)(f34)
nn.Bilinear(4, 4, 2)(f34, f34)
nn.Conv1d(3, 2, 3)(f234)
nn.Conv2d(2, 4, 3, stride=1, padding=1, groups=2)(f1234)
nn.ConvTranspose2d(2, 4, 3)(f1234)
nn.MaxPool2d(2, stride=1)(f1234)
nn.AdaptiveAvgPool2d(2)(f1234)
nn.BatchNorm1d(3)(f234)
nn.BatchNorm2d(2)(f1234)
nn.LayerNorm(4)(f34)
nn.GroupNorm(2, 2)(f1234)
nn.InstanceNorm1d(3)(f234)
nn.Embedding(5, 2)(i34)
nn.Dropout(0.5)(f34)
nn.Softmax(dim=1)(f34)
nn.ReLU(inplace=False)(f34)
nn.LeakyReLU(0.1)(f34)
nn.PReLU(3)(f34)
nn.Flatten(1)(f234)
nn.Unflatten(1, (2, 2))(f34)
nn.PixelShuffle(2)(f1434)
nn.Upsample(scale_factor=2, mode='nearest')(f1234)
nn.ZeroPad2d(1)(f1234)
nn.ConstantPad1d(1, 2.0)(f234)
nn.ReflectionPad1d(1)(f234)
nn.LSTM(4, 3, num_layers=1)(f234)
nn.GRU(4, 3, batch_first=True)(f234)
nn.RNNCell(4, 3)(f34)
nn.MultiheadAttention(4, 2)(f234, f234, f234)
nn.MSELoss(reduction='sum')(f34, f34)
nn.CrossEntropyLoss(weight=None, reduction='mean')(f34, i3)
nn.NLLLoss()(f34, i3)
nn.BCELoss()(p34, p34)
nn.Sequential(nn.Linear(4, 2), nn.ReLU())(f34)
nn.ModuleList([nn.Linear(4, 2)])
nn.ModuleDict({'a': nn.ReLU()})
nn.ParameterList([f34])
nn.Parameter(f34)
nn.Identity()(f34)
nn.Linear(4, 2).to(torch.float64)
nn.Linear(4, 2).register_buffer('a', f3)
nn.Linear(4, 2).register_parameter('a', None)
nn.Linear(4, 2).add_module('a', nn.ReLU())
nn.Linear(4, 2).load_state_dict({})
nn.Linear(4, 2).train(True)
nn.Linear(4, 2).requires_grad_(False)
nn.Linear(4, 2).get_submodule('a')
nn.init.uniform_(f34.clone(), 0.0, 1.0)
nn.init.normal_(f34.clone(), 0.0, 1.0)
nn.init.constant_(f34.clone(), 2.0)
nn.init.eye_(f34.clone())
nn.init.dirac_(f234.clone())
nn.init.xavier_uniform_(f34.clone(), gain=1.0)
nn.init.kaiming_normal_(f34.clone(), a=0, mode='fan_in', nonlinearity='relu')
nn.init.orthogonal_(f34.clone(), gain=1)
nn.init.sparse_(f34.clone(), 0.5)
nn.init.trunc_normal_(f34.clone())
nn.init.calculate_gain('leaky_relu', 0.2)
nn.utils.clip_grad_norm_([g34], 1.0)
nn.utils.rnn.pad_sequence([f34, f44], batch_first=True)
nn.utils.rnn.pack_padded_sequence(f234, [2, 1, 1])
torch.optim.SGD([g34], lr=0.1, momentum=0.9)
torch.optim.Adam([g34], lr=0.1, betas=(0.9, 0.99))
torch.optim.AdamW([g34], lr=0.1, weight_decay=0.1)
torch.optim.RMSprop([g34], lr=0.1, alpha=0.9)
torch.optim.Adagrad([g34], lr=0.1)
torch.optim.lr_scheduler.StepLR(torch.optim.SGD([g34], lr=0.1), 2)
torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD([g34], lr=0.1), lambda e: 1.0)
torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([g34], lr=0.1), 5)
torch.optim.lr_scheduler.CyclicLR(torch.optim.SGD([g34], lr=0.1), 0.1, 0.5)
torch.autograd.grad(g34.sum(), [g34])
torch.utils.data.TensorDataset(f34, i3)
torch.utils.data.DataLoader([1, 2, 3], batch_size=2)
torch.save(f34, io.BytesIO())
torch.load(io.BytesIO(b'abc'))
""".strip().splitlines()


# ------------------------------------------------------------------------------------- making calls


def wrong_call(seed: int) -> str:
    """The text of one call."""
    rng = random.Random(seed)
    while True:
        tree = ast.parse(rng.choice(CALLS), mode="eval")
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _spoil(tree, rng)
        try:
            text = ast.unparse(ast.fix_missing_locations(tree))
            compile(text, "call", "eval")
        except (SyntaxError, ValueError):
            continue
        return text


def _spoil(tree: ast.Expression, rng: random.Random) -> None:
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    kind = rng.random()
    node = rng.choice(calls) if calls else None
    if node is not None and kind < 0.15:
        _leave_out(node, rng)
    elif node is not None and kind < 0.27:
        name = rng.choice(KEYWORDS)
        if name not in {k.arg for k in node.keywords}:
            node.keywords.append(ast.keyword(name, _drawn(rng)))
    elif node is not None and kind < 0.33:
        node.args.append(_drawn(rng))
    else:
        _exchange(tree, rng)


def _leave_out(node: ast.Call, rng: random.Random) -> None:
    places = [*node.args, *node.keywords]
    if places:
        gone = rng.choice(places)
        if isinstance(gone, ast.keyword):
            node.keywords.remove(gone)
        else:
            node.args.remove(gone)


def _drawn(rng: random.Random) -> ast.expr:
    return ast.parse(rng.choice(POOL), mode="eval").body


def _exchange(tree: ast.Expression, rng: random.Random) -> None:
    """Another expression in the place of an argument, an operand or an index."""
    places: list[tuple[ast.AST, str, int | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            places += [(node, "args", i) for i in range(len(node.args))]
            places += [(k, "value", None) for k in node.keywords]
        elif isinstance(node, ast.Subscript):
            places.append((node, "slice", None))
        elif isinstance(node, ast.BinOp):
            places += [(node, "left", None), (node, "right", None)]
        elif isinstance(node, (ast.Tuple, ast.List)):
            places += [(node, "elts", i) for i in range(len(node.elts))]
    if places:
        node, name, index = rng.choice(places)
        if index is None:
            setattr(node, name, _drawn(rng))
        else:
            getattr(node, name)[index] = _drawn(rng)


# ------------------------------------------------------------------------------------ the two sides

WORKER = """
import importlib, io, json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
name, = sys.argv[1:]
torch = importlib.import_module(name)
nn, F = torch.nn, torch.nn.functional
importlib.import_module(name + ".utils.data")
importlib.import_module(name + ".optim")
KINDS = dict(f="float32", d="float64", h="float16", i="int64", b="bool", c="complex64", p="float32",
             w="float32", z="float32", g="float32", e="float32")

def tensor(key):
    rng = np.random.default_rng(3)
    kind, shape = key[0], [int(d) for d in key[1:]]
    a = rng.integers(0, 3, shape) if kind in "ib" else rng.standard_normal(shape)
    if kind == "p":
        a = 1 / (1 + np.exp(-a))
    x = torch.tensor(np.zeros(shape) if kind == "z" else a).to(getattr(torch, KINDS[kind]))
    return x.requires_grad_() if kind == "g" else x

class Names(dict):
    def __missing__(self, key):
        if key[0] in KINDS and (len(key) == 1 or key[1:].isdigit()):
            return tensor(key)
        raise KeyError(key)

print("ready", flush=True)
for line in sys.stdin:
    names = Names(torch=torch, nn=nn, F=F, np=np, io=io)
    torch.manual_seed(0)
    try:
        result = eval(json.loads(line), names)
        str(result)
        if isinstance(result, torch.utils.data.DataLoader):
            list(result)
        answer = ["ok", ""]
    except Exception as error:
        answer = [type(error).__name__, str(error)[:300]]
    finally:
        torch.set_grad_enabled(True)
    print(json.dumps(answer), flush=True)
"""


class Side:
    """A process that evaluates calls with one library; a new one takes the place of one that
    died."""

    def __init__(self, library: str):
        self.library = library
        self.folder = tempfile.TemporaryDirectory()  # calls that write files write them here
        self.process: subprocess.Popen[str] | None = None

    def ask(self, call: str) -> tuple[str, str]:
        """(outcome, message): ``ok``, the exception's type, ``crash`` or ``hang``."""
        if self.process is None:
            command = [sys.executable, "-c", WORKER, self.library]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=self.folder.name,
            )
            assert self.process.stdout and self.process.stdout.readline() == "ready\n"
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            return self._gone("hang")
        line = self.process.stdout.readline()
        return tuple(json.loads(line)) if line else self._gone("crash")  # type: ignore[return-value]

    def _gone(self, outcome: str) -> tuple[str, str]:
        self.close()
        return outcome, ""

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Result:
    """One call and what both sides made of it."""

    seed: int
    call: str
    expected: tuple[str, str]
    got: tuple[str, str]

    @property
    def agrees(self) -> bool:
        return self.expected[0] == self.got[0]

    def __str__(self) -> str:
        theirs, ours = (" ".join(x)[:150].splitlines()[0] for x in (self.expected, self.got))
        return f"{self.seed}: {self.call}\n    PyTorch    {theirs}\n    graphtorch {ours}"


def compare(seeds: Iterator[int]) -> Iterator[Result]:
    """The results of the calls of these seeds."""
    torch, ours = Side("torch"), Side("graphtorch")
    try:
        for seed in seeds:
            call = wrong_call(seed)
            yield Result(seed, call, torch.ask(call), ours.ask(call))
    finally:
        torch.close()
        ours.close()


def summary(results: list[Result]) -> str:
    raising = [r for r in results if r.expected[0] not in ("ok", "crash", "hang")]
    taken = [r for r in results if r.expected[0] == "ok"]
    lost = Counter(r.got[0] for r in results if r.got[0] in ("crash", "hang"))
    same, both = sum(r.agrees for r in raising), sum(r.agrees for r in taken)
    return (
        f"{len(results)} calls; PyTorch raises in {len(raising)}: the same type in {same} "
        f"({100 * same / max(1, len(raising)):.1f} %); takes {len(taken)}: taken here {both} "
        f"({100 * both / max(1, len(taken)):.1f} %); crashes {lost['crash']}, hangs "
        f"{lost['hang']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Random wrong calls: PyTorch's exception types?")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--show", type=int, default=20, help="how many differences to print")
    options = parser.parse_args()
    results = list(compare(iter(range(options.first, options.first + options.count))))
    for result in [r for r in results if not r.agrees][: options.show]:
        print(result)
    print(summary(results))


if __name__ == "__main__":
    main()
