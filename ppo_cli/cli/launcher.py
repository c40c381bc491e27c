"""Hydra's launcher of ours: each job of a sweep in a process of its own, as many at once as the cores carry.

``jobs=`` and ``job_timeout=`` set it; ``launcher=`` chooses another one of Hydra's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ppo_cli.cli.program import CRASH, ReportedError, Stopped, guarded, importing
from ppo_cli.processes import Job, JobPool
from ppo_cli.run_reader import job_return
from ppo_cli.signals import stop_on_signals

PLUGIN = "hydra_plugins.ppo_cli.ProcessLauncher"
"""The name of ours among Hydra's plugins, which takes none from outside this namespace."""


EXTRAS = {
    "joblib": ("hydra-joblib-launcher", "joblib"),
    "submitit_local": ("hydra-submitit-launcher", "submitit"),
    "slurm": ("hydra-submitit-launcher", "submitit"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""Launchers that others wrote: the package, and the extra of ours that installs it."""


def missing_launcher(name: str) -> str | None:
    """What to install for ``launcher=<name>``, None where nothing is missing."""
    package, extra = EXTRAS.get(name, ("", ""))
    if not package:
        return None
    try:
        version(package)
    except PackageNotFoundError:
        return f"launcher={name}: needs {package}, which is not installed: pip install 'ppo-cli[{extra}]'"
    return None


@functools.cache
def register_launcher() -> None:
    """Make ``hydra/launcher: processes`` known to Hydra."""
    settings = {"_target_": PLUGIN, "jobs": "${jobs}", "timeout": "${job_timeout}"}
    ConfigStore.instance().store(group="hydra/launcher", name="processes", node=settings, provider="ppo-cli")
    Plugins.instance().class_name_to_class[PLUGIN] = ProcessLauncher


class FailedJob(JobReturn):
    """What a sweeper gets for a job that failed, which the user has been told about."""

    @property  # type: ignore[misc]  # nobody sets it
    def return_value(self) -> None:
        """Nothing.

        Raises:
            ReportedError: always.
        """
        raise ReportedError(CRASH)


class ProcessLauncher(Launcher):
    """Runs the jobs that a sweeper hands it.

    Args:
        jobs: Most jobs at once; 0 is as many as the cores carry.
        timeout: Seconds without a sign of life after which a job is stopped; 0 never.
    """

    def __init__(self, jobs: Any, timeout: Any) -> None:  # noqa: ANN401 - numbers as they were typed
        self.jobs = int(jobs)
        self.timeout = float(timeout)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before the first job."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do the jobs and return how each ended, in their order; those that were done before are not done again.

        Raises:
            Stopped: by a signal, with every job saved that had begun.
        """
        setup_globals()
        cores = import_for_jobs()
        at_once = min(self.jobs or cores, len(job_overrides))
        configs = [self.job_config(list(each), initial_job_idx + n) for n, each in enumerate(job_overrides)]
        jobs = [self.job(config, max(1, cores // at_once)) for config in configs]
        missing = {job.folder: job for job, is_missing in jobs if is_missing}
        from ppo_cli.progress_jobs import make_jobs_display

        display = make_jobs_display("silent" if self.config.quiet else "auto", len(missing))
        pool = JobPool(display, cores=cores, at_once=self.jobs, timeout=self.timeout)
        with stop_on_signals() as stop:
            ended = {each.job.folder: each for each in pool.run(missing.values(), stop)}
        if stop:
            raise Stopped(stop.exit_code)
        failed = {folder for folder, each in ended.items() if each.kind != "done"}
        return [job_result(job.folder, job.folder in failed) for job, _ in jobs]

    def job_config(self, overrides: list[str], number: int) -> DictConfig:
        """What one job is to do."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def job(self, config: DictConfig, num_threads: int) -> tuple[Job, bool]:
        """One job, on ``num_threads`` where its settings leave that open, and whether it is still to do."""
        from ppo_cli.cli.jobs import is_done, job_settings, total_steps

        HydraConfig.instance().set_config(config)  # its folder's name asks for it
        folder = Path(str(OmegaConf.select(config, "hydra.sweep.dir"))) / str(config.hydra.sweep.subdir)
        settings = job_settings(config)
        config.num_threads = settings["num_threads"] = settings["num_threads"] or num_threads
        work = partial(work_in_process, self.hydra_context, self.task_function, config)
        job = Job(folder.name, folder.absolute(), work, total_steps(settings), settings["num_threads"])
        return job, not is_done(settings, folder)


def work_in_process(hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> int:
    """One job, in its process. Returns the exit code."""

    def work() -> int:
        job = run_job(
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )
        if job.status is JobStatus.FAILED:
            raise job._return_value
        return 0

    return guarded(work)


def job_result(folder: Path, has_failed: bool) -> JobReturn:
    """What the sweeper hears of a job: the mean return of its last episodes."""
    result = FailedJob() if has_failed else JobReturn()
    result.status = JobStatus.FAILED if has_failed else JobStatus.COMPLETED
    result._return_value = None if has_failed else job_return(folder)
    return result


def import_for_jobs() -> int:
    """Import what every job needs, once for all that are forked from here. Returns the cores that they share."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's: threads here would not survive the fork
    with importing():
        from ppo_cli.cli import seeds  # noqa: F401 - everything that a run imports at its start
    from ppo_cli.parallel import available_cores

    return available_cores()
