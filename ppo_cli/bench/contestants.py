"""Who is measured: this program, and Stable-Baselines3 with the same network, epochs, minibatches and coefficients."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppo_cli.bench.works import Meter, Work


def ppo_cli(work: Work, seconds: float, began: float) -> dict[str, Any]:
    """As the command runs it: TensorBoard and metrics.jsonl are written. ``began``: when this process was started."""
    return measure_ours([f"env={work.env}", *work.settings], seconds, began)


def ppo_cli_gymnasium(work: Work, seconds: float, began: float) -> dict[str, Any]:
    """The same with Gymnasium's own vectorized CartPole in place of the compiled one."""
    return measure_ours(["env=gymnasium", "env.id=CartPole-v1", *work.settings], seconds, began)


def ppo_cli_torch(work: Work, seconds: float, began: float) -> dict[str, Any]:
    """The same in plain torch."""
    return measure_ours([f"env={work.env}", *work.settings, "accelerate=eager"], seconds, began)


def measure_ours(settings: Sequence[str], seconds: float, began: float) -> dict[str, Any]:
    """Drive the trainer as its own loop does, with a clock."""
    from ppo_cli.cli.train import trainer_of

    meter = Meter(seconds, began)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of([*settings, "total_env_steps=1e8", "quiet=true"], Path(folder))
        while True:
            started = time.perf_counter()
            metrics = trainer.train_once()
            trained = time.perf_counter()
            trainer.logger.log(trainer.state.env_steps, trainer.state.updates, metrics)
            parts = dict(trainer.collector.seconds)
            parts["update"] = trained - started - sum(parts.values())
            parts["logging"] = time.perf_counter() - trained
            if meter.mark(trainer.state.env_steps, parts):
                break
        return meter.result(float(trainer.collector.episodes.metrics()["charts/episodic_return"]))


def stable_baselines3(work: Work, seconds: float, began: float) -> dict[str, Any]:
    """Its default vectorized environment (one after the other in this process), its own logging off."""
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    meter = Meter(seconds, began)
    spent = {"env": 0.0, "inference": 0.0, "update": 0.0}
    returns: list[float] = []

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - started

        return call

    class Stop(Exception):  # noqa: N818 - not an error
        pass

    class Marks(BaseCallback):
        def _on_step(self) -> bool:
            returns.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                parts = dict(spent)
                spent.update(dict.fromkeys(spent, 0.0))
                if meter.mark(self.num_timesteps, parts):
                    raise Stop

    make: Callable[[], gymnasium.Env[Any, Any]] = CartPole if work.env == "cartpole" else OneHotMinesweeper
    policy, policy_kwargs = ("MlpPolicy", tanh_nets()) if work.env == "cartpole" else board_policy()
    model = PPO(
        policy, make_vec_env(make, n_envs=work.num_envs, seed=1), n_steps=work.rollout_length,
        batch_size=work.num_envs * work.rollout_length // 4, n_epochs=4, learning_rate=lambda left: 2.5e-4 * left,
        gamma=0.99, gae_lambda=0.95, clip_range=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5, seed=1,
        device="cpu", policy_kwargs=policy_kwargs,
    )  # fmt: skip
    assert model.env is not None
    model.env.step = timed("env", model.env.step)  # type: ignore[method-assign]
    model.policy.forward = timed("inference", model.policy.forward)  # type: ignore[method-assign]
    model.train = timed("update", model.train)  # type: ignore[method-assign]
    try:
        model.learn(100_000_000, callback=Marks(), log_interval=1_000_000)
    except Stop:
        return meter.result(float(np.mean(returns[-100:])))
    raise RuntimeError("the run ended before its time was up")


def CartPole() -> Any:  # noqa: ANN401, N802 - stands for an environment class
    """Gymnasium's own."""
    import gymnasium

    return gymnasium.make("CartPole-v1")


def OneHotMinesweeper() -> Any:  # noqa: ANN401, N802 - stands for an environment class
    """Our rules as a Gymnasium environment, with the planes that our network makes of a board as its observation."""
    import gymnasium

    from ppo_cli.envs.minesweeper.gymnasium_env import MinesweeperEnv
    from ppo_cli.networks.codes import NUM_PLANES, planes

    space = gymnasium.spaces.Box(0.0, 1.0, (NUM_PLANES, 9, 9), np.float32)
    return gymnasium.wrappers.TransformObservation(
        MinesweeperEnv(), lambda board: planes(torch.from_numpy(board)[None])[0].contiguous().numpy(), space
    )


def tanh_nets() -> dict[str, Any]:
    """SB3's words for the MLP of W1 and W2."""
    return {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}


def board_policy() -> tuple[Any, dict[str, Any]]:
    """The network of W3 in SB3's frame: a policy class and its settings."""
    from stable_baselines3.common.policies import ActorCriticCnnPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    from ppo_cli.networks.codes import NUM_PLANES

    class Trunk(BaseFeaturesExtractor):
        def __init__(self, observation_space: Any) -> None:  # noqa: ANN401
            super().__init__(observation_space, 64 * 81)
            layers: list[nn.Module] = []
            for channels in (NUM_PLANES, 64, 64):
                layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU()]
            self.net = nn.Sequential(*layers, nn.Flatten())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.view(-1, 64, 81).mean(2))  # type: ignore[no-any-return]

    class Policy(ActorCriticCnnPolicy):
        def _build(self, lr_schedule: Callable[[float], float]) -> None:
            super()._build(lr_schedule)
            self.action_net = nn.Sequential(nn.Unflatten(1, (64, 9, 9)), nn.Conv2d(64, 1, 1), nn.Flatten())
            self.value_net = Critic()  # type: ignore[assignment]
            self.optimizer = self.optimizer_class(self.parameters(), **(self.optimizer_kwargs | {"lr": lr_schedule(1)}))

    return Policy, {"features_extractor_class": Trunk, "net_arch": [], "normalize_images": False}


Contestant = Callable[[Work, float, float], dict[str, Any]]

CONTESTANTS: dict[str, Contestant] = {
    "ppo-cli": ppo_cli,
    "ppo-cli, Gymnasium's env": ppo_cli_gymnasium,
    "ppo-cli, accelerate=eager": ppo_cli_torch,
    "stable-baselines3": stable_baselines3,
}
"""Those that run in this interpreter; `jax_peers` has those that need another."""


def takes_part(contestant: str, work: Work) -> bool:
    """Whether a contestant has something of its own to show on ``work``."""
    return work.env == "cartpole" or contestant in ("ppo-cli", "stable-baselines3")
