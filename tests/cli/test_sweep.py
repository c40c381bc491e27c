"""``ppo-train -m``: a process for each job, what one of them may do to the others, and what the same command does."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.sweep import Sweep
from tests.cli.helpers import SHORT_RUN, Shell
from tests.runs import assert_same, final_checkpoint, metrics

FAULTY = '''
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from ppo_cli.envs.probes import ActionObservationProbe
from ppo_cli.settings import Range


class Faulty(ActionObservationProbe):
    """Healthy, but for three numbers, and those the first time only."""

    def __init__(self, num_envs: int, number: int = 0, pause: Annotated[float, Range(at_least=0)] = 0.0) -> None:
        """Whatever comes, comes at the fortieth step."""
        super().__init__(num_envs)
        self.number, self.pause, self.steps = number, pause, 0

    def step(self, action):
        self.steps += 1
        time.sleep(self.pause)
        mark = Path(f"fault-{self.number}")
        if self.steps == 40 and self.number in (3, 6, 9) and not mark.exists():
            mark.touch()
            if self.number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.number == 6:
                raise RuntimeError("the sixth environment is on fire")
            while True:
                time.sleep(1)
        return super().step(action)

    def state_dict(self):
        """All that changes, so that a run goes on to the bit."""
        return {"generator": self._generator.get_state(), "state": self._state, "age": self._age, "dead": self._dead}

    def load_state_dict(self, state):
        """Put it back."""
        self._generator.set_state(state["generator"])
        self._state, self._age, self._dead = state["state"], state["age"], state["dead"]
'''
CONFIG = """
# @package _global_
env: {name: faulty, _target_: faulty.Faulty, number: 0, pause: 0.0}
"""
WORDS = (
    "--config-dir", "configs", "trust=faulty", "env=faulty", "network=mlp", "network.hidden=[8]", "num_envs=2",
    "rollout_length=16", "num_minibatches=2", "num_epochs=1", "total_env_steps=192", "accelerate=eager",
    "checkpoint_interval=32",
)  # fmt: skip


@pytest.fixture
def lab(shell: Shell) -> Shell:
    (shell.folder / "faulty.py").write_text(FAULTY)
    (shell.folder / "configs/env").mkdir(parents=True)
    (shell.folder / "configs/env/faulty.yaml").write_text(CONFIG)
    return shell


def summary_of(run: Path) -> dict[str, object]:
    summary = json.loads((run / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def sweep_folders(lab: Shell) -> list[Path]:
    return sorted(path.parent for path in lab.folder.glob("outputs/*/*/*/sweep.yaml"))


def started(out: str) -> set[str]:
    return set(re.findall(r"^  started   (\S+)", out, re.MULTILINE))


def test_of_twelve_jobs_one_killed_one_raising_and_one_hanging_harm_no_other_and_the_same_command_does_the_rest(
    lab: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppo_cli.processes.GRACE_SECONDS", 1.0)
    command = ("-m", *WORDS, "env.number=range(12)", "job_timeout=2")
    assert lab.train(*command) == 1
    (sweep,) = sweep_folders(lab)
    bad = {f"env.number={number}" for number in (3, 6, 9)}
    runs = {path.name: path for path in sweep.iterdir() if path.is_dir()}
    assert len(runs) == 12
    done = {name for name, run in runs.items() if summary_of(run)["status"] == "completed"}
    assert done == set(runs) - bad
    assert re.search(r"failed +env\.number=3 +killed by SIGKILL", lab.out)
    assert re.search(r"failed +env\.number=6 +exit code 1", lab.out)
    assert re.search(r"failed +env\.number=9 +stopped after 2 s without a sign of life", lab.out)
    listed = lab.err.split("\nnot done: ")[1:]
    assert [each.split("\n")[0].split(":")[0] for each in listed] == sorted(bad)
    assert "killed by SIGKILL" in listed[0]
    assert "RuntimeError: the sixth environment is on fire" in listed[1]
    assert "the same command again runs the 3 of 12 that are not done" in lab.out
    before = {name: (runs[name] / "metrics.jsonl").stat().st_mtime_ns for name in done}

    assert lab.train(*command) == 0, lab.err
    assert sweep_folders(lab) == [sweep]
    assert started(lab.out) == bad
    assert {name: (runs[name] / "metrics.jsonl").stat().st_mtime_ns for name in done} == before
    assert all(summary_of(run)["status"] == "completed" for run in runs.values())
    starts = {name: summary_of(runs[name])["start_env_steps"] for name in bad}
    assert starts == {"env.number=3": 64, "env.number=6": 0, "env.number=9": 64}, "resumed, anew, resumed"

    assert lab.train(*command) == 0
    assert started(lab.out) == set()
    assert "all of them are done; again=true begins anew" in lab.out


def test_a_job_of_a_sweep_is_the_run_that_it_would_be_alone(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "seed=1,2", "run_name=both") == 0
    assert lab.train(*WORDS, "seed=2", "num_threads=1", "quiet=true", "hydra.run.dir=alone") == 0
    ours, alone = lab.folder / "outputs/faulty/ppo/both/seed=2", lab.folder / "alone"
    assert metrics(ours) == metrics(alone)
    assert_same(final_checkpoint(ours), final_checkpoint(alone))


def test_again_begins_anew_and_other_settings_are_another_sweep(lab: Shell) -> None:
    command = ("-m", *WORDS, "seed=1,2", "quiet=true")
    assert lab.train(*command) == 0
    assert lab.train(*command, "again=true") == 0
    assert lab.train(*command, "clip=0.3") == 0
    assert lab.train(*command, "jobs=1") == 0, "how it is worked off makes no difference"
    assert len(sweep_folders(lab)) == 3
    assert len(lab.runs) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("range(0.1,0.4,0.1)", [0.1, 0.2, 0.3]),
        ("range(0.4,0.1,-0.1)", [0.2, 0.3, 0.4]),
        ("range(1,2,0.5)", [1.0, 1.5]),
    ],
)
def test_a_range_of_decimals_leaves_out_its_end_and_names_its_numbers_as_typed(
    lab: Shell, values: str, expected: list[float]
) -> None:
    assert lab.train("-m", *WORDS, f"clip={values}", "total_env_steps=32", "run_name=mine", "quiet=true") == 0
    assert [run.name for run in lab.runs] == [f"clip={value}" for value in expected]


def test_a_named_sweep_may_grow_and_holds_one_kind_of_runs(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "seed=1,2", "run_name=mine") == 0
    assert lab.train("-m", *WORDS, "seed=1,2,3", "run_name=mine") == 0
    assert "2 of 3 are done" in lab.out
    assert started(lab.out) == {"seed=3"}
    assert lab.train("-m", *WORDS, "seed=4,5", "run_name=mine") == 0
    assert "are done" not in lab.out
    assert started(lab.out) == {"seed=4", "seed=5"}
    for words in (["seed=1,2", "clip=0.3"], ["clip=0.1,0.3"]):
        assert lab.train("-m", *WORDS, *words, "run_name=mine") == 2
        assert lab.errors == ["outputs/faulty/ppo/mine: holds other runs; choose another run_name"]
    assert lab.train("-m", *WORDS, "seed=1,2", "run_name=mine", "again=true") == 2
    assert lab.errors == ["outputs/faulty/ppo/mine: holds this sweep already; choose another run_name"]


def test_the_answer_averages_over_seeds_and_names_the_best_settings(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "learning_rate=1e-2,1e-9", "seed=range(3)", "total_env_steps=2048", "gamma=0.5") == 0
    table = [line.split() for line in lab.out.splitlines() if " n=" in line]
    assert [row[0] for row in table] == ["learning_rate=0.01", "learning_rate=1e-09"]
    assert all(row[-1] == "n=3" for row in table)
    assert float(table[0][1]) > float(table[1][1])
    best = next(line for line in lab.out.splitlines() if line.startswith("  best"))
    assert set(best.split()) == {
        "best", "ppo-train", *(shlex.quote(word) for word in WORDS if "total" not in word), "total_env_steps=2048",
        "gamma=0.5", "learning_rate=0.01",
    }  # fmt: skip


GYMNASIUM = ("-m", "env=gymnasium", *SHORT_RUN[1:], "num_minibatches=2", "accelerate=eager", "quiet=true", "jobs=1")


@pytest.mark.parametrize(("name", "folder"), [((), "gymnasium"), (("env.name=x",), "x")])
def test_a_sweep_over_environments_of_gymnasium_goes_on_as_any_other(
    shell: Shell, name: tuple[str, ...], folder: str
) -> None:
    command = (*GYMNASIUM, "env.id=CartPole,FrozenLake-v1", *name)
    assert shell.train(*command) == 0, shell.err
    (sweep,) = (shell.folder / "outputs" / folder / "ppo").iterdir()
    assert [run.name for run in shell.runs] == ["env.id=CartPole", "env.id=FrozenLake-v1"]
    names = [yaml.safe_load((run / "config.yaml").read_text())["env"]["name"] for run in shell.runs]
    assert names == ([folder] * 2 if name else ["CartPole", "FrozenLake-v1"])
    before = [summary_of(run) for run in shell.runs]
    assert shell.train(*command) == 0
    assert [summary_of(run) for run in shell.runs] == before, "nothing was left to do"
    assert list(sweep.parent.iterdir()) == [sweep]


def test_several_seeds_inside_a_sweep(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "clip=0.1,0.2", "seeds=3") == 0
    (sweep,) = sweep_folders(lab)
    assert {str(run.relative_to(sweep)) for run in lab.runs} == {
        f"clip={clip}/seed={seed}" for clip in (0.1, 0.2) for seed in (1, 2, 3)
    }
    assert len(re.findall(r"^  clip=0\.[12] .* n=3$", lab.out, re.MULTILINE)) == 2
    assert lab.train("-m", *WORDS, "clip=0.1,0.2", "seeds=3") == 0
    assert started(lab.out) == set()


def test_a_seed_that_two_jobs_share_counts_once(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "seeds=2,3") == 0
    assert len(re.findall(r"^  all jobs .* n=3$", lab.out, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("overrides.yaml", "clip: 0.1"),
        ("overrides.yaml", "- clip=0.1\n- ["),
        ("overrides.yaml", None),
        ("summary.json", '{"status": "completed", "exit_code": 0, "final": [1]}'),
        ("summary.json", '{"status": "completed", "exit_code": 0, "final": {"charts/episodic_return": "x"}}'),
    ],
)
def test_a_damaged_file_of_one_run_costs_its_line_and_not_the_sweeps_answer(
    lab: Shell, file: str, damage: str | None
) -> None:
    words = ("-m", *WORDS, "clip=0.1,0.2", "run_name=mine")
    assert lab.train(*words) == 0
    path = lab.folder / "outputs/faulty/ppo/mine/clip=0.1" / file
    path.unlink() if damage is None else path.write_text(damage)
    assert lab.train(*words) == 0
    assert "not done" not in lab.out + lab.err
    assert re.search(r"^  clip=0\.2 .* n=1$", lab.out, re.MULTILINE)


def test_every_run_of_a_sweep_over_algorithms_declares_the_columns_of_all(lab: Shell) -> None:
    words = [word for word in WORDS if not word.startswith(("num_minibatches", "num_epochs"))]
    assert lab.train("-m", *words, "algo=ppo,trpo", "seeds=1", "quiet=true") == 0
    folder = next((lab.folder / "outputs").glob("sweeps/sweep_*"))
    runs = sorted(path.parent for path in folder.glob("*/seed=1/config.yaml"))
    assert [run.parent.name for run in runs] == ["algo=ppo", "algo=trpo"]
    ppo, trpo = (hparams(run) for run in runs)
    assert ppo[0] == trpo[0]
    names = {info.name: info.differs for info in ppo[0].hparam_infos}
    assert names["algo.name"]
    assert [names["clip"], names["max_kl"]] == [False, False]
    assert [("clip" in start.hparams, "max_kl" in start.hparams) for _, start in (ppo, trpo)] == [
        (True, False),
        (False, True),
    ]


def hparams(run: Path) -> tuple[Any, Any]:
    """What a run tells TensorBoard of the table's columns, and of its own row."""
    content = EventAccumulator(str(run)).Reload().PluginTagToContent("hparams")
    return (
        metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG]),
        metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG]),
    )


def test_no_more_jobs_run_at_once_than_asked_for_and_the_cores_are_divided(lab: Shell) -> None:
    assert lab.train("-m", *WORDS, "seed=range(4)", "jobs=1") == 0
    events = re.findall(r"^  (started|done) ", lab.out, re.MULTILINE)
    assert events == ["started", "done"] * 4
    threads = {re.search(r"device +cpu, (\d+) thread", (run / "output.log").read_text()) for run in lab.runs}
    assert {match.group(1) for match in threads if match} == {str(len(os.sched_getaffinity(0)))}


def test_a_mistake_that_only_the_objects_can_tell_fails_that_job_alone(lab: Shell) -> None:
    assert lab.train("-m", *WORDS[:4], "network=mlp,conv", *WORDS[6:]) == 1
    assert re.search(r"failed +network=conv +exit code 2", lab.out)
    assert re.search(r"done +network=mlp", lab.out)


def start(lab: Shell, *words: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, to be signalled."""
    command = [sys.executable, "-m", "ppo_cli", "train", "-m", *WORDS, *words]
    return subprocess.Popen(command, cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 200 s")


def processes_in(folder: Path) -> list[int]:
    """Processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and (process / "stat").read_text().rsplit(")")[-1].split()[
                0
            ] != "Z":
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_saves_every_job_and_the_same_command_goes_on_to_the_same_bits(
    lab: Shell, number: int, code: int
) -> None:
    slow = ("seed=1,2", "env.pause=0.02", "run_name=sweep", "jobs=2")
    process = start(lab, *slow)
    sweep = lab.folder / "outputs/faulty/ppo/sweep"
    wait_until(lambda: all((sweep / f"seed={seed}/metrics.jsonl").exists() for seed in (1, 2)))
    time.sleep(0.5)
    os.kill(process.pid, number)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in errors, "not done:" in errors) == (code, False, False), errors
    assert "the same command again runs the 2 of 2 that are not done" in out
    assert [summary_of(run)["status"] for run in lab.runs] == ["interrupted", "interrupted"]
    assert processes_in(lab.folder) == [os.getpid()]
    assert lab.train("-m", *WORDS, *slow) == 0, lab.err
    assert lab.train("-m", *WORDS, "seed=1,2", "env.pause=0.02", "run_name=whole", "jobs=2") == 0
    for seed in (1, 2):
        whole = lab.folder / f"outputs/faulty/ppo/whole/seed={seed}"
        assert metrics(sweep / f"seed={seed}") == metrics(whole)
        assert_same(final_checkpoint(sweep / f"seed={seed}"), final_checkpoint(whole))


def test_no_job_outlives_a_killed_sweep_which_can_then_go_on(lab: Shell) -> None:
    words = ("seed=1,2,3", "env.pause=0.05", "run_name=sweep", "jobs=2")
    process = start(lab, *words)
    sweep = lab.folder / "outputs/faulty/ppo/sweep"
    wait_until(lambda: len(list(sweep.glob("*/checkpoints/*.pt"))) >= 2)
    assert len(processes_in(lab.folder)) >= 4, "this one, the sweep and two jobs"
    assert lab.train("-m", *WORDS, *words) == 2
    assert lab.errors == ["outputs/faulty/ppo/sweep: another process is at work in it; again=true begins another"]
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: processes_in(lab.folder) == [os.getpid()])
    assert [summary_of(run)["status"] for run in lab.runs] == ["running", "running"]
    assert lab.train("-m", *WORDS, *words) == 0
    starts = [summary_of(sweep / f"seed={seed}")["start_env_steps"] for seed in (1, 2, 3)]
    assert all(starts[:2])
    assert starts[2] == 0


@pytest.mark.parametrize("launcher", ["basic", "joblib", pytest.param("submitit_local", marks=pytest.mark.slow)])
def test_hydras_launchers_do_the_same_jobs(lab: Shell, launcher: str) -> None:
    pytest.importorskip({"joblib": "hydra_plugins.hydra_joblib_launcher", "basic": "hydra"}.get(launcher, "submitit"))
    words = ("-m", *WORDS, "clip=0.1,0.2", "run_name=sweep", f"launcher={launcher}", "quiet=true")
    assert lab.train(*words) == 0, lab.err
    assert [run.name for run in lab.runs] == ["clip=0.1", "clip=0.2"]
    times = [(run / "metrics.jsonl").stat().st_mtime_ns for run in lab.runs]
    assert lab.train(*words) == 0
    assert [(run / "metrics.jsonl").stat().st_mtime_ns for run in lab.runs] == times, "what is done is not done again"


def test_a_launcher_that_is_not_installed_is_named_with_its_extra(lab: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_is_installed(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("ppo_cli.cli.launcher.version", nothing_is_installed)
    assert lab.train("-m", *WORDS, "clip=0.1,0.2", "launcher=joblib") == 2
    needed = "needs hydra-joblib-launcher, which is not installed: pip install 'ppo-cli[joblib]'"
    assert lab.errors == [f"launcher=joblib: {needed}"]


def test_the_settings_for_slurm_compose(lab: Shell) -> None:
    pytest.importorskip("submitit")
    words = ("launcher=slurm", "hydra.launcher.partition=short", "--cfg", "hydra")
    assert lab.train("-m", *WORDS, "clip=0.1,0.2", *words) == 0
    assert "partition: short" in lab.out
    assert "submitit_launcher.SlurmLauncher" in lab.out


def cpu_seconds(*commands: list[str], folder: Path) -> float:
    """User and system time of the commands and all that they start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        subprocess.run([sys.executable, "-m", "ppo_cli", "train", *command], cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_a_job_of_a_sweep_costs_at_most_a_tenth_more_than_the_same_run_alone(tmp_path: Path) -> None:
    """In processor time: the wall clock knows what else the machine does."""
    words = ["env=cartpole", "total_env_steps=100000", "quiet=true", "num_threads=1"]
    cpu_seconds(words, folder=tmp_path)  # compiles, where nothing has been compiled yet
    bare = cpu_seconds(*([*words, f"seed={seed}"] for seed in range(1, 7)), folder=tmp_path)
    swept = cpu_seconds(["-m", *words, "seed=range(1,7)"], folder=tmp_path)
    assert swept <= 1.1 * bare


@pytest.mark.parametrize("name", ["env.kwargs.max_episode_steps", "++clip"])
def test_a_setting_with_pluses_is_swept_like_any_other(lab: Shell, name: str) -> None:
    values = ("20", "30") if name.startswith("env") else ("0.1", "0.2")
    env = ["env=gymnasium", "env.id=CartPole-v1", "env.vectorization=sync"] if name.startswith("env") else []
    words = [word for word in WORDS if not (env and word.startswith("env"))]
    assert lab.train("-m", *words, *env, f"{name}={','.join(values)}", "seed=1,2") == 0, lab.err
    plain = name.lstrip("+")
    assert {run.name for run in lab.runs} == {f"{plain}={value},seed={seed}" for value in values for seed in (1, 2)}
    assert len(re.findall(rf"^  {re.escape(plain)}=\S+ .* n=2$", lab.out, re.MULTILINE)) == 2
    best = next(line for line in lab.out.splitlines() if line.startswith("  best"))
    assert f" {plain}=" in best


def test_two_jobs_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(UserError, match=r"env\.id=a/b and env\.id=a-b: both runs would be called env\.id=a-b;"):
        Sweep("", "", [], {"env.id": ["a/b", "a-b"]}).jobs()
    assert Sweep("", "", [], {"clip": ["0.1", "0.1"], "seed": ["1", "2"]}).job_names() == [
        "clip=0.1,seed=1",
        "clip=0.1,seed=2",
    ]
