"""Fresh episodes with weights that were saved: what evaluating, watching and exporting a run begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from ppo_cli import checkpoint
from ppo_cli.accelerate import Accelerator
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.build import EVALUATION_ENVS, build_evaluation_env, build_state, default_threads
from ppo_cli.cli.hardware import build_accelerator
from ppo_cli.cli.program import print_warnings
from ppo_cli.cli.run import reported
from ppo_cli.cli.run_folder import is_export
from ppo_cli.cli.trust import current_folder_first, trusted_modules
from ppo_cli.cli.validate import Settings
from ppo_cli.envs.base import EVALUATION, EnvError, VecEnv, env_seeds
from ppo_cli.evaluate import CUT_OFF, Mode, cut_off_words, evaluate
from ppo_cli.faults import Faults, NonFiniteError
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.policy import PolicyError, load_policy
from ppo_cli.train_state import TrainState
from ppo_cli.trainer import CHECKPOINT_FOLDER


def play(
    config: Settings,
    settings: Settings,
    run_dir: Path,
    path: Path | None,
    on_progress: Callable[[str, int], None],
) -> dict[str, dict[str, float]]:
    """Figures of fresh episodes by mode, with the weights of one checkpoint, of the run's newest, or of an export.

    Raises:
        UserError: nothing there that can be read, or weights that belong to another network or environment.
        ReportedError: an environment failed for good, or gave NaN or infinity.
    """
    try:
        config = config | {"device": settings["device"], "num_threads": settings["num_threads"]}
        env = build_evaluation_env(config, settings["num_envs"] or min(settings["episodes"], EVALUATION_ENVS))
        if is_export(run_dir):
            accelerator, network, normalizer = exported_player(config, env, run_dir)
        else:
            state = saved_state(config, env, run_dir, path)
            accelerator, network, normalizer = state.accelerator, state.actor_critic, state.obs_normalizer
    except EnvError as error:
        raise reported(error) from error
    except (ValueError, RuntimeError, checkpoint.CheckpointError, PolicyError) as error:
        raise UserError(str(error)) from error
    device = accelerator.device
    seeds = env_seeds(settings["seed"], settings["episodes"], EVALUATION)
    modes: Sequence[Mode] = ("greedy", "sampled") if settings["mode"] == "both" else (settings["mode"],)
    faults = Faults(config["max_skipped"] if config.get("on_nonfinite") == "skip" else 0)
    faults.warn = lambda text: print_warnings([text])
    results: dict[str, dict[str, float]] = {}
    for mode in modes:
        generator = torch.Generator(device).manual_seed(settings["seed"])
        try:
            results[mode] = evaluate(
                accelerator.network(network),
                normalizer,
                env,
                seeds,
                mode=mode,
                generator=generator,
                device=device,
                on_progress=partial(on_progress, mode),
                on_fault=lambda fault: fault.tell(faults),
            ).summary()
        except (EnvError, NonFiniteError) as error:
            raise reported(error) from error
        if CUT_OFF in results[mode]:
            print_warnings([cut_off_words(results[mode])])
    env.close()
    return results


def saved_state(config: Settings, env: VecEnv, run_dir: Path, path: Path | None) -> TrainState:
    """The learner as one checkpoint saved it, or the run's newest; warns of damaged ones that are passed over.

    Raises:
        CheckpointError: none that can be read, or it does not hold a learner.
        RuntimeError: the weights belong to another network.
    """
    content, notes = (checkpoint.load(path), []) if path else checkpoint.load_newest(run_dir / CHECKPOINT_FOLDER)
    print_warnings(notes)
    state = build_state(config, env, gamma=1.0)
    try:
        state.load_state_dict(content["state"])
    except (KeyError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"{path or run_dir} has no checkpoint of a learner ({error})") from error
    return state


def exported_player(config: Settings, env: VecEnv, folder: Path) -> tuple[Accelerator, torch.nn.Module, ObsNormalizer]:
    """An exported policy as it plays here.

    Raises:
        PolicyError: it cannot be read, or it has learned in another environment.
    """
    with current_folder_first():
        policy = load_policy(folder, trust=trusted_modules())
    made_for, given = policy.spaces[:2], (env.single_observation_space, env.single_action_space)
    if made_for != given:
        raise PolicyError(f"{folder} is a policy for {made_for[0]}, {made_for[1]}; its environment has {given}")
    accelerator = build_accelerator(config, policy.network, config["num_threads"] or default_threads(env))
    policy.obs_normalizer.moments.to(accelerator.device)
    return accelerator, policy.network.to(accelerator.device), policy.obs_normalizer
