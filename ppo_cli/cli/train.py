"""`ppo-train`: from the command line to runs. torch is imported when a run starts, never before."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ppo_cli.cli.arguments import Arguments, UserError, quoted, repeated_flags, sort_arguments, trusted_on_command_line
from ppo_cli.cli.claim import report_claims
from ppo_cli.cli.commands import run_command
from ppo_cli.cli.compose import CONFIG_NAME, Composer, choices_of, resolve
from ppo_cli.cli.jobs import job_settings
from ppo_cli.cli.mistakes import first_line, interval_problem, resume_problem, unknown_setting
from ppo_cli.cli.program import print_warnings
from ppo_cli.cli.run_folder import (
    find_run,
    folder_problem,
    holds_run,
    require_own_files,
    saved_config,
    seed_runs,
    taken,
    write_problem,
)
from ppo_cli.cli.secrets import secret_problems
from ppo_cli.cli.show import show
from ppo_cli.cli.sweep import claimed, combinations, sweep_folder, sweep_of, swept_settings
from ppo_cli.cli.sweep_results import announce, conclude
from ppo_cli.cli.task import reported, run, task
from ppo_cli.cli.trust import hydra_problems, trust
from ppo_cli.cli.validate import Settings, validated
from ppo_cli.run_files import REFUSED, WriteError, shown_path

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from ppo_cli.trainer import Trainer

KEPT = ("env", "algo", "network", "experiment", "output_dir", "run_name", "seed", "optimizer", "normalize_obs")
"""Settings that a run keeps when it goes on."""


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-train", command, words, has_flags=True)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    if problems := secret_problems(words):
        raise UserError(*problems)
    arguments = sort_arguments(words)
    flags = arguments.flags
    if "--version" in flags:
        from importlib.metadata import version

        print(f"ppo-cli {version('ppo-cli')}")
        return 0
    if "--help" in flags:
        from ppo_cli.cli.help import print_train_help

        print_train_help(arguments)
        return 0
    composer = Composer(flags.get("--config-dir"), flags.get("--config-path"), flags.get("--config-name", CONFIG_NAME))
    if "--hydra-help" in flags or "--info" in flags:
        show(composer, arguments)
        return 0
    print_warnings(arguments.warnings)
    if "--multirun" in flags:
        arguments.overrides.append("hydra.mode=MULTIRUN")
    trust(trusted_on_command_line(arguments))
    if any(override.startswith("resume=") and override != "resume=null" for override in arguments.overrides):
        return resume(composer, arguments)
    config, jobs = checked(composer, arguments)
    if "--cfg" in flags:
        show(composer, arguments, config)
        return 0
    if config.hydra.mode == RunMode.MULTIRUN:
        return multirun(composer, arguments, config, jobs)
    composer.run(config, task)
    return 0


def checked(composer: Composer, arguments: Arguments) -> tuple[DictConfig, list[Settings]]:
    """The composed config, of a sweep what its jobs share, and the settings of each job, free of every mistake.

    Raises:
        UserError: with all mistakes that were found.
    """
    settings, is_sweep = arguments.overrides, "--multirun" in arguments.flags
    config, found = composer.try_compose(settings, is_sweep=is_sweep)
    problems = [*arguments.problems, *found]
    if config is None:
        raise UserError(*dict.fromkeys(problems))
    composed = [config]
    if config.hydra.mode != RunMode.MULTIRUN:
        problems += lone_run_problems(config, settings)
    elif not found:
        composed = []
        given = swept_settings(composer, settings, config)
        problems += undrawn_problems(given, config)
        for overrides in combinations(given):
            job, found = composer.try_compose(overrides)
            problems += found
            composed += [job] if job is not None else []
    jobs: list[Settings] = []
    for job in composed:
        problems += hydra_problems(OmegaConf.to_container(job.hydra, resolve=False))
        try:
            jobs.append(job_settings(job))
        except UserError as error:
            problems += error.problems
    if any(job["resume"] is not None for job in jobs):
        problems.append("resume: is heard from the command line only: ppo-train resume=<run folder>")
    if not problems and "--cfg" not in arguments.flags:
        problems += output_problems(config, arguments.overrides)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return config, jobs


def undrawn_problems(given: list[Override], config: DictConfig) -> list[str]:
    """Intervals, which Hydra's own sweeper cannot draw from; another one may."""
    if not str(config.hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
        return []
    return [interval_problem(override.input_line or "") for override in given if override.is_interval_sweep()]


def lone_run_problems(config: DictConfig, settings: list[str]) -> list[str]:
    """Why a single run is not meant: the config sweeps over settings that the command line leaves open."""
    given = {setting.lstrip("+").partition("=")[0] for setting in settings}
    open_ones = [name for name in config.hydra.sweeper.get("params") or {} if name not in given]
    if not open_ones:
        return []
    name = f"experiment={choices_of(config).get('experiment')}"
    return [f"{name}: is a sweep over {', '.join(open_ones)}: ppo-train -m {name}"]


def output_problems(config: DictConfig, overrides: list[str]) -> list[str]:
    """Why the run folder cannot be made where the config wants it."""
    is_sweep = config.hydra.mode == RunMode.MULTIRUN
    try:
        folder = Path(str(config.hydra.sweep.dir if is_sweep else config.hydra.run.dir))
    except OmegaConfBaseException as error:
        return [first_line(error)]
    names = ("hydra.sweep.dir=" if is_sweep else "hydra.run.dir=", "run_name=")
    given = next((override for name in names for override in overrides if override.startswith(name)), None)
    setting = given or f"output_dir={config.get('output_dir')}"
    if problem := folder_problem(folder, setting):
        return [problem]
    if not is_sweep and any(map(holds_run, folder.glob("seed=*"))):  # a sweep over seeds may grow
        return [f"{setting}: {taken(folder)}"]
    return []


def multirun(composer: Composer, arguments: Arguments, config: DictConfig, jobs: list[Settings]) -> int:
    """All jobs of a sweep that are not done. A failed job does not stop the others; a signal stops them all."""
    settings = swept_settings(composer, arguments.overrides, config)
    sweep = sweep_of(config, jobs, settings, repeated_flags(arguments))
    if sweep.is_ours_to_name:
        sweep.jobs()  # before anything is written
    names = {override.get_key_element() for override in settings}
    folder = sweep_folder(config, names, sweep)
    extra = [f"hydra.sweep.dir={quoted(str(folder))}"]
    if sweep.is_ours_to_name and sweep.swept:
        template = f"${{sweep_job:${{hydra:job.num}},${{hydra:overrides.task}},[{','.join(sweep.swept)}]}}"
        extra.append(f"hydra.sweep.subdir='{template}'")
    with claimed(folder, asdict(sweep)):
        announce(sweep, folder, is_quiet=config.quiet)
        words = [word for word in arguments.overrides if not word.startswith("hydra.sweep.dir=")]
        is_stopped = False
        try:
            composer.hydra.multirun(composer.config_name, task, [*words, *extra], with_log_configuration=False)
        except KeyboardInterrupt:
            is_stopped = True
            raise
        except OSError as error:
            if error.errno in REFUSED:
                raise WriteError(folder, error) from error
            raise
        finally:
            conclude(sweep, folder, is_stopped=is_stopped, is_quiet=config.quiet, is_ranked=not config.get("claim"))
            if config.get("claim") and not is_stopped:
                report_claims(folder)
    return 0


def trainer_of(overrides: list[str], run_dir: Path) -> Trainer:
    """What ``ppo-train`` with these settings would run, in ``run_dir``, for programs that drive the loop themselves."""
    config = Composer().compose(overrides)
    settings = validated(resolve(config, choices_of(config)))
    from ppo_cli.cli.run import build_trainer

    return build_trainer(settings, run_dir, overrides)


def resume(composer: Composer, arguments: Arguments) -> int:
    """Go on with a run: its saved settings, the command line's on top, in its folder.

    Raises:
        UserError: no such run, or settings that cannot change any more.
    """
    if arguments.problems:
        raise UserError(*arguments.problems)
    if "--multirun" in arguments.flags:
        raise UserError("resume= goes on with one run: leave out -m")
    values = composer.parse(arguments.overrides)
    if swept := [resume_problem(override) for override in values if override.is_sweep_override()]:
        raise UserError(*swept)
    given = {override.key_or_group: override.value() for override in values}
    name = str(given.pop("resume"))
    if not name:
        raise UserError("resume=: expected a run folder, or latest")
    members = seed_runs(Path(name))
    searched = str(given.pop("output_dir", "outputs")) if name == "latest" else ""
    folder = Path(name) if members else find_run(name, searched)
    for each in [folder, *(folder.glob("seed=*/") if members else ())]:
        require_own_files(each)
    saved = saved_config(members[0] if members else folder)
    for name, value in given.items():
        if name in KEPT or name.startswith(("hydra", "network.")):
            raise UserError(f"{name}={value}: a run that goes on keeps its {name}")
        if name != "trust" and OmegaConf.select(saved, name, default=saved) is saved:
            known = [str(key) for key in saved]
            raise UserError(unknown_setting(name, str(value), known))
        OmegaConf.update(saved, name, value, merge=False)
    if not members:
        saved["seeds"] = None
    elif saved["seeds"] is None:  # this one went on alone before
        saved["seeds"] = [int(member.name.partition("=")[2]) for member in members]
    settings = validated(resolve(saved, {}) | {"resume": str(folder)})
    if "--cfg" in arguments.flags:
        print(OmegaConf.to_yaml(OmegaConf.create(settings)), end="")
        return 0
    for each in [folder, *members]:
        if problem := write_problem(each):
            raise UserError(f"resume={shown_path(folder)}: {problem}; put a copy elsewhere to go on")
    reported(lambda: run(settings, folder, arguments.overrides), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
