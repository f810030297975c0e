"""Values as the records that TensorBoard reads
(``tensorboard.compat.proto.summary_pb2.Summary``)."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

from ..._deferred.tensor import Tensor


def array_of(x: Any) -> np.ndarray:
    """A tensor, number or sequence as an array."""
    if isinstance(x, Tensor):
        return x.numpy(force=True)  # type: ignore[attr-defined, no-any-return]
    if isinstance(x, (list, tuple)) and any(isinstance(v, Tensor) for v in x):
        return np.array([array_of(v) for v in x])
    return np.asarray(x)


def _data(plugin: str, content: bytes = b"") -> Any:
    return SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    )


def scalar(tag: str, value: Any, new_style: bool = False, double_precision: bool = False) -> Any:
    """A number. Raises AssertionError: several."""
    found = array_of(value)
    if found.size != 1:
        raise AssertionError(f"scalar should be 0D, got {found.size} elements")
    if not new_style:
        return Summary(value=[Summary.Value(tag=tag, simple_value=float(found.reshape(())))])
    kind, name = ("<d", "DT_DOUBLE") if double_precision else ("<f", "DT_FLOAT")
    tensor = TensorProto(dtype=name, tensor_content=struct.pack(kind, float(found.reshape(()))))
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=_data("scalars"))])


def default_bins() -> list[float]:
    """Edges that grow by a tenth, of both signs."""
    edges, edge = [], 1e-12
    while edge < 1e20:
        edges.append(edge)
        edge *= 1.1
    return [-e for e in reversed(edges)] + [0] + edges


def histogram(tag: str, values: Any, bins: Any, max_bins: int | None = None) -> Any:
    """How many of `values` fall between the edges. Raises ValueError: there are none."""
    flat = array_of(values).astype(np.float64).reshape(-1)
    if flat.size == 0:
        raise ValueError("The input has no element.")
    counts, limits = np.histogram(flat, bins=default_bins() if bins == "tensorflow" else bins)
    if max_bins is not None and len(counts) > max_bins:
        step = len(counts) // max_bins
        counts = np.add.reduceat(counts, np.arange(0, len(counts), step))
        limits = np.append(limits[:-1:step], limits[-1])
    used = np.flatnonzero(counts)
    low, high = (used[0], used[-1] + 1) if used.size else (0, 1)
    edges, numbers = limits[low : high + 1], counts[low:high]
    shown = HistogramProto(
        min=flat.min(),
        max=flat.max(),
        num=flat.size,
        sum=flat.sum(),
        sum_squares=flat.dot(flat),
        bucket_limit=edges.tolist(),
        bucket=[0, *numbers.tolist()],
    )
    return Summary(value=[Summary.Value(tag=tag, histo=shown)])


def histogram_raw(
    tag: str,
    min: float,
    max: float,
    num: int,
    sum: float,
    sum_squares: float,
    bucket_limits: Any,
    bucket_counts: Any,
) -> Any:
    """A histogram that was counted elsewhere."""
    shown = HistogramProto(
        min=min,
        max=max,
        num=num,
        sum=sum,
        sum_squares=sum_squares,
        bucket_limit=bucket_limits,
        bucket=bucket_counts,
    )
    return Summary(value=[Summary.Value(tag=tag, histo=shown)])


def image(tag: str, tensor: Any, dataformats: str = "NCHW") -> Any:
    """Images, which are shown in a grid where there are several."""
    found = array_of(tensor)
    pixels = np.clip(
        found if found.dtype == np.uint8 else found.astype(np.float32) * 255, 0, 255
    ).astype(np.uint8)
    return Summary(value=[Summary.Value(tag=tag, image=_encoded(_rows(pixels, dataformats)))])


def _rows(pixels: np.ndarray, formats: str) -> np.ndarray:
    """Images of any layout as one of [H, W, 3 or 4]."""
    formats = formats.upper()
    if len(formats) != pixels.ndim or len(set(formats)) != len(formats):
        raise AssertionError(
            f"size of input tensor and input format are different: tensor of shape {pixels.shape}, "
            f"input_format {formats}"
        )
    if "C" not in formats:
        pixels, formats = pixels[..., None], formats + "C"
    if "N" not in formats:
        pixels, formats = pixels[None], "N" + formats
    ordered = pixels.transpose([formats.index(k) for k in "NHWC"])
    if ordered.shape[3] == 1:
        ordered = ordered.repeat(3, 3)
    columns = min(len(ordered), 8)
    lines = -(-len(ordered) // columns)
    n, h, w, c = ordered.shape
    grid = np.zeros((lines * columns, h, w, c), np.uint8)
    grid[:n] = ordered
    return (
        grid.reshape(lines, columns, h, w, c)
        .transpose(0, 2, 1, 3, 4)
        .reshape(lines * h, columns * w, c)
    )


def _encoded(pixels: np.ndarray) -> Any:
    from PIL import Image  # only images need Pillow

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    height, width, channels = pixels.shape
    return Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue()
    )


def figure_pixels(figure: Any, close: bool = True) -> np.ndarray:
    """A matplotlib figure (or several) as images [N, 3, H, W], uint8."""
    import matplotlib.pyplot as plt  # only figures need it
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    found = []
    for one in figure if isinstance(figure, (list, tuple)) else [figure]:
        canvas = FigureCanvasAgg(one)
        canvas.draw()
        found.append(np.asarray(canvas.buffer_rgba())[:, :, :3].transpose(2, 0, 1))
        if close:
            plt.close(one)
    return np.stack(found)


def text(tag: str, shown: str) -> Any:
    """A text, as Markdown."""
    about = _data("text", TextPluginData(version=0).SerializeToString())
    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[shown.encode("utf8")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    return Summary(value=[Summary.Value(tag=tag + "/text_summary", metadata=about, tensor=tensor)])


def audio(tag: str, sound: Any, sample_rate: int = 44100) -> Any:
    """A sound of samples between -1 and 1, as a WAV file."""
    import wave  # only sounds need it

    samples = array_of(sound).astype(np.float32).reshape(-1).clip(-1, 1)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate)
        out.writeframes((samples * np.iinfo(np.int16).max).astype("<i2").tobytes())
    made = Summary.Audio(
        sample_rate=sample_rate,
        num_channels=1,
        length_frames=len(samples),
        content_type="audio/wav",
        encoded_audio_string=file.getvalue(),
    )
    return Summary(value=[Summary.Value(tag=tag, audio=made)])


def pr_curve(
    tag: str, labels: Any, predictions: Any, thresholds: int = 127, weights: Any = None
) -> Any:
    """Precision and recall at thresholds between 0 and 1."""
    wanted, given = array_of(labels).reshape(-1).astype(bool), array_of(predictions).reshape(-1)
    each = np.ones(len(given)) if weights is None else array_of(weights).reshape(-1)
    places = np.floor(given * (thresholds - 1)).astype(np.int64)
    hit, miss = [
        np.bincount(places[m], each[m], thresholds)[::-1].cumsum()[::-1] for m in (wanted, ~wanted)
    ]
    least = 1e-10
    rows = np.stack(
        [
            hit,
            miss,
            miss[0] - miss,
            hit[0] - hit,
            hit / np.maximum(least, hit + miss),
            hit / np.maximum(least, hit[0]),
        ]
    ).astype(np.float32)
    about = _data(
        "pr_curves", PrCurvePluginData(version=0, num_thresholds=thresholds).SerializeToString()
    )
    tensor = TensorProto(
        dtype="DT_FLOAT",
        float_val=rows.reshape(-1).tolist(),
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=s) for s in rows.shape]),
    )
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])


def custom_scalars(layout: Mapping[str, Mapping[str, Sequence[Any]]]) -> Any:
    """Which scalars stand together in charts."""
    categories = []
    for title, charts in layout.items():
        made = []
        for name, (kind, tags) in charts.items():
            if kind == "Margin":
                margin = layout_pb2.MarginChartContent.Series(
                    value=tags[0], lower=tags[1], upper=tags[2]
                )
                made.append(
                    layout_pb2.Chart(
                        title=name, margin=layout_pb2.MarginChartContent(series=[margin])
                    )
                )
            else:
                made.append(
                    layout_pb2.Chart(
                        title=name, multiline=layout_pb2.MultilineChartContent(tag=tags)
                    )
                )
        categories.append(layout_pb2.Category(title=title, chart=made))
    content = layout_pb2.Layout(category=categories).SerializeToString()
    tensor = TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=TensorShapeProto())
    return Summary(
        value=[
            Summary.Value(
                tag="custom_scalars__config__", tensor=tensor, metadata=_data("custom_scalars")
            )
        ]
    )


def hparams(given: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The records (experiment, start of the run, its end) that the HPARAMS tab reads."""
    start = plugin_data_pb2.SessionStartInfo()
    infos = []
    for name, value in given.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value, kind = value, "DATA_TYPE_BOOL"
        elif isinstance(value, (int, float, Tensor, np.number)):
            start.hparams[name].number_value, kind = float(array_of(value)), "DATA_TYPE_FLOAT64"
        elif isinstance(value, str):
            start.hparams[name].string_value, kind = value, "DATA_TYPE_STRING"
        else:
            raise ValueError(
                f"add_hparams: value of {name!r} should be one of int, float, str, bool or a "
                f"tensor of one element, got {type(value).__name__}"
            )
        infos.append(api_pb2.HParamInfo(name=name, type=api_pb2.DataType.Value(kind)))
    shown = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=k)) for k in metrics]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=shown)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.Value("STATUS_SUCCESS"))
    parts = (
        ("_hparams_/experiment", "experiment", experiment),
        ("_hparams_/session_start_info", "session_start_info", start),
        ("_hparams_/session_end_info", "session_end_info", end),
    )
    return tuple(_hparam(tag, field, one) for tag, field, one in parts)  # type: ignore[return-value]


def _hparam(tag: str, field: str, content: Any) -> Any:
    held = plugin_data_pb2.HParamsPluginData(
        version=metadata.PLUGIN_DATA_VERSION, **{field: content}
    )
    return Summary(
        value=[
            Summary.Value(
                tag=tag,
                metadata=_data(metadata.PLUGIN_NAME, held.SerializeToString()),
                tensor=metadata.NULL_TENSOR,
            )
        ]
    )


def mesh(tag: str, vertices: Any, colors: Any = None, faces: Any = None, config: Any = None) -> Any:
    """Points [B, N, 3] with colors and faces, for the mesh tab."""
    from tensorboard.plugins.mesh import metadata as about
    from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData

    kinds = (("VERTEX", vertices), ("FACE", faces), ("COLOR", colors))
    there = [
        (MeshPluginData.ContentType.Value(kind), array_of(x)) for kind, x in kinds if x is not None
    ]
    mask = about.get_components_bitmask([kind for kind, _ in there])
    made = []
    for kind, x in there:
        held = about.create_summary_metadata(
            tag, None, kind, mask, list(x.shape), json_config=json.dumps(config or {})
        )
        tensor = TensorProto(
            dtype="DT_FLOAT",
            float_val=x.reshape(-1).tolist(),
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=s) for s in x.shape]),
        )
        made.append(
            Summary.Value(tag=about.get_instance_name(tag, kind), tensor=tensor, metadata=held)
        )
    return Summary(value=made)
