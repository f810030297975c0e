"""Learning-rate schedules: the rates each gives, with every parameter of the table."""

import contextlib
import io
import math

import graphtorch as torch

lr_scheduler = torch.optim.lr_scheduler


def sgd(lr=1.0, **options):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, **options)


def rates(make, steps=6, lr=1.0, **options):
    """The rates that ``make(optimizer)`` gives, the first before any step; what it printed; the
    optimizer."""
    optimizer = sgd(lr, **options)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        schedule = make(optimizer)
        seen = [optimizer.param_groups[0]["lr"]]
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
    assert schedule.get_last_lr() == [seen[-1]] and schedule.last_epoch == steps
    return seen, printed.getvalue()


def close(seen, expected):
    assert len(seen) == len(expected) and all(
        math.isclose(a, b, abs_tol=1e-9) for a, b in zip(seen, expected, strict=True)
    ), seen


def check_lambda():
    seen, printed = rates(
        lambda o: lr_scheduler.LambdaLR(
            optimizer=o, lr_lambda=lambda e: 0.9**e, last_epoch=-1, verbose=True
        )
    )
    close(seen, [0.9**e for e in range(7)])
    assert "learning rate" in printed

    class Halving:
        def __init__(self):
            self.base = 2

        def __call__(self, epoch):
            return self.base**-epoch

    schedule = lr_scheduler.LambdaLR(sgd(), Halving())
    state = schedule.state_dict()
    assert state["lr_lambdas"] == [{"base": 2}] and "optimizer" not in state
    other = lr_scheduler.LambdaLR(sgd(), Halving())
    other.load_state_dict(state_dict=state)
    assert lr_scheduler.LambdaLR(sgd(), lambda e: 1).state_dict()["lr_lambdas"] == [None]


def check_multiplicative():
    seen, printed = rates(
        lambda o: lr_scheduler.MultiplicativeLR(
            optimizer=o, lr_lambda=lambda e: 1 / e, last_epoch=-1, verbose=True
        ),
        3,
    )
    close(seen, [1, 1, 1 / 2, 1 / 6])
    assert printed


def check_steps():
    seen, printed = rates(
        lambda o: lr_scheduler.StepLR(
            optimizer=o, step_size=2, gamma=0.5, last_epoch=-1, verbose=True
        )
    )
    close(seen, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125])
    assert printed
    seen, printed = rates(
        lambda o: lr_scheduler.MultiStepLR(
            optimizer=o, milestones=[1, 4], gamma=0.5, last_epoch=-1, verbose=True
        )
    )
    close(seen, [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])
    assert printed
    seen, printed = rates(
        lambda o: lr_scheduler.ExponentialLR(optimizer=o, gamma=0.5, last_epoch=-1, verbose=True), 3
    )
    close(seen, [1, 0.5, 0.25, 0.125])
    assert printed


def check_resuming():
    optimizer = sgd()
    optimizer.param_groups[0]["initial_lr"] = 1.0
    for make, rate in (
        (lambda: lr_scheduler.StepLR(optimizer, 2, gamma=0.5, last_epoch=3), None),
        (lambda: lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e, last_epoch=1), 0.25),
    ):
        schedule = make()
        assert schedule.last_epoch in (2, 4) and (rate is None or schedule.get_last_lr() == [rate])


def check_linear_and_constant():
    close(
        rates(lambda o: lr_scheduler.ConstantLR(o, factor=0.5, total_iters=2), 3)[0],
        [0.5, 0.5, 1, 1],
    )
    close(
        rates(lambda o: lr_scheduler.LinearLR(o, start_factor=0.5, total_iters=2), 3)[0],
        [0.5, 0.75, 1, 1],
    )


def check_cosine():
    seen, _ = rates(
        lambda o: lr_scheduler.CosineAnnealingLR(optimizer=o, T_max=4, eta_min=0.2, last_epoch=-1),
        4,
    )
    close(seen, [0.2 + 0.8 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)])
    seen, _ = rates(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2, eta_min=0.0), 3)
    close(seen, [1, 0.5, 1, 0.5])


def check_combinations():
    def chained(o):
        return lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
        )

    optimizer = sgd()
    schedule, seen = chained(optimizer), []
    for _ in range(3):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    close(seen, [0.5, 0.45, 0.81])
    seen, _ = rates(
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.ConstantLR(o, 0.1, 9), lr_scheduler.ExponentialLR(o, 0.9)],
            milestones=[2],
        ),
        4,
    )
    close(seen, [0.1, 0.1, 1, 0.9, 0.81])


def plateau(metrics, lr=1.0, **options):
    """The rates over these metrics."""
    optimizer = sgd(lr)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer=optimizer, **options)
    seen = []
    for metric in metrics:
        schedule.step(metric)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def check_plateau():
    close(plateau([1, 1, 1, 1], mode="min", factor=0.1, patience=2), [1, 1, 1, 0.1])
    close(plateau([1, 2, 3, 3], mode="max", factor=0.5, patience=0), [1, 1, 1, 0.5])
    for mode, options in (
        ("min", {"threshold": 0.5, "threshold_mode": "rel"}),
        ("min", {"threshold": 3.0, "threshold_mode": "abs"}),
    ):
        close(plateau([8, 6, 3], mode=mode, patience=0, factor=0.5, **options), [1, 0.5, 0.5])
    schedule = lr_scheduler.ReduceLROnPlateau(
        optimizer=sgd(),
        mode="min",
        factor=0.5,
        patience=0,
        threshold=0.5,
        threshold_mode="rel",
        cooldown=1,
        min_lr=0.3,
        eps=1e-8,
    )
    assert schedule.step(1.0) is None and schedule.get_last_lr() == [1.0]
    for bad, rate in ((1.0, 0.5), (1.0, 0.5), (1.0, 0.3), (1.0, 0.3)):
        schedule.step(bad)
        assert schedule.get_last_lr() == [rate], (bad, rate, schedule.get_last_lr())
    lr_scheduler.ReduceLROnPlateau(sgd(), mode="max", threshold_mode="abs")
    kept = lr_scheduler.ReduceLROnPlateau(sgd(), patience=0, factor=0.5, eps=0.9)
    kept.step(1.0)
    kept.step(1.0)
    assert kept.get_last_lr() == [1.0]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        loud = lr_scheduler.ReduceLROnPlateau(sgd(), patience=0, verbose=True)
        loud.step(1.0)
        loud.step(1.0)
    assert "learning rate" in printed.getvalue()


def check_cyclic():
    options = {
        "base_lr": 0.1,
        "max_lr": 0.5,
        "step_size_up": 2,
        "step_size_down": 4,
        "cycle_momentum": False,
    }
    seen, printed = rates(
        lambda o: lr_scheduler.CyclicLR(
            optimizer=o, mode="triangular", last_epoch=-1, verbose=True, **options
        )
    )
    close(seen, [0.1, 0.3, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert printed
    short = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 1, "cycle_momentum": False}
    close(
        rates(lambda o: lr_scheduler.CyclicLR(o, mode="triangular2", **short), 3)[0],
        [0.1, 0.5, 0.1, 0.3],
    )
    seen, _ = rates(lambda o: lr_scheduler.CyclicLR(o, mode="exp_range", gamma=0.5, **short), 3)
    close(seen, [0.1, 0.1 + 0.4 * 0.5, 0.1, 0.1 + 0.4 * 0.125])
    seen, _ = rates(
        lambda o: lr_scheduler.CyclicLR(o, scale_fn=lambda c: 1 / c, scale_mode="cycle", **short), 3
    )
    close(seen, [0.1, 0.5, 0.1, 0.3])
    seen, _ = rates(
        lambda o: lr_scheduler.CyclicLR(
            o, scale_fn=lambda i: 1 / (1 + i), scale_mode="iterations", **short
        ),
        3,
    )
    close(seen, [0.1, 0.3, 0.1, 0.2])


def check_cyclic_momentum():
    optimizer = sgd(momentum=0.9)
    schedule = lr_scheduler.CyclicLR(
        optimizer,
        0.1,
        0.5,
        step_size_up=2,
        cycle_momentum=True,
        base_momentum=0.6,
        max_momentum=0.8,
    )
    seen = [optimizer.param_groups[0]["momentum"]]
    for _ in range(2):
        optimizer.step()
        schedule.step()
        seen.append(optimizer.param_groups[0]["momentum"])
    close(seen, [0.8, 0.7, 0.6])
    close(schedule.get_lr(), [0.5])


def check_one_cycle():
    seen, _ = rates(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=1.0,
            total_steps=5,
            pct_start=0.4,
            div_factor=10,
            final_div_factor=10,
            cycle_momentum=False,
        ),
        4,
    )
    assert (
        math.isclose(seen[0], 0.1) and math.isclose(max(seen), 1.0) and math.isclose(seen[-1], 0.01)
    )


def check_base_class():
    class Falling(torch.optim.lr_scheduler._LRScheduler):
        def get_lr(self):
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    optimizer = sgd()
    schedule = Falling(optimizer)
    assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5] and schedule.last_epoch == 1
    state = schedule.state_dict()
    other = Falling(sgd())
    other.load_state_dict(state_dict=state)
    assert other.last_epoch == 1 and "optimizer" not in state
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        schedule.print_lr(is_verbose=True, group=0, lr=0.5, epoch=3)
        schedule.print_lr(False, 0, 0.25)
    assert (
        "0.5" in printed.getvalue().replace("5.0000e-01", "0.5")
        and "0.25" not in printed.getvalue()
    )
