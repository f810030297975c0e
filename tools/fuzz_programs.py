"""Random programs for `fuzz_compile.py`: a function, what it can reach, and what changes between
its calls.

Programs are text, so that graphtorch and PyTorch run the same one. A line is drawn from a table;
``{v}`` stands for a value made before, ``{s}`` for one and the same, ``{t}`` for what is written
to, ``{o}`` for a name that is bound anew.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CALLS = 6


def _lines(text: str) -> tuple[str, ...]:
    r"""The lines of a table; one that ends in a backslash goes on, and \n stands for a new line."""
    joined = text.strip().replace(" \\\n", " ").split("\n")
    return tuple(line.replace("\\n", "\n") for line in joined)


WORLD = """
class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.abs()

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return 2 * g * x.abs() * cfg.k

class Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        log.append(round(float(g.sum()), 2) if cfg.flag else len(log))
        return g * len(items)

class Net(nn.Module):
    gain = 1.0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("seen", torch.zeros(3))
        for parameter in self.parameters():
            parameter.data = randn(*parameter.shape)

    def forward(self, x):
        x = self.linear(x) * self.gain
        if self.training:
            self.seen.add_(x.detach().mean(0))
        return self.norm(x)

cfg = Thing(k=1.5, n=0, flag=False, inner=Thing(k=0.5), kept=None)
table = {"k": 2.0, "t": randn(3, 3)}
items = [1.0, 0.5]
log = []
cnt, k = torch.zeros((), dtype=torch.int64), 2.0
buf, w = randn(3, 3), randn(3, 3)
p = nn.Parameter(randn(3, 3))
zp = nn.Parameter(randn(3, 3, complex64=True))
net = Net()
helper = lambda x: x * 0.5

def inner_plain(x, k=2):
    return (x * cfg.inner.k + w).clamp(-3, 3) * k

inner = wrap(inner_plain)

def generated(x):
    for one in items:
        yield x * one
"""
OPTIMIZERS = _lines(r"""
optimizer = torch.optim.SGD([p, zp, *net.parameters()], lr=0.1)
optimizer = torch.optim.SGD([p, *net.parameters()], lr=0.1, momentum=0.9, weight_decay=0.01)
optimizer = torch.optim.Adam([{'params': [p], 'lr': 0.05}, {'params': net.parameters()}], lr=0.02)
optimizer = torch.optim.AdamW([p, zp], lr=0.05)
""")
CALLED = (  # how the function is called; the first ones more often than they stand here
    "entry = wrap(f)",
    "class Holder:\n    gain = 2\n    def call(self, a, b):\n        return f(a * self.gain, b)\n"
    "holder = Holder()\nentry = wrap(holder.call)",
    "class Whole(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.net, self.p = net, p\n    def forward(self, a, b):\n        return f(a, b)\n"
    "whole = Whole()\nentry = wrap(whole)",
    "part = wrap(f)\ndef outer(a, b):\n    return part(a * 2, b)\nentry = wrap(outer)",
    "part = wrap(f)\ndef entry(a, b):\n    return part(a, b)",
)
VALUES = _lines(r"""
{v} + {v}
{v} * {v}
{v} - {v} * 0.5
{v}.sin()
({v} @ {v}).tanh()
torch.relu({v})
{v} * cfg.k
{v} * table['k']
{v} + buf
{v} * w
{v} * p
net({v})
{v}.t()
{v}[1:].sum(0) + {v}
{v} + table['t']
{v} * scale
{v} * factor
{v} * net.gain
{v}.reshape(9).clone().view(3, 3)
{v}.sum() * {v}
{v}.detach() + {v}
{v}.clone()
helper({v})
{v} * len(items)
sum(items) * {v}
{v}.view(3, 3)
torch.stack([{v}[0], {v}[1], {v}[2]])
{v}.softmax(1)
{v} + torch.ones(3)
{v}.data * 2
{v} * cfg.inner.k
{v}.cumsum(0) * 0.5
inner({v})
inner({v}, 3)
Twice.apply({v})
Noisy.apply({v})
checkpoint(helper, {v}, use_reentrant=False)
checkpoint(lambda x: x.tanh() * p, {v}, use_reentrant=False)
torch.polar({v}.abs(), {v}).real
({v} * (1 + 2j)).imag
torch.view_as_real({v} + 1j * {v})[..., 1]
(({v} + 0j) @ zp).abs() * 0.3
(zp * {v}).real
torch.view_as_complex({v}[:, :2].contiguous()).abs() * {v}
{v}.detach().view(torch.int32).bitwise_and(0x7FFFFFFF).view(torch.float32)
({v}.detach().contiguous().view(torch.uint8) > 127).float().sum() * 0 + {v}
torch.where({v} > 0, {v}, {v} * 0.1)
{v}.expand(3, 3)
{v}.masked_fill({v} > 0, 0.5)
sum(generated({v}))
{v}.to(torch.float64).sum(0).float() + {v}
{v}.unbind(0)[1] + {v}
{v}.repeat(2, 1)[:3]
torch.cat([{v}, {v}])[2:5]
{v}.index_select(0, torch.tensor([2, 0, 0]))
F.mse_loss({v}, {v}) * {v}
{v}.norm() + {v}
{v}.std(0) * {v}
{v}.transpose(0, 1).contiguous()
""")
DRAWS = _lines(r"""
F.dropout({v}, 0.5, net.training)
torch.rand(3, 3) * {v}
{v} + torch.randn_like({v})
torch.randperm(3)[0] + {v}
torch.bernoulli({v}.sigmoid()) * {v}
""")
WRITES = _lines(r"""
{t}.add_({v})
{t}.mul_(0.5)
{t}[0] = {v}[1]
{t}.t().add_(1)
{t}[1:].mul_({v}[1:])
{t}.zero_()
{t}.copy_({v})
{t}.view(3, 3)[1].add_(1)
{t} += {v}
{s}[{s} > 0.5] = 0.25
{t}.view(torch.int32).bitwise_and_(0x7FFFFFFF)
torch.view_as_real(zc)[..., 0].add_({v}.detach())
{t}.diagonal().add_({v}.sum().detach())
torch.add({v}.detach(), 1, out=buf)
{t}.clamp_(-2, 2)
{t}.index_add_(0, torch.tensor([0, 2]), {v}[:2].clone())
{t}[:, 1] -= {v}[:, 0]
zc.mul_(0.5j)
""")
RARE = _lines(r"""
cfg.n += 1
if {v}.sum() > 0: {o} = {v} * 2
if cfg.n > 1: {o} = {v} + 1
items.append(1.0)
cfg.kept = {v}
{o} = {v} * float({v}.max().item() > 0.5)
if {s}.requires_grad: {s}.sum().backward()
with torch.no_grad(): {o} = {v} * 3
table['k'] = 0.5
p.grad = None
for one in items: {o} = {v} * one
log.append(len(log))
cfg.flag = not cfg.flag
{o} = choose({v}.sum() > 0, lambda x: x * 2, lambda x: x - 1, {v})
if {s}.requires_grad: {s}.register_hook(lambda g: g * 2)
{s}.retain_grad() if {s}.grad_fn else None
w.requires_grad_(cfg.flag)
optimizer.step()
optimizer.zero_grad()
optimizer.zero_grad(set_to_none=False)
if {s}.requires_grad: {o} = torch.autograd.grad(({s} ** 2).sum(), {s}, create_graph=True)[0] * {v}
if a.requires_grad and {s}.requires_grad: {o} = (torch.autograd.grad(({s} ** 2).sum(), a, \
create_graph=True, allow_unused=True)[0] or 0) + {v}
for i in range(int({v}.abs().sum().item()) % 3): {o} = {v} + i
while 4 < {s}.norm() < 1e6: {s} = {s} * 0.5
if {v}.sum() > 2: raise ValueError('large')
if cfg.n > 2: raise KeyError('n')
{o} = {v} @ torch.ones(2, 2)
{o} = {v}[5]
assert {v}.max() < 100
try: {v} @ torch.ones(2, 2)\nexcept RuntimeError: {o} = {v} * 2
if torch.is_grad_enabled(): {o} = {v} * 1.5
net.gain = 2.0
cfg.kept = float({v}.sum())
with torch.enable_grad(): {o} = {v} * p
{o} = {v} + (0 if cfg.kept is None else 1)
p.data.mul_(0.9)
with torch.no_grad(): p.add_({v}.detach().mean() * 0.1)
b = b.detach().requires_grad_()
{o} = torch.tensor({v}.tolist())
{o} = {s}.detach_() if {s}.grad_fn and {s}._base is None else {s}
{s}.sum().backward(retain_graph=True) if {s}.requires_grad else None
if {v}.sum().item() > 0: {o} = {v} * 2
if {v}.mean() < 0: {t}.add_(1)
for _ in range(int(({v}.sum() > 0).item()) + 1): {o} = {v} + 1
cnt.add_(1)
{o} = {v} * (cnt.item() % 2 + 1)
{o} = {v} * int(({v} > 0).sum() % 3)
k = cfg.k
if ({v} > 0.5).any(): {s}.sum().backward() if {s}.requires_grad else None
while {v}.norm().item() > k: {o} = {v} * 0.5; break
if bool(({v} > 0).all()) or {v}[0, 0] > 0: {o} = {v}[:, :1] + {v}
n = {v}.sum().item()
if {v}.sum(): optimizer.step()
{o} = {v}[{v}[0] > 0].sum() + {v}
m = {v}.max().item()
""")
RESULTS = _lines(r"""
{v}
{v}[1:]
{v}.t()
{v}.sum()
{v}.reshape(9).clone()
{v}.detach()
buf
p
w[0]
a
{v}[:, 1]
zc
zc[0]
table['t']
{v} + 0j
torch.view_as_real(zc)
net.seen
scale
{v}.detach().view(torch.int32)
{'k': {v}, 'n': cfg.n}
[{v}, 1.5]
None
b[0]
{v}.data
cnt
{v}.sum().item()
{v}.argmax().item()
""")
ARGUMENTS = (  # a text for `given`, and what to look at afterwards
    *[("x, y = randn(3, 3), randn(3, 3)", "x, y", "x, y")] * 5,
    ("x = randn(3, 3)", "x, x", "x"),
    ("x = randn(3, 3)", "x.view(3, 3), x", "x"),
    ("x = randn(4, 3)", "x[1:], x[:-1]", "x"),
    ("x, y = randn(3, 3).requires_grad_(), randn(3, 3)", "x, y", "x, y"),
    ("x = randn(3, 3).requires_grad_()", "x * 2, x", "x"),
    ("x, y = randn(3, 3).requires_grad_(), randn(3, 3)", "x * 2, y", "x, y"),
    ("x, y = randn(3, 3), randn(3, 3)", "x.t(), y", "x, y"),
    ("x = randn(3, 3)", "buf, x", "x"),
    ("x = randn(3, 3)", "p, x", "x"),
    ("x = randn(3, 3)", "x, w", "x"),
    ("x = randn(3, 3)", "x.detach(), x", "x"),
    ("x = randn(3, 3)", "table['t'], x", "x"),
    ("x = randn(3, 3)", "x, buf.t()", "x"),
)
CHANGES = _lines(r"""
cfg.k = 0.5
cfg.k = 3.0
cfg.inner = Thing(k=2.0)
cfg.inner.k = 1.0
table['k'] = 0.5
items[:] = [2.0]
items[:] = [1.0, 2.0, 0.5]
w = torch.ones(3, 3) * 0.5
w.requires_grad_(not w.requires_grad)
p.requires_grad_(not p.requires_grad)
helper = lambda x: x * 2.0
helper = torch.tanh
optimizer.step()
p.data = torch.ones(3, 3) * 0.5
buf = torch.ones(3, 3) * 0.25
optimizer.zero_grad()
net.linear.weight = nn.Parameter(torch.ones(3, 3) * 0.25)
net.eval()
net.train()
net.norm.eval()
net.gain = 0.5
Net.gain = 1.25
net.linear.requires_grad_(False)
optimizer.param_groups[0]['lr'] = 0.01
optimizer.param_groups[0]['weight_decay'] = 0.1
optimizer.load_state_dict(optimizer.state_dict())
if not w.requires_grad: w = w.clone().requires_grad_()\noptimizer.add_param_group({'params': \
[torch.zeros(1, requires_grad=True)]})
hook = net.register_forward_hook(lambda m, i, o: o * 2)
hook = p.register_hook(lambda g: g * 0.5) if p.requires_grad else None
hook = net.linear.register_forward_pre_hook(lambda m, i: (i[0] + 1,))
hook = net.linear.register_full_backward_hook(lambda m, i, o: None if i[0] is None else (i[0] * 2,))
hook.remove() if hook else None
f.__defaults__ = (2.0,)
set_factor(0.25)
set_factor(torch.ones(3))
table['t'] = torch.zeros(3, 3)
cfg.flag = True
cfg.n = 0
cfg.kept = None
inner_plain.__defaults__ = (3,)
net = Net()
Twice.backward = staticmethod(lambda ctx, g: g * 3)
zc = torch.zeros(3, 3, dtype=torch.complex64)
torch.set_default_dtype(torch.float64)
torch.set_default_dtype(torch.float32)
p = nn.Parameter(p.detach() * 2)
net.linear.bias = None
net.load_state_dict({k: v * 0.5 for k, v in net.state_dict().items()})
zp.requires_grad_(False)
w = p
buf = w.view(3, 3) if not w.requires_grad else buf
del table['t']\ntable['t'] = w
""")


@dataclass(frozen=True)
class Program:
    """Texts: what is reachable, and the calls."""

    seed: int
    world: str
    calls: tuple[Call, ...]

    def __str__(self) -> str:
        calls = "\n".join(
            f"# call {i}: {c.setup}; f({c.given}) {c.mode}; then: {c.change}"
            for i, c in enumerate(self.calls)
        )
        return f"{self.world[len(WORLD) :]}\n{calls}"


@dataclass(frozen=True)
class Call:
    """Texts: what makes the arguments, the arguments, what to look at, a mode, and what changes
    then."""

    setup: str
    given: str
    held: str
    mode: str
    change: str
    seed: int


def draws(seed: int) -> bool:
    """Whether a seed's program draws random numbers, which are not PyTorch's."""
    return seed % 4 == 0


def program(seed: int) -> Program:
    """The program of a seed."""
    draw = random.Random(seed)
    values = VALUES + DRAWS * 3 if draws(seed) else VALUES
    called = draw.choice((*CALLED[:1] * 6, *CALLED))
    text = "\n".join(
        (
            WORLD,
            "zc = randn(3, 3, complex64=True)",
            draw.choice(OPTIMIZERS),
            function(draw, values),
            "f, set_factor = make(0.75)",
            called,
            "hook = None",
        )
    )
    return Program(seed, text, tuple(_call(draw) for _ in range(CALLS)))


def _call(draw: random.Random) -> Call:
    setup, given, held = draw.choice(ARGUMENTS)
    mode = draw.choice(("grad",) * 8 + ("no_grad",) * 2 + ("inference",))
    changes = [draw.choice(CHANGES) for _ in range(draw.choice((0, 0, 1, 1, 2)))]
    return Call(setup, given, held, mode, "\n".join(changes), draw.randrange(1000))


def function(draw: random.Random, values: tuple[str, ...]) -> str:
    """The text of ``make``, whose ``f(a, b, scale=1.0)`` is a closure."""
    names, lines = ["a", "b"], []

    def filled(text: str, out: str = "") -> str:
        text = text.replace("{s}", draw.choice(names))
        for key, choices in (("{v}", names), ("{t}", [*names, "buf", "w"])):
            while key in text:
                text = text.replace(key, draw.choice(choices), 1)
        return text.replace("{o}", out)

    for i in range(draw.randint(2, 8)):
        kind = draw.random()
        if kind < 0.62:
            lines.append(f"v{i} = " + filled(draw.choice(values)))
            names.append(f"v{i}")
        elif kind < 0.8:
            lines.append(filled(draw.choice(WRITES)))
        else:
            lines.append(filled(draw.choice(RARE), draw.choice(names)))
    results = [filled(draw.choice(RESULTS)) for _ in range(draw.randint(1, 3))]
    lines.append(f"return {', '.join(results)}" + ("," if draw.random() < 0.3 else ""))
    body = "\n".join(lines).split("\n")
    inside = "\n".join(f"        {line}" for line in body)
    return f"""
def make(factor):
    def f(a, b, scale=1.0):
{inside}

    def set_factor(to):
        nonlocal factor
        factor = to

    return f, set_factor
"""
