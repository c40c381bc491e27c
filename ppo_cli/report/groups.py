"""Runs that are samples of one configuration, what differs between configurations, and what to call them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppo_cli.report.files import natural_order
from ppo_cli.report.runs import Run
from ppo_cli.trials import chosen_settings

LONGEST_LABEL = 60


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    runs: tuple[Run, ...]
    """One a seed, the one that came furthest."""
    repeated: tuple[Run, ...]
    """Others of the same seeds: the same sample once more, which no statistic counts."""
    settings: Mapping[str, Any]
    """Those that differ between the groups."""
    factors: Mapping[str, Any]
    """Of these, the ones that someone chose and that tell the groups apart; the others follow from them."""
    label: str
    """What tells it from the others, short: ``clip=0.2``."""


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ only in the seed belong together; groups in the order of their labels, numbers by value."""
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        by_settings.setdefault(exact(dict(sorted(run.settings.items()))), []).append(run)
    samples = list(by_settings.values())
    names = differing([group[0].settings for group in samples])
    factors = factors_of([group[0] for group in samples], names)
    labels = labels_of([group[0] for group in samples], factors)
    groups = [_group(group, names, factors, label) for group, label in zip(samples, labels, strict=True)]
    return sorted(groups, key=lambda group: natural_order(group.label))


def _group(samples: list[Run], names: Sequence[str], factors: Sequence[str], label: str) -> Group:
    furthest: dict[str, Run] = {}
    for run in sorted(samples, key=lambda run: (run.is_finished, run.env_steps)):
        furthest[str(run.folder if run.seed is None else run.seed)] = run
    kept = tuple(run for run in samples if run in furthest.values())
    settings = {name: samples[0].settings[name] for name in names if name in samples[0].settings}
    deciding = {name: settings[name] for name in factors if name in settings}
    return Group(kept, tuple(run for run in samples if run not in kept), settings, deciding, label)


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that do not have the same value everywhere, or do not exist everywhere, in the order of the configs.

    A run that left no settings says nothing about them.
    """
    known = [each for each in settings if each]
    names = dict.fromkeys(name for each in known for name in each)
    return [name for name in names if len({exact(each.get(name, ...)) for each in known}) > 1]


def factors_of(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The settings to tell runs of different configurations apart by: those that were typed, where they suffice."""
    chosen = [name for name in chosen_settings([word for run in runs for word in run.overrides]) if name in names]
    is_enough = len({exact([run.settings.get(name, ...) for name in chosen]) for run in runs}) == len(runs)
    return chosen if is_enough else list(names)


def labels_of(runs: Sequence[Run], factors: Sequence[str]) -> list[str]:
    """A short name for each of these runs, no two alike: ``clip=0.2, algo=ppo``, or its folder where that is long.

    One alone is named by what it learns: ``cartpole, ppo``.
    """
    if len(runs) == 1 and (parts := [name for part in ("env", "algo") if (name := name_of(runs[0], part))]):
        return [", ".join(parts)]
    labels = [
        ", ".join(
            f"{name.removesuffix('.name')}={shown(run.settings[name])}" for name in factors if name in run.settings
        )
        or run.folder.absolute().name
        for run in runs
    ]
    is_readable = len(set(labels)) == len(runs) and all(0 < len(label) <= LONGEST_LABEL for label in labels)
    return labels if is_readable else _folder_labels(runs)


def _folder_labels(runs: Sequence[Run]) -> list[str]:
    """Folder names with as many parents as it takes to tell them apart; of one run its last."""
    parts = [run.folder.absolute().parts for run in runs]
    for length in range(1, max(map(len, parts), default=1) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(runs):
            break
    return labels


def exact(value: object) -> str:
    """Equal for equal values only."""
    return json.dumps(value, default=repr)


def name_of(run: Run, part: str) -> str:
    """What env or algo a run has, empty where that is not known."""
    node = run.config.get(part)
    return str(node.get("id") or node.get("name") or "") if isinstance(node, dict) else ""


def shown(value: object) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)
