"""From command-line settings to one plain dict: Hydra composes, this module explains what it refuses.

Uses Hydra's own classes below `hydra.main`, which would read `sys.argv`, print tracebacks and choose the exit
code; hydra-core is held below 1.4 in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins import file_config_source
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser import types as override_types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import FloatRange, Override
from hydra.core.utils import JobStatus, run_job
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ppo_cli.bounded_yaml import read_bounded
from ppo_cli.cli import algorithms
from ppo_cli.cli.algorithms import setting_of_another
from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.launcher import missing_launcher, register_launcher
from ppo_cli.cli.mistakes import (
    closest,
    first_line,
    sweep_problem,
    unknown_setting,
    unnamed_network,
    unreadable,
    valueless_problem,
)
from ppo_cli.cli.run_folder import register_resolvers
from ppo_cli.cli.trust import search_path_problems

ROOT = "pkg://ppo_cli.configs"
CONFIG_NAME = "train"
GROUPS = ("env", "algo", "network", "experiment")
INTERNAL_GROUPS = ("tuned", "space")
COMPOSING = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError, OSError),
    *(ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError),
)
"""What Hydra raises about a user's file: it says most of it in exceptions of its own, and lets the rest happen."""


class Composer:
    """The config tree: this package's, and before it the user's own ``--config-dir``."""

    def __init__(
        self, config_dir: str | None = None, config_path: str | None = None, config_name: str = CONFIG_NAME
    ) -> None:
        for flag, folder in (("--config-dir", config_dir), ("--config-path", config_path)):
            if folder is not None and "://" not in folder and not Path(folder).is_dir():
                raise UserError(f"{flag} {folder}: there is no such folder")
            if (
                folder is not None
                and "://" not in folder
                and (problems := search_path_problems(Path(folder), config_name))
            ):
                raise UserError(*problems)
        self.config_name = config_name
        version.setbase("1.3")
        register_resolvers()
        register_launcher()
        read_files_bounded()
        count_in_decimals()
        GlobalHydra.instance().clear()
        search_path = create_config_search_path(location(config_path) if config_path else ROOT)
        assert isinstance(search_path, ConfigSearchPathImpl)
        if config_dir is not None:
            search_path.prepend("command-line", location(config_dir), SearchPathQuery(provider="schema"))
        self.hydra = Hydra.create_main_hydra2(task_name="ppo-train", config_search_path=search_path)

    def options(self, group: str) -> list[str]:
        """The names that a group offers."""
        names: list[str] = self.hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
        return names

    def groups(self) -> list[str]:
        """The groups that a user chooses from: ours and those in the user's folder."""
        found = self.hydra.config_loader.list_groups("")
        own = [group for group in found if group not in (*GROUPS, *INTERNAL_GROUPS, "hydra") and self.options(group)]
        return [*GROUPS, *own]

    def compose(self, overrides: list[str]) -> DictConfig:
        """The whole config, Hydra's own part included.

        Raises:
            UserError: with every mistake that could be found in ``overrides``.
        """
        config, problems = self.try_compose(overrides)
        if config is None or problems:
            raise UserError(*problems)
        return config

    def try_compose(self, overrides: list[str], *, is_sweep: bool = False) -> tuple[DictConfig | None, list[str]]:
        """The config, and what is wrong with ``overrides``; then it is the config without those, if there is one.

        Of a sweep it is what all jobs share: choices among several values are left at their default.
        """
        mode = RunMode.MULTIRUN if is_sweep else RunMode.RUN
        try:
            config, problems = self._compose(overrides, mode), self.choice_problems(self.parse(overrides))
            return config, problems
        except (*COMPOSING, UserError) as error:
            problems, good = self.diagnose(overrides, is_sweep)
            try:
                return self._compose(good, mode), problems or [first_line(error)]
            except COMPOSING as remaining:
                return None, problems or [first_line(remaining)]

    def _compose(self, overrides: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        config = self.hydra.compose_config(
            self.config_name, overrides, mode, from_shell=True, with_log_configuration=False
        )
        HydraConfig.instance().set_config(config.copy())  # for ${hydra:...}; Hydra locks what it is given
        return config

    def run(self, config: DictConfig, task: TaskFunction) -> None:
        """One job, as Hydra's own ``run`` does it, but without its line about a failure that ``task`` has reported."""
        callbacks = Callbacks(config)
        config.hydra.mode = RunMode.RUN
        callbacks.on_run_start(config=config, config_name=self.config_name)
        job = run_job(
            hydra_context=HydraContext(config_loader=self.hydra.config_loader, callbacks=callbacks),
            task_function=task,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            configure_logging=False,
        )
        callbacks.on_run_end(config=config, config_name=self.config_name, job_return=job)
        if job.status is JobStatus.FAILED:
            failure = job._return_value
            assert isinstance(failure, Exception)
            raise failure

    def parse(self, overrides: list[str]) -> list[Override]:
        """Hydra's grammar of ``name=value``.

        Raises:
            UserError: for each that it cannot read, and each sweep without a value.
        """
        parser = OverridesParser.create(config_loader=self.hydra.config_loader)
        problems: list[str] = []
        parsed: list[Override] = []
        for text in overrides:
            try:
                (override,) = parser.parse_overrides([text])
            except OverrideParseException:
                problems.append(unreadable(text))
                continue
            parsed.append(override)
            if problem := valueless_problem(override):
                problems.append(problem)
        if problems:
            raise UserError(*problems)
        return parsed

    def diagnose(self, overrides: list[str], is_sweep: bool) -> tuple[list[str], list[str]]:
        """What is wrong with the settings' form, choices and names, and which settings are fine."""
        problems: list[str] = []
        parsed: list[Override] = []
        for text in overrides:
            try:
                parsed += self.parse([text])
            except UserError as error:
                problems += error.problems
        if not is_sweep:
            problems += [sweep_problem(override) for override in parsed if override.is_sweep_override()]
            parsed = [override for override in parsed if not override.is_sweep_override()]
        choices = [override for override in parsed if self.is_choice(override)]
        bad = [override for override in choices if self.choice_problems([override])]
        problems += self.choice_problems(bad)
        good = [override for override in parsed if override not in bad]
        try:
            base = self._compose([override.input_line or "" for override in good if override in choices])
        except COMPOSING as error:
            return [*problems, first_line(error)], []
        unknown = {
            override.input_line: problem
            for override in good
            if override not in choices and (problem := self.unknown_problem(override, base))
        }
        return [*problems, *unknown.values()], [
            override.input_line or "" for override in good if override.input_line not in unknown
        ]

    def is_choice(self, override: Override) -> bool:
        """Whether it chooses from a group rather than setting a value."""
        name = override.key_or_group
        return "." not in name and (name in GROUPS or "/" in name or bool(self.options(name)))

    def choice_problems(self, overrides: Iterable[Override]) -> list[str]:
        """Choices that their group does not offer."""
        problems = [
            self.choice_problem(override.key_or_group, value, override.input_line or "")
            for override in overrides
            if self.is_choice(override)
            for value in (override.sweep_iterator() if override.is_discrete_sweep() else [override.value()])
        ]
        return [problem for problem in problems if problem]

    def choice_problem(self, group: str, value: Any, line: str) -> str | None:  # noqa: ANN401 - whatever was typed
        """Why ``group=value`` is no choice, or None where it is one."""
        options = self.options(group)
        if value is None and group == "experiment":
            return None
        if isinstance(value, list):
            return f"{line}: choose one {group}: {' | '.join(options)}"
        if str(value) in options:
            return missing_launcher(str(value)) if group == "launcher" else None
        offer = (
            f"Choose from: {', '.join(options)}" if options else f"There are none; put one in your own {group}/ folder"
        )
        guess = closest(str(value), options)
        return f"{line}: there is no {group} of this name. " + (
            f"Did you mean {group}={guess}? {offer}" if guess else offer
        )

    def unknown_problem(self, override: Override, config: DictConfig) -> str | None:
        """Why a setting that Hydra did not find has no place in ``config``; None where it has one."""
        name = override.key_or_group
        if name in settings_of(config):
            return None
        value = (override.input_line or "").partition("=")[2]
        if name.startswith("network.") and config.network.get("_target_") is None:
            return unnamed_network(name, value)
        algo, target = choices_of(config)["algo"], str(OmegaConf.select(config, "algo._target_"))
        return setting_of_another(name, value, algo, algorithms.settings_of(target)) or unknown_setting(
            name, value, settings_of(config), self.groups()
        )


class FileConfigSource(file_config_source.FileConfigSource):
    """Config files of the user's own folders, maybe a stranger's work. Hydra tells its readers apart by their names."""

    def load_config(self, config_path: str) -> ConfigResult:
        """As Hydra's.

        Raises:
            yaml.YAMLError: it is no YAML, or stands for something too large to be built.
        """
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file():
            try:
                read_bounded(path)
            except (yaml.YAMLError, ValueError) as error:
                raise yaml.YAMLError(f"{path}: {first_line(error)}") from error
        return super().load_config(config_path)


def read_files_bounded() -> None:
    """Make Hydra read files by the `FileConfigSource` above."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


class DecimalRange(FloatRange):
    """Hydra's range of numbers, which would count on in binary: 0.1 three times is more than 0.3 there."""

    def __post_init__(self) -> None:
        """Start, end and step as they are typed."""
        self.start, self.stop, self.step = (Decimal(str(number)) for number in (self.start, self.stop, self.step))


def count_in_decimals() -> None:
    """Make Hydra's sweeps take the `DecimalRange` above."""
    override_types.FloatRange = DecimalRange  # type: ignore[misc]


def location(folder: str) -> str:
    """A folder as Hydra's search path wants it."""
    return folder if "://" in folder else f"file://{Path(folder).absolute()}"


def choices_of(config: DictConfig) -> dict[str, Any]:
    """What was chosen from each group."""
    return dict(config.hydra.runtime.choices)


def resolve(config: DictConfig, choices: Mapping[str, Any], swept: Collection[str] = ()) -> dict[str, Any]:
    """The settings as a plain dict without interpolations; Hydra's own part left out, names of the choices filled in.

    Those in ``swept`` need no value: each job has its own.

    Raises:
        UserError: an interpolation leads nowhere.
    """
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
        for group in ("env", "algo", "network"):
            if OmegaConf.is_dict(config.get(group)) and "name" not in config[group]:
                config[group].name = choices.get(group, "custom")
    missing = [name for name, value in walk(OmegaConf.to_container(config, resolve=False)) if value == "???"]
    if missing := [name for name in missing if name not in swept]:
        raise UserError(*(f"{name} has no default: {name}=..." for name in missing))
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def settings_of(config: DictConfig) -> list[str]:
    """Every setting's dotted name."""
    return [name for name, _ in walk(OmegaConf.to_container(config, resolve=False))]


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any node of a config
    """Dotted names and values, inner nodes before what they hold."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        yield name, value
        if isinstance(value, dict) and name not in ("hydra.job_logging", "hydra.hydra_logging"):
            yield from walk(value, f"{name}.")
