"""Facts of op records, beside what lowering makes of a sample of each op."""

from __future__ import annotations

import functools

import pytest

from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.ir.op import OPS
from graphtorch.ir.passes import pipeline
from op_samples import Sample, every


@functools.cache
def own_samples() -> dict[str, Sample]:
    """The first sample of each op that has one by its own name, without gradients."""
    found: dict[str, Sample] = {}
    for sample in every():
        name = sample.name.split()[0]
        if name in OPS and name not in found:
            found[name] = sample._replace(gradients=False)
    return found


def failures(sample: Sample) -> set[str]:
    """The ops whose lines an error of the compiled sample may name."""
    try:
        return {site.op for site in lower(pipeline.run(sample.graph(), supports)).errors}
    except NotImplementedError:
        return set()  # complex factorizations have no code of their own


def test_what_can_fail_at_run_time_says_so() -> None:
    """The line of what does not say so is left out of a program's key: an error would name another
    one."""
    samples = own_samples()
    assert len(samples) > 180
    failing = {name: sites for name, sample in samples.items() if (sites := failures(sample))}
    assert {name for name in failing if not OPS[name].raises} == set()
    assert {op for sites in failing.values() for op in sites if not OPS[op].raises} == set()
    silent = {
        name for name, op in OPS.items() if op.raises and name in samples and name not in failing
    }
    assert silent <= {"max_pool_grad"}  # where the places of a sample are known to be right


@pytest.mark.parametrize("name", ["gather", "index_put", "require", "roi_align", "cross_entropy"])
def test_the_facts_hold_of_known_ones(name: str) -> None:
    assert OPS[name].raises and failures(own_samples()[name])
