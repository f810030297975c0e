"""`SummaryWriter`: event files in a folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto.config_pb2 import RunMetadata
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.step_stats_pb2 import DeviceStepStats, StepStats
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ..._deferred.tensor import Tensor
from ...nn.modules.module import Module
from . import summary
from .graph import graph_of


class FileWriter:
    """One event file in `log_dir`."""

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ):
        self.event_writer = EventFileWriter(str(log_dir), max_queue, flush_secs, filename_suffix)

    def get_logdir(self) -> str:
        """The folder."""
        return self.event_writer.get_logdir()  # type: ignore[no-any-return]

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        """Write one event."""
        event.wall_time = time.time() if walltime is None else walltime
        if step is not None:
            event.step = int(step)
        self.event_writer.add_event(event)

    def add_summary(
        self, made: Any, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        """Write one summary."""
        self.add_event(event_pb2.Event(summary=made), global_step, walltime)

    def flush(self) -> None:
        """Write what waits."""
        self.event_writer.flush()

    def close(self) -> None:
        """Write what waits, and no more."""
        self.event_writer.close()


class SummaryWriter:
    """Writes values over steps into a folder that TensorBoard shows.

    Args:
        log_dir: ``runs/<time>_<host><comment>`` by default.
        purge_step: from this step on TensorBoard forgets what was written before.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ):
        if not log_dir:
            log_dir = os.path.join(
                "runs", time.strftime("%b%d_%H-%M-%S_") + socket.gethostname() + comment
            )
        self.log_dir = os.fspath(log_dir)
        self.purge_step = purge_step
        self._options = (max_queue, flush_secs, filename_suffix)
        self.file_writer: FileWriter | None = None
        self.all_writers: dict[str, FileWriter] = {}
        self._get_file_writer()

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = FileWriter(self.log_dir, *self._options)
            self.all_writers = {self.log_dir: self.file_writer}
            if self.purge_step is not None:
                self.file_writer.add_event(
                    Event(step=self.purge_step, file_version="brain.Event:2")
                )
                self.file_writer.add_event(
                    Event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START))
                )
                self.purge_step = None
        return self.file_writer

    def get_logdir(self) -> str:
        """The folder."""
        return self.log_dir

    def _add(self, made: Any, step: Any, walltime: float | None) -> None:
        self._get_file_writer().add_summary(made, step, walltime)

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """A number."""
        self._add(
            summary.scalar(tag, scalar_value, new_style, double_precision), global_step, walltime
        )

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers, each in a folder of its own, which one chart shows."""
        for tag, value in tag_scalar_dict.items():
            place = f"{self.log_dir}/{main_tag.replace('/', '_')}_{tag}"
            if place not in self.all_writers:
                self.all_writers[place] = FileWriter(place, *self._options)
            self.all_writers[place].add_summary(
                summary.scalar(main_tag, value), global_step, walltime
            )

    def add_tensor(
        self,
        tag: str,
        tensor: Tensor,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A histogram of a tensor's elements."""
        self.add_histogram(tag, tensor, global_step, walltime=walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """How `values` are distributed."""
        self._add(summary.histogram(tag, values, bins, max_bins), global_step, walltime)

    def add_histogram_raw(
        self,
        tag: str,
        min: float,
        max: float,
        num: int,
        sum: float,
        sum_squares: float,
        bucket_limits: Any,
        bucket_counts: Any,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A histogram that was counted elsewhere. Raises ValueError: limits and counts differ in
        number."""
        if len(bucket_limits) != len(bucket_counts):
            raise ValueError("len(bucket_limits) != len(bucket_counts), see the document.")
        made = summary.histogram_raw(
            tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts
        )
        self._add(made, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """An image: uint8, or floats between 0 and 1."""
        self._add(summary.image(tag, img_tensor, dataformats), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Several images in a grid."""
        found = img_tensor
        if isinstance(img_tensor, list):  # of CHW or HWC
            found, dataformats = (
                np.stack([summary.array_of(i) for i in img_tensor]),
                "N" + dataformats[-3:],
            )
        self._add(summary.image(tag, found, dataformats), global_step, walltime)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: int | None = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A matplotlib figure, or several, as images."""
        self._add(summary.image(tag, summary.figure_pixels(figure, close)), global_step, walltime)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: int | None = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """A sound: samples between -1 and 1."""
        self._add(summary.audio(tag, snd_tensor, sample_rate), global_step, walltime)

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A text."""
        self._add(summary.text(tag, text_string), global_step, walltime)

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: int | None = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Precision and recall of predictions between 0 and 1 of what is true or not."""
        self._add(
            summary.pr_curve(tag, labels, predictions, num_thresholds, weights),
            global_step,
            walltime,
        )

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Any = None,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Points and faces in space."""
        self._add(summary.mesh(tag, vertices, colors, faces, config_dict), global_step, walltime)

    def add_custom_scalars(self, layout: Mapping[str, Any]) -> None:
        """Charts of several scalars: ``{category: {chart: ["Multiline", tags]}}``."""
        self._add(summary.custom_scalars(layout), None, None)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Any = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """What a run was made with, and how well it did. Raises TypeError: no dicts."""
        if not isinstance(hparam_dict, Mapping) or not isinstance(metric_dict, Mapping):
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        place = os.path.join(self.log_dir, run_name or str(time.time()))
        with SummaryWriter(place) as inner:
            for made in summary.hparams(hparam_dict, metric_dict):
                inner._add(made, None, None)
            for name, value in metric_dict.items():
                inner.add_scalar(name, value, global_step)

    def add_graph(
        self,
        model: Any,
        input_to_model: Any = None,
        verbose: bool = False,
        use_strict_trace: bool = True,
    ) -> None:
        """The graph of a module, traced in evaluation mode: its operations, grouped by modules.

        Args:
            input_to_model: the argument, or a tuple of them.
            verbose: whether to print what was traced.
            use_strict_trace: makes no difference.

        Raises:
            RuntimeError: the module needs a tensor's value in Python. TypeError: it is no module.
        """
        if not isinstance(model, Module):
            raise TypeError(f"add_graph: expected a Module, but got {type(model).__name__}")
        args = input_to_model if isinstance(input_to_model, (tuple, list)) else (input_to_model,)
        made = graph_of(model, args)
        if verbose:
            print(made)
        file = self._get_file_writer()
        file.add_event(event_pb2.Event(graph_def=made.SerializeToString()))
        where = RunMetadata(
            step_stats=StepStats(dev_stats=[DeviceStepStats(device="/device:CPU:0")])
        )
        file.add_event(
            event_pb2.Event(
                tagged_run_metadata=event_pb2.TaggedRunMetadata(
                    tag="step1", run_metadata=where.SerializeToString()
                )
            )
        )

    def add_embedding(
        self,
        mat: Any,
        metadata: Any = None,
        label_img: Any = None,
        global_step: int | None = None,
        tag: str = "default",
        metadata_header: Any = None,
    ) -> None:
        """Points [N, D] for the projector, as files beside the events, with a label each."""
        if label_img is not None:
            raise RuntimeError(
                "SummaryWriter.add_embedding: label_img is not supported; give labels as metadata"
            )
        name = f"{global_step or 0:05d}/{tag}"
        place = os.path.join(self.log_dir, name)
        os.makedirs(place, exist_ok=True)
        np.savetxt(
            os.path.join(place, "tensors.tsv"), summary.array_of(mat), delimiter="\t", fmt="%.8g"
        )
        lines = [
            f'embeddings {{\n  tensor_name: "{tag}:{global_step or 0:05d}"\n'
            f'  tensor_path: "{name}/tensors.tsv"\n'
        ]
        if metadata is not None:
            rows = ["\t".join(map(str, m)) if metadata_header else str(m) for m in metadata]
            head = ["\t".join(metadata_header)] if metadata_header else []
            with open(os.path.join(place, "metadata.tsv"), "w", encoding="utf-8") as file:
                file.write("\n".join(head + rows) + "\n")
            lines.append(f'  metadata_path: "{name}/metadata.tsv"\n')
        with open(
            os.path.join(self.log_dir, "projector_config.pbtxt"), "a", encoding="utf-8"
        ) as file:
            file.write("".join(lines) + "}\n")

    def flush(self) -> None:
        """Write what waits."""
        for writer in self.all_writers.values():
            writer.flush()

    def close(self) -> None:
        """Write what waits. Later calls begin another file."""
        for writer in self.all_writers.values():
            writer.flush()
            writer.close()
        self.file_writer, self.all_writers = None, {}

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
