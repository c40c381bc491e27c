"""From run folders to agents that are watched: weights, environments that can be drawn, and where they are shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppo_cli import checkpoint
from ppo_cli.cli import build
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.validate import Settings
from ppo_cli.envs.base import HasFrame, VecEnv
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.play import terminal
from ppo_cli.play.agent import Agent, Score
from ppo_cli.play.picture_files import write_pictures
from ppo_cli.play.pictures import pictures

FPS = 30.0
"""Of an environment that does not say how fast it moves."""


def watch(names: Sequence[str], folders: Sequence[Path], configs: Sequence[Settings], settings: Settings) -> int:
    """Play the runs' newest checkpoints, or those that are named, where ``settings`` want it. Returns the exit code.

    Raises:
        UserError: a checkpoint cannot be read, or the environment cannot be drawn.
    """
    try:
        with_frames = settings["output"] is not None or (terminal.is_interactive() and terminal.has_colour())
        agents = [
            build_agent(config, settings, folder, checkpoint_named(name), with_frames)
            for name, folder, config in zip(names, folders, configs, strict=True)
        ]
        scores = show(agents, settings)
    except (ValueError, RuntimeError, checkpoint.CheckpointError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        if settings["output"] is None or error.filename is None:
            raise
        raise UserError(f"output={settings['output']}: cannot be written ({error.strerror})") from error
    for agent, score in zip(agents, scores, strict=True):
        print(f"{agent.name}: {score.text() or 'no episode was finished'}")
    return 0


def show(agents: Sequence[Agent], settings: Settings) -> Sequence[Score]:
    """Write a file, take over the terminal, or print, as ``settings`` and the terminal have it."""
    fps = settings["fps"] or getattr(agents[0].env, "render_fps", FPS)
    if settings["output"]:
        path = Path(settings["output"])
        scores = [Score() for _ in agents]
        count = write_pictures(path, pictures(agents, seeds(settings, 1), scores), fps)
        print(f"{path}: {count} moments, {path.stat().st_size / 1000:,.0f} kB")
        return scores
    if terminal.is_interactive():
        return terminal.Player(agents, fps).play(seeds(settings, None))
    return terminal.print_games(agents, seeds(settings, 1))


def seeds(settings: Settings, episodes: int | None) -> Iterable[int]:
    """The seeds of the episodes, which ``episodes`` limits where the settings do not."""
    first, count = settings["seed"], settings["episodes"] or episodes
    return itertools.count(first) if count is None else range(first, first + count)


def checkpoint_named(name: str) -> Path | None:
    """The checkpoint that the user means, or None for the newest."""
    return Path(name) if Path(name).suffix == checkpoint.SUFFIX else None


def build_agent(config: Settings, settings: Settings, folder: Path, path: Path | None, with_frames: bool) -> Agent:
    """A run's policy in an environment of its own.

    Raises:
        CheckpointError: none that can be read.
        RuntimeError: it belongs to another network.
        ValueError: the environment cannot be made, or not drawn where frames are wanted.
    """
    config = config | {"device": settings["device"], "num_threads": settings["num_threads"]}
    env = build_watched_env(config, with_frames)
    state = build.saved_state(config, env, folder, path)
    is_shaped = isinstance(env, MinesweeperVecEnv) and config["env"]["reward"] == "progress"
    return Agent(
        name=label(folder, path),
        env=env,
        actor_critic=state.accelerator.network(state.actor_critic),
        obs_normalizer=state.obs_normalizer,
        device=state.accelerator.device,
        value_scale=float(state.reward_normalizer.std),
        shaping=config["env"]["shaping"] if is_shaped else 0.0,
        sample=settings["sample"],
        with_frames=with_frames,
    )


def label(folder: Path, path: Path | None) -> str:
    """A run's short name: that of its folder, and the steps of its checkpoint where one is named."""
    name = f"{folder.absolute().parent.name}/{folder.name}" if folder.name.startswith("seed=") else folder.name
    return f"{name}, {checkpoint.env_steps_of(path):,} steps" if path else name


def build_watched_env(config: Settings, with_frames: bool) -> VecEnv:
    """One copy of the run's environment; with frames, one that draws itself, and its last moment before it restarts.

    Raises:
        ValueError: it draws no pictures.
    """
    settings = config["env"]
    if settings["_target_"] == build.GYMNASIUM_ENV:
        settings = settings | {"vectorization": "sync", "autoreset": "next_step"}
        if with_frames:
            plain_env = build.build_env(config | {"env": settings}, 1)
            assert isinstance(plain_env, GymnasiumVecEnv)
            plain_env.close()
            if "rgb_array" not in plain_env.render_modes:
                raise ValueError(f"{settings['id']} draws no pictures (rgb_array); ppo-eval tells how the run does")
            settings = settings | {"kwargs": dict(settings["kwargs"] or {}) | {"render_mode": "rgb_array"}}
    env = build.build_env(config | {"env": settings}, 1)
    if with_frames and not isinstance(env, HasFrame):
        raise ValueError(f"{settings['name']} has no frame() to draw itself with; ppo-eval tells how the run does")
    return env
