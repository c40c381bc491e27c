"""Optuna's side of a search: which settings come next, which trials are stopped early, what came out best.

The study is a journal file in the search's folder, so that it survives whatever ends the process. Samplers and pruners:
TPE (Bergstra et al. 2011), median stopping (Golovin et al. 2017), ASHA (Li et al. 2020).
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from ppo_cli.cli.search_space import Dimension
from ppo_cli.cli.validate import Settings

JOURNAL = "study.log"
NAME = "search"
RUNGS = 27
"""Points of a run at which its return is compared with the others'; a power of three for ASHA."""

REDUCTION = 3
FIRST_RUNG = 3
"""ASHA keeps the best third at 3, 9 and 27 of 27."""

ENOUGH_FOR_IMPORTANCE = 10


@dataclass
class SearchTrial:
    """A trial under way: its settings and what its runs have shown so far."""

    trial: Trial
    words: list[str]
    seeds: list[int]
    curves: dict[int, list[float]] = field(default_factory=dict)  # by seed: the return at each rung passed
    returns: dict[int, float] = field(default_factory=dict)  # by seed, of the runs that are done
    reported: int = 0
    is_over: bool = False

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"trial={self.trial.number}"

    def see(self, seed: int, share: float, value: float) -> None:
        """Note the return of one run after ``share`` of its steps."""
        curve = self.curves.setdefault(seed, [])
        curve += [value] * (min(RUNGS, int(RUNGS * share)) - len(curve))

    def should_stop(self) -> bool:
        """Report the rungs that all runs have passed; whether one of them says that it is not worth going on."""
        passed = min((len(curve) for curve in self.curves.values()), default=0)
        while self.reported < passed:
            value = statistics.fmean(curve[self.reported] for curve in self.curves.values())
            self.reported += 1
            if not math.isnan(value):
                self.trial.report(value, self.reported)
                if self.trial.should_prune():
                    return True
        return False


class Study:
    """What has been tried, on the disk.

    Args:
        folder: The search's.
        settings: Of the search.
        space: What is tried.
        seeds: Of each trial's runs.
    """

    def __init__(self, folder: Path, settings: Settings, space: Sequence[Dimension], seeds: Sequence[int]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = folder / JOURNAL
        mend(journal)
        self.space, self.settings, self.seeds = space, settings, list(seeds)
        self.study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=NAME,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(settings),
        )
        begun = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = make_sampler(settings, self.seeds[0] + begun)  # one that goes on draws other settings

    def trials(self) -> Iterator[SearchTrial]:
        """Those that were cut off, then new ones, each drawn when it is asked for."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = Trial(self.study, frozen._trial_id)
            yield SearchTrial(trial, self.words(frozen.params), self.seeds, reported=frozen.last_step or 0)
        while len(self.study.get_trials(deepcopy=False)) < self.settings["trials"]:
            trial = self.study.ask()
            yield SearchTrial(trial, [each.draw(trial) for each in self.space], self.seeds)

    def words(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's settings as they are typed."""
        return [each.word(params[each.name]) for each in self.space if each.name in params]

    def complete(self, trial: SearchTrial) -> float:
        """All runs are done: their score, NaN and a failure where no episode has ended in any."""
        values = [value for value in trial.returns.values() if not math.isnan(value)]
        trial.is_over = True
        if not values:
            self.study.tell(trial.trial, state=TrialState.FAIL)
            return math.nan
        result = score(values, self.settings["score"])
        self.study.tell(trial.trial, result)
        return result

    def prune(self, trial: SearchTrial) -> None:
        """It is not worth going on."""
        trial.is_over = True
        self.study.tell(trial.trial, state=TrialState.PRUNED)

    def fail(self, trial: SearchTrial) -> None:
        """One of its runs failed."""
        trial.is_over = True
        self.study.tell(trial.trial, state=TrialState.FAIL)

    @property
    def num_rungs(self) -> int:
        """Points of a run at which its return is compared."""
        return RUNGS

    def finished(self) -> list[FrozenTrial]:
        """All trials but those that were cut off."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def count(self, state: TrialState) -> int:
        """Trials that ended so."""
        return len(self.study.get_trials(deepcopy=False, states=(state,)))

    def best(self, count: int) -> list[FrozenTrial]:
        """The complete trials with the highest scores."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sorted(done, key=lambda trial: -math.inf if trial.value is None else trial.value, reverse=True)[:count]

    def importance(self) -> dict[str, float]:
        """The share of each setting in how good the trials are; empty where there are too few of them to tell."""
        if self.count(TrialState.COMPLETE) < ENOUGH_FOR_IMPORTANCE or len(self.space) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                self.study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: value for name, value in found.items() if math.isfinite(value)}


def score(values: Sequence[float], kind: str) -> float:
    """Mean of all values, or of the middle half: a quarter of them, rounded down, is left out at either end."""
    cut = len(values) // 4 if kind == "iqm" else 0
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def make_sampler(settings: Settings, seed: int) -> optuna.samplers.BaseSampler:
    """Who draws the settings."""
    if settings["sampler"] == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings["startup_trials"], constant_liar=True)


def make_pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """Who stops trials early."""
    match settings["pruner"]:
        case "median":
            warmup = math.ceil(RUNGS * settings["warmup"])
            return optuna.pruners.MedianPruner(n_startup_trials=settings["startup_trials"], n_warmup_steps=warmup)
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=REDUCTION)
        case _:
            return optuna.pruners.NopPruner()


def mend(journal: Path) -> None:
    """Take away what a killed process leaves: half a line, and its lock."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            journal.write_bytes(content[: content.rfind(b"\n") + 1])
