"""What went wrong in a run and was passed over: counted for TensorBoard and the summary, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

RESTARTS = "faults/worker_restarts"
TRANSITIONS = "faults/skipped_transitions"
GRADIENT_STEPS = "faults/skipped_gradient_steps"


class NonFiniteError(FloatingPointError):
    """Something is NaN or infinite. Raised before the optimizer's step: the weights are still good."""

    @classmethod
    def of(cls, grad_norm: float, loss: float, update: int, gradient_step: int) -> NonFiniteError:
        """The error of one gradient step of an update, both counted from 1, with what to try."""
        return cls(
            f"the gradient's norm is {grad_norm} in gradient step {gradient_step} of update {update}, the loss {loss}: "
            "the step was not taken. A lower learning_rate, or rewards of order 1 (normalize_reward=true), helps."
        )


@dataclass
class Faults:
    """Counts of a whole run, resumed or not.

    Args:
        max_skipped: Transitions and gradient steps that may be left out for NaN or infinity; 0 stops at the first.
        counts: By tag. Those that cannot happen in this run are missing.
        warn: Told one sentence for each worker that was replaced, and one for the first of each kind that was skipped.
    """

    max_skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        if self.max_skipped:
            self.counts = {TRANSITIONS: 0, GRADIENT_STEPS: 0}

    def restarted(self, cause: str, envs: list[int]) -> None:
        """Note that a worker was replaced, and fresh episodes began in ``envs``."""
        self.counts[RESTARTS] = self.counts.get(RESTARTS, 0) + 1
        begun = f"environments {envs[0]} to {envs[-1]}" if len(envs) > 1 else f"environment {envs[0]}"
        self.warn(f"{cause}; the worker was replaced, fresh episodes begin in {begun}")

    def skip(self, tag: str, error: NonFiniteError) -> None:
        """Pass over what ``error`` says.

        Raises:
            NonFiniteError: that was one too many.
        """
        skipped = self.counts.get(TRANSITIONS, 0) + self.counts.get(GRADIENT_STEPS, 0)
        if skipped >= self.max_skipped:
            raise NonFiniteError(f"{error} (max_skipped={skipped} were passed over before)") if skipped else error
        if not self.counts[tag]:
            self.warn(f"passed over, and {tag} counts how often: {error}")
        self.counts[tag] += 1
