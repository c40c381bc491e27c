"""``ppo-train -m``: the jobs and the sweep that a command means, and the folder that it goes on in."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ppo_cli.bounded_yaml import read_bounded
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.compose import choices_of, resolve
from ppo_cli.cli.run_folder import RECORD, sweep_id, sweep_job
from ppo_cli.cli.validate import Settings
from ppo_cli.run_files import command_line, shown_path, write_atomically
from ppo_cli.trials import HParamsTable, hparams_table

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from ppo_cli.cli.compose import Composer

SWEEP_FILE = "sweep.yaml"
NOT_REPEATED = ("quiet", "jobs", "job_timeout", "again", "run_name", "resume", "launcher")
"""Settings that say how a sweep is worked off: of no use to one of its runs alone."""

NOT_COMPARED = (*NOT_REPEATED, "output_dir", "trust")
"""Settings that do not change what its runs are."""

MOST_COMBINATIONS = 64  # that are composed one by one before the first job; 0.1 s each


@dataclass(frozen=True)
class Sweep:
    """What a sweep is: two commands with the same one mean the same runs."""

    command: str
    fixed: str  # digest of what all jobs share
    words: list[str]  # what of it stood on the command line, flags included
    swept: dict[str, list[str]]  # values by setting
    is_ours_to_name: bool = True  # the folders of its jobs; False with hydra.sweep.subdir
    table: dict[str, Any] = field(default_factory=dict)  # of TensorBoard's HParams, for all of its jobs

    def is_same(self, other: Sweep, *, may_grow: bool) -> bool:
        """Whether ``other`` means the same jobs, or, where it ``may_grow``, others of the same kind."""
        mine, theirs = (list(self.swept), list(other.swept)) if may_grow else (self.swept, other.swept)
        return self.fixed == other.fixed and mine == theirs

    def job_names(self) -> list[str]:
        """What the folders of its jobs are called, if they are ours to name; as many names as jobs in any case."""
        return list(self.jobs()) if self.swept else ["0"]

    def jobs(self) -> dict[str, tuple[str, ...]]:
        """The swept settings of each job by what its folder is called.

        Raises:
            UserError: two jobs would have the same folder, and one of them never run.
        """
        jobs: dict[str, tuple[str, ...]] = {}
        values = ([f"{name}={value}" for value in values] for name, values in self.swept.items())
        for number, words in enumerate(itertools.product(*values)):
            name = sweep_job(number, words, list(self.swept))
            if jobs.setdefault(name, words) != words:
                raise UserError(
                    f"{' '.join(jobs[name])} and {' '.join(words)}: both runs would be called {name}; "
                    "number them instead: hydra.sweep.subdir='${hydra:job.num}'"
                )
        return jobs


def swept_settings(composer: Composer, settings: list[str], config: DictConfig) -> list[Override]:
    """The command line's settings, after those that the config itself sweeps over."""
    params = config.hydra.sweeper.get("params") or {}
    return composer.parse([*(f"{name}={values}" for name, values in params.items()), *settings])


def combinations(overrides: list[Override]) -> Iterator[list[str]]:
    """The settings of each job of a sweep; of a very large sweep only each value once."""
    values = []
    for override in overrides:
        name = override.get_key_element()
        if override.is_sweep_override() and override.is_discrete_sweep():
            values.append([f"{name}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override():
            values.append([f"{name}={override.get_value_element_as_str()}"])
    count = 1
    for choices in values:
        count *= len(choices)
    if count <= MOST_COMBINATIONS:
        yield from map(list, itertools.product(*values))
        return
    first = [choices[0] for choices in values]
    for place, choices in enumerate(values):
        yield from ([*first[:place], choice, *first[place + 1 :]] for choice in choices)


def sweep_of(config: DictConfig, jobs: Sequence[Settings], settings: list[Override], flags: list[str]) -> Sweep:
    """The sweep that these settings of the command line mean; ``config`` is what its ``jobs`` share."""
    given = {override.get_key_element().lstrip("+"): override for override in settings}
    swept = {name: swept_values(override) for name, override in given.items() if override.is_sweep_override()}
    resolved = resolve(config, choices_of(config), swept)
    shared = {name: value for name, value in resolved.items() if name not in NOT_COMPARED}
    words = [
        f"{override.get_key_element()}={override.get_value_element_as_str()}"
        for name, override in given.items()
        if name not in swept and name not in NOT_REPEATED and not name.startswith("hydra.")
    ]
    return Sweep(
        command_line(),
        digest(shared, sorted(words)),
        [*flags, *words],
        swept,
        "hydra.sweep.subdir" not in given,
        asdict(hparams_table(jobs, list(given))),
    )


def digest(*content: Any) -> str:  # noqa: ANN401 - whatever JSON can spell, and what str can
    """A few characters that stand for the content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def swept_values(override: Override) -> list[str]:
    """The values that a setting takes, or how they are drawn."""
    if override.is_discrete_sweep():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.input_line.partition("=")[2] if override.input_line else ""]


def read_sweep(folder: Path, file: str = SWEEP_FILE) -> Sweep | None:
    """What the sweep in this folder is, None where there is none."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(read_bounded(folder / file)))
        return Sweep(**content)
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        return None


def table_of(run_dir: Path) -> HParamsTable | None:
    """The HParams table that a run shares with the others of its sweep; None where it is in no sweep."""
    for folder in (run_dir.parent, run_dir.parent.parent):  # a job of several seeds lies between
        if (sweep := read_sweep(folder)) and sweep.table:
            return HParamsTable(**sweep.table)
    return None


def sweep_folder(config: DictConfig, names: set[str], sweep: Sweep) -> Path:
    """Where the sweep lies: in the folder that the user named, with the same sweep before it, or in a new one.

    Raises:
        UserError: the named folder holds something else.
    """
    is_named = config.run_name is not None or "hydra.sweep.dir" in names
    if "hydra.sweep.dir" not in names and {"env", "algo"} & set(sweep.swept):
        folder = Path(str(config.output_dir)) / "sweeps" / sweep_id(config.run_name)
    else:
        folder = Path(str(config.hydra.sweep.dir))
    if not is_named:
        return (None if config.again else newest_like(sweep, folder.parent)) or folder
    before = read_sweep(folder)
    is_same = before is not None and sweep.is_same(before, may_grow=True)
    if any(folder.glob(f"*/{RECORD}")) and (config.again or not is_same):
        what = "this sweep already" if is_same else "other runs"
        raise UserError(f"{shown_path(folder)}: holds {what}; choose another run_name")
    return folder


def newest_like(sweep: Sweep, parent: Path, file: str = SWEEP_FILE) -> Path | None:
    """The newest folder in ``parent`` with the same sweep."""
    found = [path.parent for path in parent.glob(f"*/{file}")]
    same = [folder for folder in found if (other := read_sweep(folder, file)) and sweep.is_same(other, may_grow=False)]
    return max(same, key=lambda folder: (folder / file).stat().st_mtime, default=None)


@contextmanager
def claimed(folder: Path, content: Mapping[str, Any], file: str = SWEEP_FILE) -> Iterator[None]:
    """Keep other processes out of the folder, which says what it holds, as long as this one lives.

    Raises:
        UserError: another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
        except BlockingIOError:
            why = "another process is at work in it; again=true begins another"
            raise UserError(f"{shown_path(folder)}: {why}") from None
        write_atomically(folder / file, OmegaConf.to_yaml(OmegaConf.create(dict(content))).encode())
        yield
    finally:
        os.close(descriptor)
