from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from ppo_cli.logger import RunLogger, read_scalars

CONFIG = {"clip": 0.2, "seed": 1, "target_kl": None, "env": {"_target_": "a.B", "mines": 10}}

CANONICAL_TAGS = {
    *("charts/episodic_return", "charts/episodic_length", "charts/learning_rate"),
    *("losses/policy_loss", "losses/value_loss", "losses/entropy", "losses/old_approx_kl", "losses/approx_kl"),
    *("losses/clipfrac", "losses/explained_variance", "losses/kl", "losses/grad_norm", "losses/ratio_max"),
    *("time/update_share", "eval/episodic_return", "minesweeper/win_rate"),
}


def make_logger(run_dir, **settings):
    return RunLogger(run_dir, **{"total_env_steps": 100, "config": CONFIG, "display": "silent", **settings})


def points(run_dir, tag):
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def metrics_lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


def test_every_tag_is_written_under_the_name_that_dashboards_read(tmp_path):
    logger = make_logger(tmp_path)
    logger.log(10, 1, {tag: torch.tensor(0.5) for tag in CANONICAL_TAGS})
    expected = CANONICAL_TAGS | {"charts/SPS", "time/SPS_total"}
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert set(events.Tags()["scalars"]) == expected
    assert set(metrics_lines(tmp_path)[0]) == expected | {"env_steps", "update", "wall_time"}


def test_a_value_is_the_same_in_every_place(tmp_path):
    logger = make_logger(tmp_path)
    returned = logger.log(10, 1, {"losses/kl": torch.tensor(0.25), "charts/learning_rate": 0.5})
    logger.finish("completed")
    assert (returned["losses/kl"], returned["charts/learning_rate"]) == (0.25, 0.5)
    assert points(tmp_path, "losses/kl") == [(10, 0.25)]
    (line,) = metrics_lines(tmp_path)
    assert (line["env_steps"], line["update"], line["losses/kl"]) == (10, 1, 0.25)
    assert summary(tmp_path)["final"]["losses/kl"] == 0.25


def test_no_value_is_null_in_json_and_a_gap_in_the_curve(tmp_path):
    logger = make_logger(tmp_path)
    logger.log(10, 1, {"losses/kl": torch.tensor(math.nan)})
    logger.log(20, 2, {"losses/kl": torch.tensor(1.0)})
    logger.log(30, 3, {"losses/kl": torch.tensor(math.inf)})
    logger.finish("completed")
    assert [line["losses/kl"] for line in metrics_lines(tmp_path)] == [None, 1.0, None]
    assert points(tmp_path, "losses/kl") == [(20, 1.0), (30, math.inf)]
    assert summary(tmp_path)["final"]["losses/kl"] is None


def test_tensors_on_a_device_are_read_in_one_transfer(monkeypatch):
    class Away(torch.Tensor):
        """Stands in for a tensor on an accelerator."""

        is_cpu = False
        __torch_function__ = torch._C._disabled_torch_function_impl

        def detach(self):
            return self

    transfers = []
    real_tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: transfers.append(len(self)) or real_tolist(self))
    away = {f"losses/{index}": torch.tensor(float(index)).as_subclass(Away) for index in range(5)}
    values = read_scalars({"charts/episodes": torch.tensor(2.0**53, dtype=torch.float64), **away, "lr": 0.1})
    assert transfers == [5]
    assert list(values.items()) == [
        ("charts/episodes", 2.0**53),
        *((f"losses/{index}", float(index)) for index in range(5)),
        ("lr", 0.1),
    ]


def test_a_tensor_with_a_graph_is_a_number_like_any_other():
    assert read_scalars({"loss": torch.tensor(2.0, requires_grad=True) * 3}) == {"loss": 6.0}


def test_rates_and_times_do_not_follow_a_clock_that_leaps(tmp_path, monkeypatch):
    logger = make_logger(tmp_path)
    begun = time.time()
    for step, leap in enumerate([0.0, 1e6, -1e6, 0.0], start=1):
        monkeypatch.setattr("time.time", lambda leap=leap: begun + leap)
        assert not logger.log(10 * step, step, {})["charts/SPS"] < 0
    logger.finish("completed")
    times = [line["wall_time"] for line in metrics_lines(tmp_path)]
    assert times == sorted(times)
    assert times[-1] - times[0] < 60
    assert summary(tmp_path)["started"] <= summary(tmp_path)["ended"]
    assert 0 <= summary(tmp_path)["wall_seconds"] < 60


def test_the_folder_says_what_is_run_before_the_first_update(tmp_path):
    make_logger(tmp_path, overrides=["env=minesweeper", "clip=0.2"])
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == CONFIG
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == ["env=minesweeper", "clip=0.2"]
    assert summary(tmp_path)["status"] == "running"
    assert summary(tmp_path)["versions"]["torch"] == torch.__version__
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"run/config", "run/command", "run/versions"} <= set(events.Tags()["tensors"])


def test_the_summary_of_a_completed_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ppo-train", "clip=0.2"])
    logger = make_logger(tmp_path)
    for update in (1, 2, 3):
        logger.log(10 * update, update, {"charts/episodic_return": float(update)})
    logger.finish("completed", final={"eval/win_rate": 0.7})
    found = summary(tmp_path)
    assert (found["status"], found["exit_code"], found["error"]) == ("completed", 0, None)
    assert (found["env_steps"], found["updates"], found["total_env_steps"]) == (30, 3, 100)
    assert found["final"]["charts/episodic_return"] == 3.0
    assert found["final"]["eval/win_rate"] == 0.7
    assert found["command"] == "ppo-train clip=0.2"
    assert found["dropped_records"] == 0
    assert found["steps_per_second"] > 0
    assert found["started"] <= found["ended"]


@pytest.mark.parametrize(("status", "exit_code"), [("interrupted", 130), ("failed", 1)])
def test_a_run_that_does_not_complete_says_why(tmp_path, status, exit_code):
    logger = make_logger(tmp_path)
    logger.finish(status, error="the gradient is not finite")
    found = summary(tmp_path)
    assert (found["status"], found["exit_code"]) == (status, exit_code)
    assert found["error"] == "the gradient is not finite"
    assert found["steps_per_second"] is None


def test_the_caller_may_know_a_better_exit_code(tmp_path):
    make_logger(tmp_path).finish("interrupted", exit_code=143)
    assert summary(tmp_path)["exit_code"] == 143


def test_neither_the_environment_nor_the_machine_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-hunter2")
    logger = make_logger(tmp_path)
    logger.log(10, 1, {"losses/kl": 0.1})
    logger.finish("completed")
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.iterdir())
    (events,) = tmp_path.glob("events*")
    assert re.fullmatch(r"events\.out\.tfevents\.\d+\.\d+", events.name)  # TensorBoard's own writers add the host


def test_a_resumed_run_joins_its_first_part(tmp_path):
    first = make_logger(tmp_path)
    for update in (1, 2, 3):
        first.log(10 * update, update, {"losses/kl": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 4')  # the process was killed here
    resumed = make_logger(tmp_path, start_env_steps=20)
    resumed.log(30, 3, {"losses/kl": 2.0})
    resumed.log(40, 4, {"losses/kl": 2.0})
    resumed.finish("completed")
    expected = [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]
    assert points(tmp_path, "losses/kl") == expected
    assert [(line["env_steps"], line["losses/kl"]) for line in metrics_lines(tmp_path)] == expected
    assert summary(tmp_path)["start_env_steps"] == 20


def test_a_run_that_starts_over_in_the_same_folder_leaves_no_old_lines(tmp_path):
    make_logger(tmp_path).log(0, 0, {"losses/kl": 1.0})
    make_logger(tmp_path).log(10, 1, {"losses/kl": 2.0})
    assert [line["env_steps"] for line in metrics_lines(tmp_path)] == [10]


PROLOGUE = """
import os, signal, sys
from pathlib import Path
from ppo_cli.logger import RunLogger
run_dir = Path(sys.argv[1])
logger = RunLogger(run_dir, total_env_steps=1000, config={"clip": 0.2}, display=sys.argv[2])
"""


def run_script(body, *arguments):
    """Run a few lines that log, in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", PROLOGUE + body, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_a_killed_run_loses_no_update(tmp_path):
    killed = run_script(
        """
for update in range(1, 51):
    logger.log(10 * update, update, {"losses/kl": update / 64})
os.kill(os.getpid(), signal.SIGKILL)
""",
        tmp_path,
        "silent",
    )
    assert killed.returncode == -signal.SIGKILL
    expected = [(10 * update, update / 64) for update in range(1, 51)]
    assert points(tmp_path, "losses/kl") == expected
    assert [(line["env_steps"], line["losses/kl"]) for line in metrics_lines(tmp_path)] == expected
    assert summary(tmp_path)["status"] == "running"


def test_a_disk_that_fills_up_costs_log_lines_and_not_the_run(tmp_path):
    finished = run_script(
        """
import resource
size = max(path.stat().st_size for path in run_dir.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, size + 500))
for update in range(1, 51):
    logger.log(10 * update, update, {f"losses/{index}": 0.5 for index in range(20)})
logger.finish("completed")
print("trained to the end")
""",
        tmp_path,
        "silent",
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "trained to the end\n"
    assert finished.stderr.count("warning: cannot write") == 2  # once for each file, not once for each update
    found = summary(tmp_path)
    assert found["status"] == "completed"
    assert 0 < found["dropped_records"] <= 101
    written = metrics_lines(tmp_path)
    assert len(written) < 50
    assert [line["update"] for line in written] == list(range(1, len(written) + 1))


def test_a_piped_run_prints_its_facts_its_progress_and_where_to_look(tmp_path):
    piped = run_script(
        """
logger.start({"batch": "4,096 = 64 envs x 64 steps"})
logger.log(500, 1, {"charts/episodic_return": 0.5, "losses/kl": 0.01})
logger.log(1000, 2, {"charts/episodic_return": 0.75, "losses/kl": 0.01})
final = {"eval/episodic_return": 0.875, "eval/minesweeper/win_rate": 0.7}
logger.finish("completed", final=final, checkpoint=run_dir / "checkpoints/step_000000001000.pt")
""",
        tmp_path / "two words",
        "auto",
    )
    lines = [line.split() for line in piped.stdout.splitlines() if line]
    folder = str(tmp_path / "two words")
    assert lines[0] == ["batch", "4,096", "=", "64", "envs", "x", "64", "steps"]
    assert lines[1] == f"run folder {folder}".split()
    assert lines[2][:4] == ["500", "/", "1,000", "steps"]
    assert lines[3][:4] == ["1,000", "/", "1,000", "steps"]
    assert lines[4][:3] == ["completed", "1,000", "steps"]
    assert lines[5] == ["reached", "return", "0.75"]
    assert lines[6] == ["evaluated", "return", "0.88", "win", "70.0", "%"]
    assert f"  tensorboard --logdir '{folder}'\n" in piped.stdout
    assert f"  ppo-eval '{folder}'\n" in piped.stdout


def test_a_run_without_a_checkpoint_is_not_said_to_be_ready_for_evaluation_or_going_on(tmp_path):
    failed = run_script('logger.finish("failed", error="of NaN")', tmp_path, "auto")
    assert "failed" in failed.stdout
    assert "ppo-eval" not in failed.stdout and "resume=" not in failed.stdout


def test_paths_are_shown_as_one_would_type_them_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_logger(tmp_path / "outputs" / "run", display="plain").finish("completed")
    assert "tensorboard --logdir outputs/run\n" in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "run"
    make_logger(run, display="plain").finish("interrupted", checkpoint=run / "checkpoints/step_000000000064.pt")
    assert "ppo-train resume=outputs/run\n" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        make_logger(tmp_path / "file" / "run")


def first_columns(run_dir):
    events = EventAccumulator(str(run_dir)).Reload()
    (content, *_) = [
        content for tag, content in events.PluginTagToContent("hparams").items() if tag == metadata.EXPERIMENT_TAG
    ]
    return [info.name for info in metadata.parse_experiment_plugin_data(content).hparam_infos if info.differs]


def test_what_was_typed_leads_the_hparams_table_and_a_run_that_goes_on_keeps_it(tmp_path):
    typed = ["env=minesweeper", "env.mines=10", "clip=0.2", "seed=1", "total_env_steps=100"]
    make_logger(tmp_path / "a", overrides=typed).finish("interrupted")
    assert first_columns(tmp_path / "a") == ["clip", "env.mines"]
    for path in (tmp_path / "a").glob("events*"):
        path.unlink()
    make_logger(tmp_path / "a", overrides=["target_kl=1"], resumed={}, start_env_steps=10).finish("completed")
    assert first_columns(tmp_path / "a") == ["clip", "env.mines"]


@pytest.mark.parametrize("content", [b"", b"{", b"words", b"\xff"])
def test_a_run_goes_on_beside_a_damaged_list_of_what_was_typed(tmp_path, content):
    make_logger(tmp_path).finish("interrupted")
    (tmp_path / "overrides.yaml").write_bytes(content)
    make_logger(tmp_path, resumed={}, start_env_steps=10).finish("completed")
    assert summary(tmp_path)["status"] == "completed"
