"""PPO in JAX on the CartPole workloads: run by the interpreter that has rejax or PureJaxRL, whichever that is.

A training is one compiled function, so whole trainings are timed, compiled ahead, on gymnax's CartPole.
Stands alone: that interpreter need not have anything else that this package needs.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def rejax(num_envs: int, rollout_length: int, total_env_steps: int) -> Callable[[int], float]:
    """A function from a seed to the greedy return after one training (clips each gradient entry, no annealing)."""
    import jax
    import numpy as np
    from rejax import get_algo

    batch = num_envs * rollout_length
    total = total_env_steps // batch * batch
    algo = get_algo("ppo").create(
        env="CartPole-v1", total_timesteps=total, eval_freq=total, skip_initial_evaluation=True, num_envs=num_envs,
        num_steps=rollout_length, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4, gamma=0.99, gae_lambda=0.95,
        clip_eps=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    )  # fmt: skip
    train = jax.jit(algo.train).lower(jax.random.PRNGKey(0)).compile()

    def run(seed: int) -> float:
        _, (_, returns) = jax.block_until_ready(train(jax.random.PRNGKey(seed)))
        return float(np.asarray(returns)[-1].mean())

    return run


def main() -> None:
    """``jax_peers.py rejax NUM_ENVS ROLLOUT_LENGTH TOTAL_ENV_STEPS SECONDS``: the figures as a line of JSON."""
    num_envs, rollout_length, total_env_steps = map(int, sys.argv[2:5])
    began = time.perf_counter()
    run = {"rejax": rejax}[sys.argv[1]](num_envs, rollout_length, total_env_steps)
    warm_up = time.perf_counter() - began
    batch = num_envs * rollout_length
    trainings, episode_return, started = 0, 0.0, time.perf_counter()
    while time.perf_counter() - started < float(sys.argv[5]):
        episode_return = run(trainings)
        trainings += 1
    rate = trainings * (total_env_steps // batch * batch) / (time.perf_counter() - started)
    figures: dict[str, Any] = {"steps_per_second": rate, "return": episode_return, "warm_up": warm_up}
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("@@RESULT " + json.dumps(figures))


if __name__ == "__main__":
    main()
