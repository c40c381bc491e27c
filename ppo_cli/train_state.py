"""Everything that changes while an agent learns: weights, optimizer, counters, generators, running moments.

A checkpoint is this object, the environment and the collector, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Generator, Tensor, nn

from ppo_cli.accelerate import Accelerator, send
from ppo_cli.faults import GRADIENT_STEPS, Faults, NonFiniteError
from ppo_cli.normalize import ObsNormalizer, RewardNormalizer
from ppo_cli.schedules import schedule_factor
from ppo_cli.types import Batch, take

LearningRateSchedule = Literal["constant", "linear", "cosine", "kl_adaptive"]
P = ParamSpec("P")
R = TypeVar("R")

KL_ADAPTIVE_FACTOR = 1.5
KL_ADAPTIVE_RANGE = (1e-5, 1e-2)
"""Bounds that the KL-adaptive learning rate is not moved beyond."""

OPTIMIZER_SETTINGS = ("eps", "weight_decay")


@dataclass
class TrainState:
    """The learner. Mutable, in one place."""

    actor_critic: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    obs_normalizer: ObsNormalizer
    reward_normalizer: RewardNormalizer
    total_env_steps: int
    learning_rate: float
    learning_rate_schedule: LearningRateSchedule
    kl_adaptive_target: float
    seed: int
    faults: Faults = field(default_factory=Faults)
    env_steps: int = 0
    updates: int = 0
    gradient_steps: int = field(init=False, default=0)  # of the update under way
    left_out: bool = field(init=False, default=False)  # whether the last of them was, for NaN or infinity
    unread: list[Tensor] = field(init=False, default_factory=list)  # norm and loss [2] of each step not looked at yet
    algorithm_state: dict[str, float] = field(default_factory=dict)  # numbers that the algorithm itself moves
    action_generator: Generator = field(init=False)  # on the accelerator's device
    minibatch_generator: Generator = field(init=False)  # on the host: permutations are drawn there
    executors: dict[Callable[..., Any], Callable[..., Any]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.action_generator = Generator(self.accelerator.device).manual_seed(2 * self.seed)
        self.minibatch_generator = Generator().manual_seed(2 * self.seed + 1)

    @property
    def progress(self) -> float:
        """Share of the run that has passed, 0 to 1."""
        return min(self.env_steps / self.total_env_steps, 1.0)

    def scalar(self, value: float) -> Tensor:
        """``value`` as a 0-d tensor on the device: changing it never recompiles anything."""
        return torch.full((), value, dtype=torch.float32, device=self.accelerator.device)

    def evaluate(self, function: Callable[..., R], *args: Any) -> R:  # noqa: ANN401 (whatever the function takes)
        """``function(actor_critic, *args)`` under the run's executor: a loss, or the network itself while acting."""
        if function not in self.executors:
            self.executors[function] = self.accelerator.wrap(function)
        result: R = self.executors[function](self.actor_critic, *args)
        return result

    def shuffled(self, batch: Batch, num_minibatches: int) -> Iterator[Batch]:
        """One pass over ``batch``: its samples in a new order, in ``num_minibatches`` parts."""
        order = torch.randperm(len(batch.advantage), generator=self.minibatch_generator)
        for index in send(order, batch.advantage.device).chunk(num_minibatches):
            yield take(batch, index)

    def descend(self, loss: Tensor, max_grad_norm: float, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """One optimizer step down ``loss``, of all weights or of ``parameters`` only; the others are not touched.

        Returns the gradient's norm before clipping, 0-d. Where that is not finite, nothing has moved; `end_update` says
        so where the host `looks_later`.

        Raises:
            NonFiniteError: and no such step may be left out.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        grad_norm = nn.utils.clip_grad_norm_(self.actor_critic.parameters(), max_grad_norm)
        self.gradient_steps += 1
        if self.looks_later:
            self.step_unless(~grad_norm.isfinite())
            self.unread.append(torch.stack((grad_norm, loss.detach())))
            return grad_norm
        self.left_out = not grad_norm.isfinite()
        if self.left_out:
            self.leave_out(grad_norm.item(), loss.item(), self.gradient_steps)
        else:
            self.optimizer.step()
        return grad_norm

    @property
    def looks_later(self) -> bool:
        """Whether the host does not wait for the outcome of each step: on a GPU, which leaves out bad ones by itself.

        torch's fused optimizers can; ``left_out`` is unknown then, and the figures of a bad step are among the others.
        """
        can_skip = getattr(self.optimizer, "_step_supports_amp_scaling", False)  # torch's name for it
        return bool(self.accelerator.device.type != "cpu" and can_skip)

    def step_unless(self, is_bad: Tensor) -> None:
        """The optimizer's step, but not where ``is_bad``, 0-d, which stays unread: as torch.amp.GradScaler asks."""
        optimizer: Any = self.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf

    def leave_out(self, grad_norm: float, loss: float, gradient_step: int) -> None:
        """Pass over a gradient step of this update, counted from 1, whose gradient is not finite.

        Raises:
            NonFiniteError: and no such step may be left out.
        """
        error = NonFiniteError.of(grad_norm, loss, self.updates + 1, gradient_step)
        self.faults.skip(GRADIENT_STEPS, error)

    def begin_update(self) -> None:
        """Set the learning rate that the schedule asks for now."""
        self.gradient_steps = 0
        if self.learning_rate_schedule != "kl_adaptive":
            factor = schedule_factor(self.learning_rate_schedule, self.progress)
            self.set_learning_rate(self.learning_rate * factor)

    def end_update(self, env_steps: int, kl: Tensor | float | None) -> None:
        """Count the update; under ``kl_adaptive`` move the learning rate against the KL that it caused.

        Divided by 1.5 above twice the target, multiplied by 1.5 below half of it (as in RSL-RL and RL Games, once per
        update).

        Raises:
            NonFiniteError: a gradient that nobody has looked at yet is not finite, and no such step may be left out.
        """
        outcomes = torch.stack(self.unread).tolist() if self.unread else []  # all at once: one wait for the device
        self.unread.clear()
        for gradient_step, (grad_norm, loss) in enumerate(outcomes, 1):
            if not math.isfinite(grad_norm):
                self.leave_out(grad_norm, loss, gradient_step)
        self.env_steps += env_steps
        self.updates += 1
        if self.learning_rate_schedule == "kl_adaptive" and kl is not None:
            low, high = KL_ADAPTIVE_RANGE
            rate = self.current_learning_rate
            if kl > 2.0 * self.kl_adaptive_target:
                self.set_learning_rate(max(rate / KL_ADAPTIVE_FACTOR, min(rate, low)))
            elif kl < 0.5 * self.kl_adaptive_target:
                self.set_learning_rate(min(rate * KL_ADAPTIVE_FACTOR, max(rate, high)))

    @property
    def current_learning_rate(self) -> float:
        """What the optimizer uses now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_learning_rate(self, learning_rate: float) -> None:
        """For every parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def require_finite_weights(self) -> None:
        """Make sure that what is about to be saved is worth it.

        Raises:
            NonFiniteError: naming the first weight that is NaN or infinite.
        """
        for name, weight in self.actor_critic.state_dict().items():
            if not weight.isfinite().all():
                raise NonFiniteError(f"the weights in {name} are not finite after update {self.updates}")

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, numbers and dicts, so that it loads without running any code."""
        return {
            "actor_critic": self.actor_critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "obs_normalizer": self.obs_normalizer.moments.state_dict(),
            "reward_normalizer": self.reward_normalizer.state_dict(),
            "env_steps": self.env_steps,
            "updates": self.updates,
            "learning_rate": self.learning_rate,
            "algorithm_state": dict(self.algorithm_state),
            "faults": dict(self.faults.counts),
            "action_generator": self.action_generator.get_state(),
            "minibatch_generator": self.minibatch_generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where ``state_dict`` was taken."""
        self.actor_critic.load_state_dict(state["actor_critic"])
        settings = [{name: group[name] for name in OPTIMIZER_SETTINGS} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, wanted in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(wanted)  # what was built counts, not what was saved
        self.obs_normalizer.moments.load_state_dict(state["obs_normalizer"])
        self.reward_normalizer.load_state_dict(state["reward_normalizer"])
        if state.get("learning_rate", self.learning_rate) != self.learning_rate:
            self.set_learning_rate(self.learning_rate)  # an adaptive one starts again from what it was changed to
        self.env_steps = state["env_steps"]
        self.updates = state["updates"]
        self.algorithm_state = dict(state.get("algorithm_state", {}))  # older checkpoints have none
        self.faults.counts |= state.get("faults", {})
        self.action_generator.set_state(state["action_generator"].cpu())
        self.minibatch_generator.set_state(state["minibatch_generator"].cpu())
