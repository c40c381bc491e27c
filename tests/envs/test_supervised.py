"""Workers that are killed, hang or raise: what is left of the step, who is told, and that no process stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli.envs import supervised
from ppo_cli.envs.base import EnvError, Fault
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.supervised import SupervisedVectorEnv, Worker, merged
from ppo_cli.envs.worker import IGNORED, own_traceback
from tests.envs.faulty import VICTIM, register

SEEDS = [20, 21, VICTIM, 23, 24]
ACTION = torch.zeros(len(SEEDS), dtype=torch.int64)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make() -> Iterator[Any]:
    made = []

    def make_env(what: str = "nothing", vectorization: str = "async", **settings: Any) -> GymnasiumVecEnv:
        kwargs = {"what": what} | settings.pop("kwargs", {})
        env = GymnasiumVecEnv(
            len(SEEDS), register(), kwargs, vectorization, **({"num_workers": 3, "timeout": 1.0} | settings)
        )
        made.append(env)
        env.reset(SEEDS)
        return env

    yield make_env
    for env in made:
        env.close()


def workers(env: GymnasiumVecEnv) -> list[Worker]:
    assert isinstance(env._env, SupervisedVectorEnv)
    return env._env.workers


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, pids))


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("kill", "environment 2: its worker process was killed by SIGKILL"),
        ("exit", "environment 2: its worker process ended (exit code 7)"),
        ("hang", "environment 2: no answer within 1 s"),
    ],
)
def test_a_failed_worker_is_replaced_and_only_its_environments_begin_anew(make: Any, what: str, cause: str) -> None:
    env = make(what)
    for n in range(1, 4):
        assert env.step(ACTION).obs[:, 0].tolist() == [n] * 5
        assert env.faults() == []
    step = env.step(ACTION)
    assert env.faults() == [Fault([1, 2], "restart", cause)]
    assert env.faults() == [], "told once"
    assert step.obs[:, 0].tolist() == [4, 0, 0, 4, 4]
    assert step.reward.tolist() == [1, 0, 0, 1, 1]
    assert not (step.terminated | step.truncated).any()
    for n in range(1, 12):
        step = env.step(ACTION)
        assert step.obs[:, 0].tolist() == [(4 + n) % 10, n % 10, n % 10, (4 + n) % 10, (4 + n) % 10]
    assert env.faults() == []


def test_a_worker_that_dies_while_nobody_waits_for_it_is_replaced_too(make: Any) -> None:
    env = make()
    env.step(ACTION)
    os.kill(workers(env)[0].process.pid, signal.SIGKILL)
    workers(env)[0].process.join()
    assert env.step(ACTION).obs[:, 0].tolist() == [0, 2, 2, 2, 2]
    os.kill(workers(env)[2].process.pid, signal.SIGKILL)
    assert env.reset(SEEDS)[:, 0].tolist() == [0] * 5
    assert [fault.envs for fault in env.faults()] == [[0], [3, 4]]


def test_a_worker_that_is_killed_while_it_starts_is_replaced_too(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env, starts = make(), []
    start = workers(env)[0]._start

    def start_third_time(*arguments: Any) -> Any:
        starts.append(arguments)
        if len(starts) < 3:
            raise (BrokenPipeError, EOFError)[len(starts) - 1]("killed before it could read")
        return start(*arguments)

    monkeypatch.setattr(workers(env)[0], "_start", start_third_time)
    os.kill(workers(env)[0].process.pid, signal.SIGKILL)
    workers(env)[0].process.join()
    assert env.step(ACTION).obs[:, 0].tolist() == [0, 1, 1, 1, 1]
    assert [fault.envs for fault in env.faults()] == [[0]] * 3


def test_workers_outlive_the_process_that_forked_them_in_others(make: Any) -> None:
    env = make()
    (parent,) = {
        int(Path(f"/proc/{w.process.pid}/stat").read_text().rpartition(")")[2].split()[1]) for w in workers(env)
    }
    os.kill(parent, signal.SIGKILL)
    assert gone([worker.process.pid for worker in workers(env)])
    assert env.step(ACTION).obs[:, 0].tolist() == [0] * 5
    assert len(env.faults()) == 3
    assert env.step(ACTION).obs[:, 0].tolist() == [1] * 5


def test_fresh_episodes_have_seeds_of_their_own_and_the_same_ones_each_time() -> None:
    first, second = supervised.fresh_seeds(SEEDS, 1), supervised.fresh_seeds(SEEDS, 2)
    assert first == supervised.fresh_seeds(SEEDS, 1)
    assert len({*SEEDS, *first, *second}) == 15


def test_one_restart_too_many_is_an_error_that_says_which_and_why(make: Any) -> None:
    env = make("kill", max_restarts=0)
    for _ in range(3):
        env.step(ACTION)
    with pytest.raises(EnvError) as caught:
        env.step(ACTION)
    assert str(caught.value) == (
        "environment 2: its worker process was killed by SIGKILL; env.max_restarts=0 allows no further restart"
    )


@pytest.mark.parametrize("what", ["raise", "raise at reset"])
def test_an_environment_that_raises_is_not_restarted_and_shows_its_own_traceback(make: Any, what: str) -> None:
    with pytest.raises(EnvError) as caught:
        env = make(what)
        for _ in range(4):
            env.step(ACTION)
    assert str(caught.value).startswith("environment 2: raised ZeroDivisionError: ")
    lines = caught.value.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] in ("ZeroDivisionError: the pole has no length", "ZeroDivisionError: nothing to start from")
    files = [line for line in lines if line.startswith("  File ")]
    assert all("tests/envs/faulty.py" in line for line in files), files
    assert len(files) == (2 if what == "raise" else 1)


def test_a_traceback_without_lines_of_the_environments_own_is_shown_whole() -> None:
    try:
        gym.make("CartPole-v1").step(0)  # Gymnasium refuses: there was no reset
    except Exception as error:
        assert "order_enforcing.py" in own_traceback(error) or "gymnasium" in own_traceback(error)


def test_an_answer_within_the_time_is_waited_for_and_a_stopped_run_has_not_waited(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tick of 0.2 s, of which the timeout holds five: each wait counts as one tick however long it was."""
    env = make()
    monkeypatch.setattr(supervised, "TICK", 0.2)
    waits = []

    class Sleepy:
        """A poll that comes back an hour late, as after Ctrl-Z, and the first three times with nothing."""

        def __init__(self) -> None:
            self.inner = original()
            self.register, self.unregister = self.inner.register, self.inner.unregister

        def poll(self, milliseconds: float) -> Any:
            waits.append(milliseconds)
            return [] if len(waits) < 4 else self.inner.poll(2000)

    original = supervised.select.poll
    monkeypatch.setattr(supervised.select, "poll", Sleepy)
    assert env.step(ACTION).obs[:, 0].tolist() == [1] * 5
    assert waits[:4] == [200] * 4
    assert env.faults() == []


def test_signals_to_the_whole_group_leave_workers_to_the_run(make: Any) -> None:
    env = make()
    for worker in workers(env):
        for number in IGNORED:
            os.kill(worker.process.pid, number)
    assert env.step(ACTION).obs[:, 0].tolist() == [1] * 5
    assert env.faults() == []


def test_closing_ends_every_worker_also_one_that_is_stuck(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "CLOSE_TIMEOUT", 1.0)
    env = make()
    pids = [worker.process.pid for worker in workers(env)]
    os.kill(pids[1], signal.SIGSTOP)
    begun = time.monotonic()
    env.close()
    assert gone(pids)
    assert time.monotonic() - begun < 10


SCRIPT = """
import os, signal, sys
import torch
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
env = GymnasiumVecEnv(2, 'CartPole-v1', vectorization='async', num_workers=2)
env.reset([1, 2])
print(*[worker.process.pid for worker in env._env.workers], flush=True)
how = sys.argv[1]
if how == 'stuck':
    os.kill(env._env.workers[0].process.pid, signal.SIGSTOP)
if how in ('killed', 'stuck'):
    os.kill(os.getpid(), signal.SIGKILL)
if how == 'raises':
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("killed", -9), ("stuck", -9), ("forgotten", 0), ("raises", 3)])
def test_no_worker_outlives_the_run_however_it_ends(how: str, code: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True, env=environment, timeout=120
    )
    pids = [int(pid) for pid in ended.stdout.split()]
    assert (ended.returncode, len(pids)) == (code, 2)
    assert gone(pids)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_workers_answer_what_a_single_process_would(make: Any, autoreset: str) -> None:
    settings: dict[str, Any] = {"autoreset": autoreset, "kwargs": {"has_mask": True, "truncates": True}}
    ours, theirs = make(**settings), make(vectorization="sync", **settings)
    for _ in range(25):
        for mine, other in zip(ours.step(ACTION), theirs.step(ACTION), strict=True):
            if isinstance(mine, dict):
                assert all(torch.equal(mine[key], other[key]) for key in ("obs", "legal"))
            else:
                assert torch.equal(mine, other)


def test_infos_of_the_workers_are_put_together_as_gymnasium_would() -> None:
    singles: list[dict[str, Any]] = [
        {"score": 3, "nested": {"x": 1.5}},
        {},
        {"score": 4, "name": "third", "final_obs": np.ones(2)},
        {"vector": np.array([1, 2]), "nested": {"y": True}},
    ]

    class Adder(gym.vector.VectorEnv):  # type: ignore[type-arg]
        def infos(self, singles: list[dict[str, Any]]) -> dict[str, Any]:
            self.num_envs, found = len(singles), {}
            for n, info in enumerate(singles):
                found = self._add_info(found, info, n)
            return found

    together = merged([Adder().infos(singles[:1]), Adder().infos(singles[1:])], [1, 3])
    expected = Adder().infos(singles)
    assert str({key: together[key] for key in sorted(together)}) == str({k: expected[k] for k in sorted(expected)})


def test_observations_that_are_no_array_are_refused_before_a_process_starts() -> None:
    space = spaces.Sequence(spaces.Discrete(2))
    gym.register("test/Odd-v0", entry_point="tests.envs.faulty:Faulty", disable_env_checker=True)
    try:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="do not become one array"):
            patch.setattr("tests.envs.faulty.Faulty.observation_space", space)
            GymnasiumVecEnv(2, "test/Odd-v0", vectorization="async")
    finally:
        del gym.registry["test/Odd-v0"]
