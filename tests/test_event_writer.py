from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, metadata

from ppo_cli.event_writer import EventWriter, code_block


def read(run_dir):
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run_dir), size_guidance=everything).Reload()


def raw_events(run_dir):
    return [
        Event.FromString(record)
        for path in sorted(run_dir.glob("events.out.tfevents.*"))
        for record in RawEventFileLoader(str(path)).Load()
    ]


@pytest.fixture
def writer(tmp_path):
    writer = EventWriter(tmp_path, 0, warn=pytest.fail)
    yield writer
    writer.close()


def test_scalars_are_read_back_at_their_steps(tmp_path, writer):
    writer.scalars(128, {"losses/kl": 0.25, "charts/SPS": 4210.0})
    writer.scalars(256, {"losses/kl": 0.5, "charts/SPS": 4000.0})
    events = read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("losses/kl")] == [(128, 0.25), (256, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("charts/SPS")] == [(128, 4210.0), (256, 4000.0)]


def test_more_than_ten_thousand_points_are_kept(tmp_path, writer):
    for step in range(10_050):
        writer.scalars(step, {"losses/kl": float(step)})
    assert [event.step for event in read(tmp_path).Scalars("losses/kl")] == list(range(10_050))


def test_all_scalars_of_an_update_are_one_event(tmp_path, writer):
    before = len(raw_events(tmp_path))
    writer.scalars(128, {f"losses/{index}": 0.0 for index in range(20)})
    events = raw_events(tmp_path)
    assert len(events) == before + 1
    assert len(events[-1].summary.value) == 20


def test_a_resumed_run_replaces_the_points_beyond_its_start(tmp_path):
    for start, steps, value in ((0, (10, 20, 30, 40), 1.0), (20, (30, 50), 2.0)):
        writer = EventWriter(tmp_path, start, warn=pytest.fail)
        for step in steps:
            writer.scalars(step, {"losses/kl": value})
        writer.close()
    points = [(event.step, event.value) for event in read(tmp_path).Scalars("losses/kl")]
    assert points == [(10, 1.0), (20, 1.0), (30, 2.0), (50, 2.0)]


def test_a_run_that_starts_over_in_the_same_folder_replaces_everything(tmp_path):
    for value in (1.0, 2.0):
        writer = EventWriter(tmp_path, 0, warn=pytest.fail)
        writer.scalars(0, {"losses/kl": value})
        writer.close()
    assert [event.value for event in read(tmp_path).Scalars("losses/kl")] == [2.0]


def test_a_picture_is_read_back_pixel_by_pixel(tmp_path, writer):
    rgb = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    writer.image(64, "minesweeper/board", rgb)
    (image,) = read(tmp_path).Images("minesweeper/board")
    assert (image.step, image.height, image.width) == (64, 4, 6)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), rgb)


@pytest.mark.parametrize("rgb", [np.zeros((4, 6, 3)), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8)])
def test_what_is_not_an_rgb_picture_is_refused(writer, rgb):
    with pytest.raises(ValueError, match=r"must be uint8 \[H, W, 3\], got"):
        writer.image(0, "board", rgb)


def test_text_of_any_characters_is_shown_as_code():
    from tensorboard.plugin_util import markdowns_to_safe_html

    nasty = "name: '<script>alert(1)</script>'\nfence: |\n\n  ```\n  # not a heading\n* not a bullet\n"
    html = markdowns_to_safe_html([code_block(nasty)], "".join)
    assert html.strip().startswith("<pre><code>")
    assert html.count("<") == 4  # pre, code and their ends: no character of the text became markup
    assert "&lt;script&gt;" in html


def test_text_is_read_back(tmp_path, writer):
    writer.text(7, "run/config", "clip: 0.2 — é")
    (event,) = read(tmp_path).Tensors("run/config")
    assert event.step == 7
    assert event.tensor_proto.string_val[0].decode() == "clip: 0.2 — é"


def test_the_layout_groups_the_curves_that_are_read_together(tmp_path, writer):
    writer.layout(0, {"trust region": {"KL": ["losses/kl", "losses/approx_kl"]}})
    (event,) = read(tmp_path).Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    assert layout.category[0].title == "trust region"
    assert list(layout.category[0].chart[0].multiline.tag) == ["losses/kl", "losses/approx_kl"]


def hparams(run_dir):
    return read(run_dir).PluginTagToContent("hparams")


def test_a_run_of_another_seed_belongs_to_the_same_trial_and_declares_the_same_columns(tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        writer = EventWriter(tmp_path / name, 0, warn=pytest.fail)
        writer.session_start(0, {"clip": 0.2, "target_kl": None, "rule": "safe"}, "trial-1", ["charts/episodic_return"])
        writer.close()
        contents.append(hparams(tmp_path / name))
    assert contents[0][metadata.EXPERIMENT_TAG] == contents[1][metadata.EXPERIMENT_TAG]
    starts = [metadata.parse_session_start_info_plugin_data(each[metadata.SESSION_START_INFO_TAG]) for each in contents]
    assert [start.group_name for start in starts] == ["trial-1", "trial-1"]
    assert starts[0].hparams["clip"].number_value == 0.2
    assert "target_kl" not in starts[0].hparams


def test_the_columns_have_types_and_the_metrics_that_were_named(tmp_path, writer):
    writer.session_start(0, {"clip": 0.2, "anneal": True, "rule": "safe", "target_kl": None}, "t", ["eval/return"])
    experiment = metadata.parse_experiment_plugin_data(hparams(tmp_path)[metadata.EXPERIMENT_TAG])
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "anneal": api_pb2.DATA_TYPE_BOOL,
        "clip": api_pb2.DATA_TYPE_FLOAT64,
        "rule": api_pb2.DATA_TYPE_STRING,
        "target_kl": api_pb2.DATA_TYPE_FLOAT64,
    }
    assert [info.name.tag for info in experiment.metric_infos] == ["eval/return"]


def test_chosen_columns_are_marked_so_that_tensorboard_shows_them_first(tmp_path, writer):
    writer.session_start(0, {"a": 1, "clip": 0.2, "rule": "safe"}, "t", [], chosen=["clip"])
    experiment = metadata.parse_experiment_plugin_data(hparams(tmp_path)[metadata.EXPERIMENT_TAG])
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["clip"]


@pytest.mark.parametrize(("succeeded", "status"), [(True, "STATUS_SUCCESS"), (False, "STATUS_FAILURE")])
def test_the_table_learns_how_the_run_ended(tmp_path, writer, succeeded, status):
    writer.session_end(0, succeeded=succeeded)
    end = metadata.parse_session_end_info_plugin_data(hparams(tmp_path)[metadata.SESSION_END_INFO_TAG])
    assert api_pb2.Status.Name(end.status) == status


def test_points_survive_a_full_disk_on_both_sides_of_it(tmp_path, monkeypatch):
    warnings = []
    writer = EventWriter(tmp_path, 0, warnings.append)
    writer.scalars(1, {"losses/kl": 1.0})

    def full_disk(descriptor, data, position):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full_disk)
        writer.scalars(2, {"losses/kl": 2.0})
        writer.scalars(3, {"losses/kl": 3.0})
    writer.scalars(4, {"losses/kl": 4.0})
    writer.close()
    assert [event.step for event in read(tmp_path).Scalars("losses/kl")] == [1, 4]
    assert writer.dropped == 2
    assert len(warnings) == 1


def test_writing_imports_neither_tensorflow_nor_torch():
    code = "import sys, ppo_cli.event_writer; print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_time_of_day_only_goes_forward_whatever_is_done_to_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    first = EventWriter(tmp_path, 0, warn=pytest.fail)
    for step, now in enumerate([2e9 + 1, 3e9, 1e9, 0.0]):
        monkeypatch.setattr("time.time", lambda now=now: now)
        first.scalars(step, {"losses/kl": float(step)})
    first.close()
    times = [event.wall_time for event in raw_events(tmp_path)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(2e9, abs=1)
    assert times[-1] == pytest.approx(2e9, abs=60), "neither a leap forward nor one back is believed"


def test_a_resumed_run_comes_after_its_first_part_though_the_clock_was_set_back(tmp_path, monkeypatch):
    with_right_clock = EventWriter(tmp_path, 0, warn=pytest.fail)
    with_right_clock.scalars(1, {"losses/kl": 1.0})
    with_right_clock.close()
    monkeypatch.setattr("time.time", lambda: 1e9)
    later = EventWriter(tmp_path, 1, warn=pytest.fail)
    later.scalars(2, {"losses/kl": 2.0})
    later.close()
    assert [event.step for event in read(tmp_path).Scalars("losses/kl")] == [1, 2]
    times = [event.wall_time for event in raw_events(tmp_path)]
    assert times == sorted(times)
