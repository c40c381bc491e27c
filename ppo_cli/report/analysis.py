"""Everything that a report says, before it is put on a page or a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ppo_cli.report.charts import title_of
from ppo_cli.report.groups import Group, group_runs, name_of
from ppo_cli.report.health import Check, Finding, findings_of
from ppo_cli.report.importance import INTERACTION, SEED, Importance, importance_of
from ppo_cli.report.numbers import estimate_text, percent, plural, steps_text
from ppo_cli.report.results import Result, lead, ranked, results_of
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate

ENDED_BADLY = ("failed", "killed", "interrupted")
LAST_LINES = 12


@dataclass(frozen=True)
class Report:
    """Runs and what they show, of one metric."""

    runs: Sequence[Run]
    metric: str

    @cached_property
    def groups(self) -> list[Group]:
        """The configurations, in the order of their folders."""
        return group_runs(self.runs)

    @cached_property
    def results(self) -> list[Result]:
        """One a configuration, in the same order."""
        return results_of(self.groups, self.metric)

    @cached_property
    def importance(self) -> Importance | None:
        """What the settings did; of several environments nobody can say, whose figures have scales of their own."""
        return importance_of(self.results, self.metric) if len(self.environments) < 2 else None

    @property
    def environments(self) -> list[str]:
        """Where the metric was measured."""
        return sorted({name_of(result.group.runs[0], "env") for result in self.results if result.final.n})

    @cached_property
    def findings(self) -> dict[Check, list[Finding]]:
        """What looks wrong, by check, with the configurations that it was seen in."""
        by_check: dict[Check, list[Finding]] = {}
        for finding in findings_of(self.groups):
            by_check.setdefault(finding.check, []).append(finding)
        return by_check

    @cached_property
    def failures(self) -> list[tuple[Group, Run]]:
        """Runs that did not come to their end, and will not."""
        return [(group, run) for group in self.groups for run in group.runs if run.status in ENDED_BADLY]

    @property
    def title(self) -> str:
        """``cartpole, ppo: 45 runs``."""
        names = [sorted({name for run in self.runs if (name := name_of(run, part))}) for part in ("env", "algo")]
        return f"{', '.join(' '.join(part) for part in names if part) or 'unknown'}: {plural(len(self.runs), 'run')}"

    @property
    def subtitle(self) -> str:
        """How many configurations and seeds, and how the runs stand."""
        sizes = sorted({len(group.runs) for group in self.groups})
        seeds = plural(sizes[0], "seed") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} seeds"
        states = Counter(run.status for run in self.runs)
        standing = ", ".join(f"{count} {status}" for status, count in states.most_common())
        each = " each" if len(self.groups) > 1 else ""
        return f"{plural(len(self.groups), 'configuration')}, {seeds}{each}: {standing}"

    @cached_property
    def verdict(self) -> list[str]:
        """What came out, in a few sentences."""
        return [*self._performance(), *self._importance(), *self._caveats()]

    def _performance(self) -> list[str]:
        best = [result for result in ranked(self.results) if result.final.n]
        if not best:
            return [f"No run has a value of {self.metric} yet."]
        if len(self.environments) > 1:
            count = len(self.environments)
            return [f"{count} environments, each with a scale of its own: compare within one, not between them."]
        first = best[0]
        so_far = "so far, " if first.is_provisional else ""
        figure = f"{estimate_text(first.final)} {so_far}after {steps_text(first.env_steps)} steps"
        if len(best) == 1:
            return [f"{title_of(self.metric)}: {figure}."]
        second = best[1].group.label
        return [f"{first.group.label} is highest: {figure}. {self._compared(second)}"]

    def _compared(self, second: str) -> str:
        found = lead(self.results, self.metric)
        if found is None:
            return f"{second} follows; one seed each cannot say whether that is more than luck."
        if found.low > 0:
            return f"It is {estimate_text(found)} ahead of {second}."
        return f"{second} cannot be told from it: the difference is {estimate_text(found)}."

    def _importance(self) -> list[str]:
        found = self.importance
        if found is None or not found.figures:
            return []
        own = {name: figure for name, figure in found.figures.items() if name not in (INTERACTION, SEED)}
        name, figure = max(own.items(), key=lambda item: abs(item[1].value))
        if found.is_grid:
            seed = found.figures[SEED].value
            return [f"{name} explains {share_text(figure)} of the variance between runs, the seed {percent(seed)}."]
        return [f"{name} goes with the figure most: rank correlation {correlation_text(figure)}."]

    def _caveats(self) -> list[str]:
        states = Counter(run.status for group in self.groups for run in group.runs if not run.is_finished)
        if not states:
            return []
        standing = ", ".join(f"{count} {status}" for status, count in states.most_common())
        is_mixed = any(result.left_out and not result.is_provisional for result in self.results)
        rule = " Where a configuration has finished runs, its figures count only those." if is_mixed else ""
        return [f"Not finished: {standing}.{rule}"]


def share_text(found: Estimate) -> str:
    """``46 % (24 to 78)``, or that a share of variance was left to chance."""
    return f"{percent(found.value)} ({100 * found.low:.0f} to {100 * found.high:.0f})"


def correlation_text(found: Estimate) -> str:
    """``0.62 (0.31 to 0.84)``."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def statement(finding: Finding) -> str:
    """``5 of 5 runs; seed 1: above 0.05 in 3 % of the updates``; of a single run what was seen."""
    run, text = next(iter(finding.seen.items()))
    if len(finding.group.runs) == 1:
        return text
    return f"{len(finding.seen)} of {len(finding.group.runs)} runs; seed {run.seed}: {text}"


def counts_text(result: Result) -> str:
    """How many runs a figure counts, and what became of the others: ``4, 1 failed``, or ``1 running at 30k``."""
    counted = Counter(run.status for run in result.counted) if result.is_provisional else Counter()
    left_out = Counter(run.status for run in result.left_out)
    so_far = [f"{count} {status} at {steps_text(result.env_steps)}" for status, count in counted.items()]
    others = [f"{count} {status}" for status, count in left_out.items()]
    repeated = [f"{len(result.group.repeated)} repeated"] if result.group.repeated else []
    return ", ".join([*(so_far or [str(result.final.n)]), *others, *repeated])


def importance_method(found: Importance) -> str:
    """How the table was made, and what it cannot say."""
    if found.is_grid:
        return (
            f"Every combination was run, so the variance of the final figure over {plural(found.n, 'run')} splits into "
            "the share of each setting alone, of what settings do only together, and of the seed. Intervals: seeds "
            "drawn anew within each combination; they lean upwards where seeds are few."
        )
    return (
        f"Not every combination was run, so this is Spearman's rank correlation of each setting with the final figure "
        f"over {plural(found.n, 'run')}: 1 and -1 are a perfect order, 0 is none. It sees no effect that rises and "
        "falls again, and settings that changed together share theirs."
    )


def last_lines(run: Run) -> str:
    """What a run that ended badly said last."""
    if run.error:
        return "\n".join(run.error.splitlines()[-LAST_LINES:])
    if run.status == "killed":
        return "It says that it is running, and has written nothing for long: the process was probably killed."
    return (
        "It was stopped by a signal and saved a checkpoint." if run.status == "interrupted" else "No reason was left."
    )
