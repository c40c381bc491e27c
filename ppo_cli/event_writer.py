"""TensorBoard event files, written directly: one ``Event`` per update holds all of its scalars.

A twentieth of the time and half of the bytes of one call per scalar, no thread, and a killed process loses nothing.
Neither torch's writer nor TensorFlow is involved.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.text import metadata as text_metadata

from ppo_cli.run_files import AppendFile, WallClock
from ppo_cli.trials import Hyperparameter

PREFIX = "events.out.tfevents."

EXPERIMENT, SESSION_START, SESSION_END = (
    f"_hparams_/{part}" for part in ("experiment", "session_start_info", "session_end_info")
)
"""Tags of the HParams plugin, whose own module for them loads half of a TensorFlow."""

FILE_TIME_LAG = 0.05
"""Seconds by which a file system's times may lag behind the clock: they follow the kernel's ticks."""


class EventWriter:
    """One event file in a run folder.

    Args:
        run_dir: TensorBoard names the run after this folder.
        start_env_steps: Steps already taken. What earlier files of the folder show beyond it is purged.
        warn: Called with one sentence if the disk refuses a record.

    Attributes:
        clock: Time of day of what is logged; later than that of the folder's earlier files.
    """

    def __init__(self, run_dir: Path, start_env_steps: int, warn: Callable[[str], None]) -> None:
        # TensorBoard reads a folder's files in the order of their names; a resumed run must come after its first part.
        earlier = [path.stat().st_mtime for path in run_dir.glob(f"{PREFIX}*")]
        self.clock = WallClock(not_before=max(earlier, default=0.0) + FILE_TIME_LAG)
        self._file = AppendFile(run_dir / f"{PREFIX}{int(1e9 * self.clock()):020d}.{os.getpid()}", warn)
        self._scalars = event_pb2.Event()  # what `scalars` fills each time,
        self._tags: list[str] = []  # with a point for each of these
        self._points: list[Any] = []
        self._write(event_pb2.Event(wall_time=self.clock(), file_version="brain.Event:2"))
        purge_from = start_env_steps + 1 if start_env_steps else 0  # the point at start_env_steps itself is valid
        self._write(
            event_pb2.Event(
                wall_time=self.clock(),
                step=purge_from,
                session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
            )
        )

    @property
    def dropped(self) -> int:
        """Records that the disk refused."""
        return self._file.dropped

    def scalars(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Write one point on each tag's curve, as one event."""
        event, tags = self._scalars, list(values)
        if tags != self._tags:  # nearly always those of the last time, whose event is filled again
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag) for tag in tags])
            event = self._scalars = event_pb2.Event(summary=summary)
            self._tags, self._points = tags, list(event.summary.value)
        event.wall_time, event.step = self.clock(), env_steps
        for point, value in zip(self._points, values.values(), strict=True):
            point.simple_value = value
        self._write(event)

    def image(self, env_steps: int, tag: str, rgb: NDArray[np.uint8]) -> None:
        """Write one picture, uint8 [H, W, 3]."""
        from PIL import Image

        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"an image must be uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
        png = io.BytesIO()
        Image.fromarray(rgb).save(png, format="png")
        height, width, _ = rgb.shape
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png.getvalue())
        self._add(env_steps, [summary_pb2.Summary.Value(tag=tag, image=image)])

    def text(self, env_steps: int, tag: str, markdown: str) -> None:
        """Write a note in Markdown."""
        metadata = text_metadata.create_summary_metadata(display_name=tag, description="")
        self._add(env_steps, [_text_value(tag, markdown.encode(), metadata)])

    def session_start(
        self,
        env_steps: int,
        hyperparameters: Mapping[str, Hyperparameter],
        trial_id: str,
        metric_tags: Sequence[str],
        chosen: Collection[str] = (),
        columns: Mapping[str, Hyperparameter] | None = None,
    ) -> None:
        """Put the run into the HParams table, beside the other seeds of the same trial.

        Args:
            env_steps: Steps already taken.
            hyperparameters: What the run has. None has a column and no value.
            trial_id: Equal for runs that differ in nothing but the seed: TensorBoard shows their mean as one row.
            metric_tags: Scalars that become columns, too.
            chosen: Hyperparameters to show first; TensorBoard ticks five columns and leaves the others to be ticked.
            columns: The table's columns, each with a value of its type, where other runs have other hyperparameters.
        """
        # TensorBoard takes the columns of a whole folder from the first run that it meets, so runs of one kind have to
        # declare equal bytes: no creation time, and no domain of values.
        columns = hyperparameters if columns is None else columns
        experiment = api_pb2.Experiment(
            hparam_infos=[
                api_pb2.HParamInfo(name=name, type=_data_type(value), differs=name in chosen)
                for name, value in sorted(columns.items())
            ],
            metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metric_tags],
        )
        session = plugin_data_pb2.SessionStartInfo(group_name=trial_id, start_time_secs=self.clock())
        for name, value in hyperparameters.items():
            if name in columns and value is not None:
                setattr(session.hparams[name], _value_field(value), value)
        self._add(
            env_steps,
            [
                _hparams_value(EXPERIMENT, experiment=experiment),
                _hparams_value(SESSION_START, session_start_info=session),
            ],
        )

    def session_end(self, env_steps: int, succeeded: bool) -> None:
        """Tell the HParams table how the run ended."""
        status = api_pb2.Status.Value("STATUS_SUCCESS" if succeeded else "STATUS_FAILURE")
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=self.clock())
        self._add(env_steps, [_hparams_value(SESSION_END, session_end_info=end)])

    def layout(self, env_steps: int, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Arrange curves that are read together; ``charts`` maps category to title to tags."""
        categories = [
            layout_pb2.Category(
                title=category,
                chart=[
                    layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
                    for title, tags in titles.items()
                ],
            )
            for category, titles in charts.items()
        ]
        content = layout_pb2.Layout(category=categories).SerializeToString()
        metadata = layout_metadata.create_summary_metadata()
        self._add(env_steps, [_text_value(layout_metadata.CONFIG_SUMMARY_TAG, content, metadata)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, env_steps: int, values: Sequence[Any]) -> None:
        """Write one event at this place on the x-axis."""
        summary = summary_pb2.Summary(value=values)
        self._write(event_pb2.Event(wall_time=self.clock(), step=env_steps, summary=summary))

    def _write(self, event: Any) -> None:  # noqa: ANN401 - generated protocol classes have no types
        self._file.write(record(event.SerializeToString()))


def record(data: bytes) -> bytes:
    """``data`` as TensorFlow's record files frame it: length, checksum, data, checksum."""
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted so that the checksum of data that holds checksums is still a good one."""
    crc: int = google_crc32c.value(data)
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def code_block(text: str) -> str:
    """Markdown that shows the text as it is, whatever characters it holds.

    Indented, because a fence ends at the first fence inside the text.
    """
    return textwrap.indent(text, "    ", lambda _: True)


def _data_type(value: Hyperparameter) -> int:
    """The HParams type of a value; a setting that is off (None) is a number in every configuration of ours."""
    if isinstance(value, bool):
        return int(api_pb2.DATA_TYPE_BOOL)
    return int(api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64)


def _value_field(value: Hyperparameter) -> str:
    """What a protocol buffer's ``Value`` calls the field for it."""
    if isinstance(value, bool):
        return "bool_value"
    return "string_value" if isinstance(value, str) else "number_value"


def _text_value(tag: str, content: bytes, metadata: object) -> Any:  # noqa: ANN401
    """A string tensor that a plugin reads."""
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape={}, string_val=[content])
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _hparams_value(tag: str, **content: object) -> Any:  # noqa: ANN401
    """A record that the HParams plugin reads from a tag's metadata, beside a tensor of no elements."""
    data = plugin_data_pb2.HParamsPluginData(**content).SerializeToString()
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    nothing = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={"dim": [{"size": 0}]})
    return summary_pb2.Summary.Value(tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=nothing)
