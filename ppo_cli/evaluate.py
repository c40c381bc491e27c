"""Playing a fixed list of seeds, one fresh episode each, with the weights held still.

Every listed episode counts. Taking the first episodes to finish out of a running batch would favour short ones, and
starting in the middle of a game would favour those already survived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from ppo_cli.envs.base import Fault, HasFaults, VecEnv
from ppo_cli.networks.base import ActorCritic
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.types import take_rows

Mode = Literal["greedy", "sampled"]


@dataclass(frozen=True)
class Evaluation:
    """Figures of E finished episodes, in the order of their seeds."""

    episode_return: Tensor  # [E] undiscounted
    episode_length: Tensor  # [E] steps
    extra: dict[str, Tensor]  # the environment's own figures by tag, each [E]

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation and standard error of the return, mean length, and each extra figure's mean.

        A figure that is a share of episodes (only 0 and 1) comes with its Wilson 95 % interval.
        """
        count = len(self.episode_return)
        std = self.episode_return.std(correction=1).item() if count > 1 else math.nan
        figures = {
            "episodes": float(count),
            "episodic_return": self.episode_return.mean().item(),
            "episodic_return_std": std,
            "episodic_return_standard_error": std / math.sqrt(count),
            "episodic_length": self.episode_length.mean().item(),
        }
        for tag, values in self.extra.items():
            figures[tag] = values.mean().item()
            if bool(((values == 0) | (values == 1)).all()):
                low, high = wilson_interval(int(values.sum().item()), count)
                figures |= {f"{tag}_low": low, f"{tag}_high": high}
        return figures


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927): stays within 0 to 1 and is honest near both ends. 95 % by default."""
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half_width = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


@torch.no_grad()
def evaluate(
    actor_critic: ActorCritic,
    obs_normalizer: ObsNormalizer,
    env: VecEnv,
    seeds: Sequence[int],
    *,
    mode: Mode,
    generator: Generator | None = None,
    device: torch.device | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    on_fault: Callable[[Fault], None] = lambda _: None,
) -> Evaluation:
    """Play one episode from each of ``seeds``, ``env.num_envs`` side by side.

    ``greedy`` takes the policy's mode, ``sampled`` draws from it with ``generator``. Normalization is frozen.
    ``on_progress`` hears how many episodes have finished. An episode that a failing environment loses is played anew,
    from a fresh seed; ``on_fault`` hears of it.
    """
    device = device or torch.device("cpu")
    results: list[dict[str, Tensor]] = []
    for first in range(0, len(seeds), env.num_envs):
        chunk = list(seeds[first : first + env.num_envs])
        padded = chunk + [chunk[0]] * (env.num_envs - len(chunk))  # the batch is full; only the chunk's rows are read
        results.append(
            play(
                actor_critic,
                obs_normalizer,
                env,
                padded,
                len(chunk),
                mode,
                generator,
                device,
                partial(report, on_progress, first),
                on_fault,
            )
        )
    figures = {tag: torch.cat([result[tag] for result in results]) for tag in results[0]}
    return Evaluation(figures.pop("return"), figures.pop("length"), figures)


def report(on_progress: Callable[[int], None], before: int, finished: int) -> None:
    """Tell how many episodes have finished in all."""
    on_progress(before + finished)


def play(
    actor_critic: ActorCritic,
    obs_normalizer: ObsNormalizer,
    env: VecEnv,
    seeds: Sequence[int],
    count: int,
    mode: Mode,
    generator: Generator | None,
    device: torch.device,
    on_progress: Callable[[int], None],
    on_fault: Callable[[Fault], None],
) -> dict[str, Tensor]:
    """The first episode of each of the first ``count`` environments; figures by tag, each [count]."""
    obs = env.reset(seeds)
    playing = torch.arange(env.num_envs) < count
    watched = env if isinstance(env, HasFaults) else None
    for fault in watched.faults() if watched else ():  # of the reset: nothing is lost by it
        on_fault(fault)
    figures = {"return": torch.zeros(env.num_envs), "length": torch.zeros(env.num_envs)}
    while playing.any():
        rows = playing.nonzero().squeeze(-1)
        seen = take_rows(obs, rows, device)
        policy = actor_critic(obs_normalizer(seen))[0]
        chosen = policy.mode() if mode == "greedy" else policy.sample(policy.noise(1, generator)[0])
        action = torch.zeros((env.num_envs, *chosen.shape[1:]), dtype=chosen.dtype)
        action[rows] = chosen.cpu()
        step = env.step(action)
        figures["return"] += torch.where(playing, step.reward.cpu(), 0.0)
        figures["length"] += playing
        for fault in watched.faults() if watched else ():
            on_fault(fault)
            for figure in figures.values():
                figure[[n for n in fault.envs if playing[n]]] = 0.0
        ended = (step.terminated | step.truncated).cpu() & playing
        if ended.any():
            for tag, values in env.episode_metrics().items():
                figure = figures.setdefault(tag, torch.zeros(env.num_envs))
                figure[ended] = values.cpu()[ended].float()
            playing = playing & ~ended
            on_progress(count - int(playing.sum()))
        obs = step.obs
    return {tag: figure[:count] for tag, figure in figures.items()}
