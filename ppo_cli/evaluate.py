"""Playing a fixed list of seeds, one fresh episode each, with the weights held still.

Every listed episode counts. Taking the first episodes to finish out of a running batch would favour short ones, and
starting in the middle of a game would favour those already survived.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ppo_cli.envs.base import Fault, HasFaults, VecEnv
from ppo_cli.envs.nonfinite import rows_with_nonfinite
from ppo_cli.faults import NonFiniteError
from ppo_cli.networks.base import ActorCritic
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.signals import StopRequest
from ppo_cli.types import Obs, legal_actions, take_rows

Mode = Literal["greedy", "sampled"]

LONGEST_EPISODE = 100_000
"""Steps after which an episode is cut off: a greedy policy may walk in circles for ever. Atari's end after 27,000."""

CUT_OFF = "cut_off"

PATIENCE = 5.0
"""Seconds that an evaluation may go on after the user asked to stop: a run that goes on lacks no figure then."""


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


def cut_off_words(figures: Mapping[str, float]) -> str:
    """What to say where episodes of an evaluation were cut off."""
    return (
        f"{100 * figures[CUT_OFF]:.0f} % of the evaluation's episodes had no end after {LONGEST_EPISODE:,} steps and "
        "were cut off there: env.kwargs={max_episode_steps: ...} sets a limit for Gymnasium's environments"
    )


class UnfinishedError(Exception):
    """The user asked to stop, and the episodes under way would have taken long to end."""


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
    longest: int = LONGEST_EPISODE,
    on_progress: Callable[[int], None] = lambda _: None,
    on_fault: Callable[[Fault], None] = lambda _: None,
    stop: StopRequest | None = None,
) -> Evaluation:
    """Play one episode from each of ``seeds``, ``env.num_envs`` side by side.

    ``greedy`` takes the policy's mode, ``sampled`` draws from it with ``generator``. Normalization is frozen.
    ``on_progress`` hears how many episodes have finished. An episode that a failing environment loses is played anew,
    from a fresh seed; ``on_fault`` hears of it. One of ``longest`` steps is cut off there, and ``cut_off`` is among the
    figures then.

    Raises:
        UnfinishedError: `PATIENCE` seconds after ``stop`` was asked for.
        NonFiniteError: an environment gave NaN or infinity.
    """

    def choose(obs: Obs) -> Tensor:
        policy = actor_critic(obs_normalizer(obs))[0]
        chosen: Tensor = policy.mode() if mode == "greedy" else policy.sample(policy.noise(1, generator)[0])
        return chosen

    results: list[dict[str, Tensor]] = []
    asked_at = math.inf
    for first in range(0, len(seeds), env.num_envs):
        chunk = list(seeds[first : first + env.num_envs])
        episodes = Episodes(env, chunk, device or torch.device("cpu"), on_fault)
        while episodes.playing.any():
            if stop:
                asked_at = min(asked_at, time.monotonic())
                if time.monotonic() - asked_at >= PATIENCE:
                    raise UnfinishedError
            episodes.step(choose, longest)
            on_progress(first + len(chunk) - int(episodes.playing.sum()))
        results.append({tag: figure[: len(chunk)] for tag, figure in episodes.figures.items()})
    figures = {tag: torch.cat([result[tag] for result in results]) for tag in results[0]}
    if not figures[CUT_OFF].any():
        del figures[CUT_OFF]
    return Evaluation(figures.pop("return"), figures.pop("length"), figures)


class Episodes:
    """The first episode of each environment, as far as they are played; figures by tag, each [N]."""

    def __init__(self, env: VecEnv, seeds: list[int], device: torch.device, on_fault: Callable[[Fault], None]) -> None:
        self.env, self.device, self.on_fault = env, device, on_fault
        self.watched = env if isinstance(env, HasFaults) else None
        self.seeds = [*seeds, *seeds[:1] * (env.num_envs - len(seeds))]  # the batch is full; only these rows are read
        self.playing = torch.arange(env.num_envs) < len(seeds)
        self.figures = {tag: torch.zeros(env.num_envs) for tag in ("return", "length", CUT_OFF)}
        self.obs = env.reset(self.seeds)
        self.hear_of_faults()

    def step(self, choose: Callable[[Obs], Tensor], longest: int) -> None:
        """One step of all environments, by actions that are chosen for those that still play."""
        rows = self.playing.nonzero().squeeze(-1)
        seen = take_rows(self.obs, rows, self.device)
        numbers = seen.get("obs") if isinstance(seen, dict) else seen  # a board has none
        if numbers is not None:
            self.require_finite("an observation", numbers, rows)
        chosen = choose(seen)
        action = idle_actions(self.obs, chosen, self.env.num_envs)
        action[rows] = chosen.cpu()
        step = self.env.step(action)
        reward = step.reward.cpu()
        self.require_finite("a reward", reward[rows].unsqueeze(1), rows)
        self.figures["return"] += torch.where(self.playing, reward, 0.0)
        self.figures["length"] += self.playing
        for lost in self.hear_of_faults():
            for figure in self.figures.values():
                figure[lost] = 0.0
        is_cut = self.playing & (self.figures["length"] >= longest)
        self.end((step.terminated | step.truncated).cpu() & self.playing, is_cut)
        self.obs = step.obs

    def end(self, ended: Tensor, is_cut: Tensor) -> None:
        """Take down the figures of the episodes that have ``ended`` [N], or that are cut off."""
        self.figures[CUT_OFF][is_cut & ~ended] = 1.0
        ended = ended | is_cut
        if ended.any():
            for tag, values in self.env.episode_metrics().items():
                figure = self.figures.setdefault(tag, torch.zeros(self.env.num_envs))
                figure[ended] = values.cpu()[ended].float()
            self.playing = self.playing & ~ended

    def hear_of_faults(self) -> list[int]:
        """The environments that still play and lost their episode: it begins anew."""
        lost = []
        for fault in self.watched.faults() if self.watched else ():
            self.on_fault(fault)
            lost += [n for n in fault.envs if self.playing[n]]
        return lost

    def require_finite(self, gift: str, values: Tensor, rows: Tensor) -> None:
        """Make sure that what environments ``rows`` [R] gave, [R, ...], are numbers.

        Raises:
            NonFiniteError: naming the environment, the step and the seed.
        """
        if not values.is_floating_point() or math.isfinite(values.sum()):
            return
        if (is_bad := rows_with_nonfinite(values)).any():  # finite numbers may add up to infinity
            row = int(is_bad.nonzero()[0])
            n, number = int(rows[row]), values[row].flatten()
            raise NonFiniteError(
                f"environment {n} gave {gift} of {number[~number.isfinite()][0].item()} in step "
                f"{int(self.figures['length'][n]) + 1} of the episode of seed {self.seeds[n]}"
            )


def idle_actions(obs: Obs, chosen: Tensor, num_envs: int) -> Tensor:
    """Actions [N, *A] like those that were ``chosen``, for environments that nobody looks at any more: legal ones."""
    if (legal := legal_actions(obs)) is not None:
        return legal.byte().argmax(dim=1).cpu()
    return torch.zeros((num_envs, *chosen.shape[1:]), dtype=chosen.dtype)
