"""Every check on the settings, in one place: after composition, before torch, an environment or a run folder exists.

All mistakes are collected. Each is one or two lines: what was given, what was expected, how to fix it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppo_cli.cli.algorithms import setting_of_another
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.declared import Setting, declared_settings
from ppo_cli.cli.mistakes import closest, unknown_setting, unnamed_network
from ppo_cli.cli.sources import UndeclaredError
from ppo_cli.cli.trust import is_trusted_by_user, search_path, target_problem
from ppo_cli.cli.values import RefusedError, convert, plain

Settings = dict[str, Any]

TRAIN_SETTINGS = "ppo_cli.cli.schema.TrainSettings"
EVAL_SETTINGS = "ppo_cli.cli.schema.EvalSettings"
SEARCH_SETTINGS = "ppo_cli.cli.schema.SearchSettings"
PLAY_SETTINGS = "ppo_cli.cli.schema.PlaySettings"
REPORT_SETTINGS = "ppo_cli.cli.schema.ReportSettings"
EXPORT_SETTINGS = "ppo_cli.cli.schema.ExportSettings"
PARTS = ("env", "network", "algo")
BOOKKEEPING = ("_target_", "name")

MOST_DIVISORS = 100_000
"""Tried for a suggestion: the batch may be any number that a user types."""


@dataclass
class Declared:
    """What the program, the algorithm, the environment and the network declare."""

    top: dict[str, Setting]
    parts: dict[str, dict[str, Setting] | None]  # None: takes any keyword
    algo: dict[str, Setting] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def validated(config: Settings) -> Settings:
    """The same settings, each of its declared type: ``1e6`` becomes the integer 1000000.

    Raises:
        UserError: with every mistake.
    """
    declared = declarations(config)
    problems = list(declared.problems)
    problems += unknown_settings(config, declared)
    converted = convert_all(config, declared, problems)
    if not problems:
        problems += [problem for check in CROSS_CHECKS for problem in check(converted)]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return converted


def declarations(config: Settings) -> Declared:
    """Read the declarations of the classes that ``config`` names."""
    declared = Declared(top=dict(declared_settings(TRAIN_SETTINGS) or {}), parts={})
    for part in PARTS:
        node = config.get(part)
        if not isinstance(node, dict):
            declared.problems.append(f"{part}={node}: expected one of the {part} configs; ppo-train --help lists them")
            continue
        target = node.get("_target_")
        if target is None and part == "network":
            declared.parts[part] = {}
        elif problem := target_problem(target, part):
            declared.problems.append(f"{part}._target_={target}: {problem}")
        else:
            try:
                declared.parts[part] = declared_settings(str(target), search_path(str(target)))
            except UndeclaredError as error:
                message, name, offered = error.args
                guess = closest(name, offered)
                hint = f"; did you mean {guess}?" if guess else ""
                declared.problems.append(f"{part}._target_={target}: {message}{hint}")
    declared.algo = declared.parts.pop("algo", None) or {}
    return declared


def unknown_settings(config: Settings, declared: Declared) -> Iterator[str]:
    """Settings that nobody declares, also those that ``+`` added."""
    algo = config.get("algo")
    algo_name = algo.get("name", "") if isinstance(algo, dict) else ""
    known = [*declared.top, *declared.algo]
    nested = [f"{part}.{name}" for part, settings in declared.parts.items() for name in settings or ()]
    for name, value in config.items():
        if name in PARTS or name in known:
            continue
        if declared.algo:
            yield setting_of_another(name, plain(value), algo_name, declared.algo) or unknown_setting(
                name, plain(value), [*known, *nested], PARTS
            )
    for part, settings in declared.parts.items():
        for name, value in config[part].items():
            if settings is not None and name not in settings and name not in BOOKKEEPING:
                yield unknown_in_part(part, config[part], name, value, [*known, *nested])


def unknown_in_part(part: str, node: Settings, name: str, value: Any, known: list[str]) -> str:  # noqa: ANN401
    """The sentence for a setting that the chosen environment or network does not have."""
    if node.get("_target_") is None:
        return unnamed_network(f"{part}.{name}", plain(value))
    return unknown_setting(f"{part}.{name}", plain(value), known)


def convert_all(config: Settings, declared: Declared, problems: list[str]) -> Settings:
    """Every setting as its declaration wants it; what does not fit goes to ``problems``."""

    def convert_node(node: Settings, settings: Mapping[str, Setting], prefix: str) -> Settings:
        result = dict(node)
        for name, setting in settings.items():
            if name not in node:
                if setting.default is not Setting.REQUIRED:
                    result[name] = list(setting.default) if isinstance(setting.default, tuple) else setting.default
                elif prefix:
                    problems.append(f"{prefix}{name} has no default: {prefix}{name}=...")
                continue
            try:
                result[name] = convert(node[name], setting.options)
            except RefusedError as refusal:
                problems.append(f"{prefix}{name}={plain(node[name])}: expected {refusal}")
        return result

    result = convert_node(config, declared.top | declared.algo, "")
    for part, settings in declared.parts.items():
        result[part] = convert_node(config[part], settings or {}, f"{part}.")
    return result


def minibatch_problems(config: Settings) -> Iterator[str]:
    """The batch must split into equal minibatches of at least two samples: one has no standard deviation."""
    parts = config.get("num_minibatches")
    if parts is None:
        return
    batch = config["num_envs"] * config["rollout_length"]
    size = f"the batch of {batch} (num_envs={config['num_envs']} x rollout_length={config['rollout_length']})"
    if batch % parts:
        small = [number for number in range(1, min(math.isqrt(batch), MOST_DIVISORS) + 1) if batch % number == 0]
        divisors = {number for low in small for number in (low, batch // low) if number <= batch // 2}
        near = sorted(sorted(divisors, key=lambda number: abs(number - parts))[:2])
        yield f"num_minibatches={parts}: does not divide {size}; try {' or '.join(map(str, near))}"
    elif batch // parts < 2:
        yield f"num_minibatches={parts}: leaves one sample in each part of {size}; expected at most {batch // 2}"


def total_steps_problems(config: Settings) -> Iterator[str]:
    """A run has at least one update."""
    batch = config["num_envs"] * config["rollout_length"]
    if config["total_env_steps"] < batch:
        yield (
            f"total_env_steps={config['total_env_steps']}: is less than one update's batch of {batch} "
            f"(num_envs={config['num_envs']} x rollout_length={config['rollout_length']})"
        )


def schedule_problems(config: Settings) -> Iterator[str]:
    """Where a constraint on the KL sets the policy's step, that KL says nothing about the critic's learning rate."""
    if config["learning_rate_schedule"] == "kl_adaptive" and "max_kl" in config:
        yield (
            "learning_rate_schedule=kl_adaptive: max_kl already sets the policy's step, and the learning rate is "
            "the critic's alone; expected constant, linear or cosine"
        )


def minesweeper_problems(config: Settings) -> Iterator[str]:
    """The mines must fit on the board."""
    if config["env"]["_target_"].startswith("ppo_cli.envs.minesweeper."):
        from ppo_cli.envs.minesweeper.layout import Rules

        names = ("height", "width", "mines", "first_click")
        try:
            Rules(**{name: config["env"][name] for name in names if name in config["env"]})
        except ValueError as error:
            yield str(error)


def gymnasium_problems(config: Settings) -> Iterator[str]:
    """The id must be registered, and what its package needs installed."""
    env = config["env"]
    if env["_target_"] != "ppo_cli.envs.gymnasium_adapter.GymnasiumVecEnv":
        return
    module, _, _ = env["id"].rpartition(":")
    if module:
        if not is_trusted_by_user(module):
            yield f"env.id={env['id']}: imports {module}; if you trust its code, say trust={module.split('.')[0]}"
        return
    import gymnasium

    from ppo_cli.envs.gymnasium_specs import missing_extra, registered

    if importlib.util.find_spec("ale_py"):
        gymnasium.register_envs(importlib.import_module("ale_py"))
    if (missing := missing_extra(env["id"])) is not None:
        yield f"env.id={env['id']}: needs {missing[0]}, which is not installed: pip install 'ppo-cli[{missing[1]}]'"
    elif registered(env["id"]) is None:
        guess = closest(env["id"], gymnasium.registry)
        hint = f"Did you mean env.id={guess}?" if guess else "An environment of your own is env.id=module:id."
        yield f"env.id={env['id']}: Gymnasium knows no environment of this name. {hint}"


def folder_problems(config: Settings) -> Iterator[str]:
    """A variable that the shell does not know leaves nothing behind the ``=``, and that is the root of the disk."""
    if config.get("output_dir") == "":
        yield "output_dir=: expected a folder; output_dir=. is the current one"
    if config.get("run_name") == "":
        yield "run_name=: expected a name; run_name=null makes one of the time and the seed"


def device_problems(config: Settings) -> Iterator[str]:
    """A named GPU must exist. The only check that imports torch, and only for ``device=cuda``."""
    if config.get("device") == "cuda":
        import torch

        if not torch.cuda.is_available():
            yield "device=cuda: there is no CUDA device here that torch can use; device=cpu or device=auto runs"


CROSS_CHECKS: tuple[Callable[[Settings], Iterator[str]], ...] = (
    minibatch_problems,
    total_steps_problems,
    schedule_problems,
    minesweeper_problems,
    gymnasium_problems,
    folder_problems,
    device_problems,
)
