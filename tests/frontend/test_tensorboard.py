"""`SummaryWriter.add_graph`: a model's operations, grouped by its modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphtorch as gt

pytest.importorskip("tensorboard")


class Net(gt.nn.Module):
    """A module with one inside that has two."""

    def __init__(self) -> None:
        super().__init__()
        self.body = gt.nn.Sequential(gt.nn.Conv2d(3, 4, 3), gt.nn.ReLU())
        self.fc = gt.nn.Linear(4 * 36, 5)

    def forward(self, x: Any) -> Any:
        return self.fc((self.body(x) * 2).flatten(1)).softmax(-1)


def test_graph_of_a_model(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from graphtorch.utils.tensorboard import SummaryWriter

    net = Net()
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(net, gt.ones(1, 3, 8, 8))
        with pytest.raises(TypeError, match="expected a Module"):
            writer.add_graph(gt.relu, gt.ones(1))
    assert net.training
    assert net.body.training
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    nodes = {n.name: n for n in events.Graph().node}
    conv = nodes["Net/Sequential[body]/Conv2d[0]/conv_0"]
    assert list(conv.input)[:2] == ["input/x", "Net/Sequential[body]/Conv2d[0]/weight"]
    assert [d.size for d in conv.attr["_output_shapes"].list.shape[0].dim] == [1, 4, 6, 6]
    scopes = {n.op: name.rpartition("/")[0] for name, n in nodes.items()}
    assert (scopes["affine"], scopes["mul"]) == ("Net/Linear[fc]", "Net")
    assert all(name in nodes for n in nodes.values() for name in n.input)
