"""`ppo-play` from the command line: what it prints, writes and refuses."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

from ppo_cli.cli import train as train_command
from ppo_cli.play.terminal import ENTER, LEAVE
from tests.cli.helpers import Shell

SHORT = ["num_envs=2", "rollout_length=16", "num_minibatches=2", "num_threads=1", "quiet=true"]
BOARD = ["env=minesweeper", "env.height=3", "env.width=3", "env.mines=2", "network=board", "network.channels=8"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short runs: two on the same board, one on a cart, one on a Gymnasium environment."""
    folder = tmp_path_factory.mktemp("trained")
    runs = {
        "ours": [*BOARD, "total_env_steps=64", "checkpoint_interval=32"],
        "theirs": [*BOARD, "total_env_steps=32", "seed=2", "env.reward=win"],
        "cart": ["env=cartpole", "total_env_steps=64"],
        "hot": ["env=gymnasium", "env.id=FrozenLake-v1", "total_env_steps=64"],
    }
    for name, words in runs.items():
        assert train_command.main([*words, *SHORT, f"run_name={name}", f"output_dir={folder}"]) == 0
    for run in folder.glob("*/*/*"):
        run.rename(folder / run.name)
    return folder


@pytest.fixture
def played(shell: Shell, trained: Path) -> Shell:
    shutil.copytree(trained, shell.folder, dirs_exist_ok=True)
    return shell


def test_without_a_terminal_a_game_is_printed_and_nothing_waits(played: Shell) -> None:
    assert played.play("ours", "seed=3", "episodes=2") == 0
    lines = played.out.splitlines()
    assert lines[0].startswith("ours   seed 3   click 1: row ")
    assert lines[-1].startswith("ours: won ") and lines[-1].endswith(" of 2")
    assert "\033" not in played.out
    first = played.out
    assert played.play("ours", "seed=3", "episodes=2") == 0
    assert played.out == first


def test_two_runs_and_a_checkpoint_play_the_same_seeds(played: Shell) -> None:
    (early,) = (played.folder / "ours/checkpoints").glob("*32.pt")
    assert played.play("ours", "theirs", str(early), "episodes=2") == 0
    assert [line.partition(":")[0] for line in played.out.splitlines()[-3:]] == ["ours", "theirs", "ours, 32 steps"]
    assert all(f"{name}   seed 2   " in played.out for name in ("ours", "theirs", "ours, 32 steps"))


def test_any_environment_tells_how_its_episodes_ended(played: Shell) -> None:
    assert played.play("cart", "episodes=2") == 0
    ends = played.out.splitlines()
    assert len(ends) == 3 and all("ended at step" in line for line in ends[:2])
    assert ends[2].startswith("cart: mean return ")


@pytest.mark.parametrize("name", ["ours", "cart", "hot"])
def test_an_animation_has_every_moment(played: Shell, name: str) -> None:
    if name != "ours":
        pytest.importorskip("pygame")
    assert played.play(name, "output=game.gif", "episodes=2") == 0
    count = int(played.out.split()[1])
    with Image.open(played.folder / "game.gif") as file:
        assert file.n_frames == count
    assert played.out.startswith(f"game.gif: {count} moments, ")


def test_two_runs_make_one_sheet(played: Shell) -> None:
    assert played.play("ours", "theirs", "output=pair.png", "sample=true") == 0
    assert played.out.splitlines()[1].startswith("ours: won ")
    assert Image.open(played.folder / "pair.png").width > 2 * 192


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "which run? ppo-play <run folder>, or ppo-play latest"),
        ("latest", "latest: there is no run with a checkpoint in outputs/"),
        ("nowhere", "nowhere: there is no such run folder"),
        ("our", "our: there is no such run folder; did you mean ours?"),
        ("ours games=3", "games=3: there is no setting games; ppo-play --help lists them"),
        ("ours episods=3", "episods=3: there is no setting episods. Did you mean episodes=3?"),
        ("ours episodes=0", "episodes=0: expected a whole number at least 1 or null"),
        ("ours fps=0", "fps=0: expected a number above 0 and at most 100 or null"),
        ("ours --seed 3", "--seed 3: there is no such flag; settings are written without dashes: seed=3"),
        ("ours output=game.avi", "output=game.avi: expected a name that ends in .gif, .mp4 or .png"),
        ("ours output=there/game.gif", "output=there/game.gif: there is no folder there"),
        ("ours output=folder.gif", "output=folder.gif: is a folder"),
        ("ours ours ours ours ours", "ours ours ours ours ours: expected at most 4 run folders"),
        (
            "ours cart",
            "ours cart: only runs on the same environment can be compared, these have "
            "env._target_=ppo_cli.envs.minesweeper.env.MinesweeperVecEnv and "
            "env._target_=ppo_cli.envs.cartpole.CartPole",
        ),
    ],
)
def test_mistakes_of_play(played: Shell, line: str, error: str) -> None:
    (played.folder / "folder.gif").mkdir()
    before = sorted(played.folder.rglob("*"))
    assert played.play(*line.split()) == 2
    assert (played.errors, played.out) == ([error], "")
    assert sorted(played.folder.rglob("*")) == before


def test_an_environment_without_pictures_is_told_so(played: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPO_CLI_TRUST", "blind_lab")
    monkeypatch.syspath_prepend(played.folder)
    config = played.folder / "hot/config.yaml"
    (played.folder / "blind_lab.py").write_text(BLIND)
    config.write_text(config.read_text().replace("FrozenLake-v1", "blind_lab:Blind-v0"))
    assert played.play("hot", "output=game.gif") == 2
    assert played.errors == ["blind_lab:Blind-v0 draws no pictures (rgb_array); ppo-eval tells how the run does"]
    assert not (played.folder / "game.gif").exists()


def test_a_missing_package_is_one_line(played: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert played.play("cart", "output=game.gif") == 2
    assert played.errors == ["CartPole is drawn by pygame, which is not installed: pip install 'ppo-cli[video]'"]


def test_a_folder_that_cannot_be_written_is_one_line(played: Shell) -> None:
    assert played.play("ours", "output=/proc/game.gif") == 2
    assert played.errors[0].startswith("output=/proc/game.gif: cannot be written (")


def test_help_shows_settings_and_keys(shell: Shell) -> None:
    assert shell.play("--help") == 0
    assert all(word in shell.out for word in ("ppo-play latest", "space, enter", "output", "episodes", "sample"))


def test_a_signal_gives_the_terminal_back(played: Shell) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    command = [sys.executable, "-m", "ppo_cli", "play", "ours", "fps=1"]
    environment = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=played.folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    while b"click 1" not in seen:
        seen += os.read(master, 65536)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 30
    while LEAVE.encode() not in seen and time.monotonic() < deadline:
        seen += os.read(master, 65536)
    assert process.wait(timeout=30) == 143
    assert seen.count(ENTER.encode()) == seen.count(LEAVE.encode()) == 1
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


BLIND = """
import gymnasium
from gymnasium import spaces

class Blind(gymnasium.Env):
    observation_space, action_space = spaces.Discrete(16), spaces.Discrete(4)
    def reset(self, *, seed=None, options=None):
        return 0, {}
    def step(self, action):
        return 0, 0.0, True, False, {}

gymnasium.register("Blind-v0", Blind)
"""
