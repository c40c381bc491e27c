"""Where runs lie: outputs/<env>/<algo>/<run>, one folder for each, named so that a person finds it again."""

from __future__ import annotations

import functools
import glob
import re
import secrets
import shlex
import tempfile
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ppo_cli.bounded_yaml import read_bounded
from ppo_cli.cli.arguments import UserError
from ppo_cli.processes import LOG_FILE
from ppo_cli.run_reader import recency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

RECORD = "config.yaml"
CHECKPOINTS = "checkpoints"
PARTS = ("env", "algo", "network")
EXPORT = "export"
EXPORT_RECORD = "policy.json"
LONGEST_NAME = 120  # bytes; file systems take 255


def slug(text: object) -> str:
    """``text`` as one safe part of a path: ``ALE/Pong-v5`` becomes ``ALE-Pong-v5``."""
    unquoted = re.sub(r"[\[\]{}'\"]", "", unicodedata.normalize("NFC", str(text)))
    name = re.sub(r"[^\w.,=+-]+", "-", unquoted).strip("-.")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or "run"


def run_id(name: str | None, seed: object) -> str:
    """The user's name for the run, or ``2026-11-22_12-31-05_seed1_a3f9``: a second alone would not be unique."""
    if name is not None:
        return slug(name)
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_seed{slug(seed)}_{secrets.token_hex(2)}"


def sweep_id(name: str | None, kind: str = "sweep") -> str:
    """The same for a sweep or a search, whose seeds may differ."""
    return slug(name) if name is not None else f"{kind}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"


def by_name(overrides: Sequence[str]) -> dict[str, str]:
    """What was typed, by the settings' names."""
    return dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)


def sweep_job(number: int, overrides: Sequence[str], swept: Sequence[str]) -> str:
    """``clip=0.1,seed=2``: the settings that differ between the jobs; ``number`` leads where that would be too long."""
    settings = by_name(overrides)
    name = slug(",".join(f"{key}={settings[key]}" for key in swept if key in settings))
    return name if len(name.encode()) < LONGEST_NAME and name != "run" else f"{number}_{name}"


@functools.cache
def register_resolvers() -> None:
    """What configs/train.yaml names its folders with. Cached by Hydra for a sweep, so that all jobs agree."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("oc.env", refuse_environment, replace=True)
    OmegaConf.register_new_resolver("slug", slug)
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True)
    OmegaConf.register_new_resolver("sweep_id", sweep_id, use_cache=True)
    OmegaConf.register_new_resolver("sweep_job", sweep_job)


def refuse_environment(name: str, *_default: object) -> str:
    """In place of OmegaConf's ``${oc.env:NAME}``: what a config says is saved, printed and shared.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"${{oc.env:{name}}}: settings are saved, so none reads the environment; let the shell fill it in")


def folder_problem(folder: Path, setting: str, other: str = "output_dir") -> str | None:
    """Why a run, or ``other``, cannot be kept in ``folder``, or None. Leaves nothing behind."""
    if holds_run(folder):
        return f"{setting}: {taken(folder)}"
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not parent.is_dir():
        return f"{setting}: {parent} is a file, not a folder"
    problem = write_problem(parent)
    return f"{setting}: {problem}; choose another {other}" if problem else None


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in ``folder``."""
    return (folder / RECORD).exists() or (folder / CHECKPOINTS).exists()


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in ``folder`` has saved anything to go on from."""
    return any((folder / CHECKPOINTS).glob("*.pt"))


def taken(folder: Path, other: str = "name") -> str:
    """What to do about a folder that is not free."""
    return f"{folder} already holds a run; choose another {other}, or go on with it: resume={shlex.quote(str(folder))}"


def write_problem(folder: Path) -> str | None:
    """Why nothing can be written in ``folder``, which exists, or None. Leaves nothing behind."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".ppo-cli-"):
            return None
    except OSError as error:
        return f"cannot write in {folder} ({error.strerror})"


def claim(folder: Path) -> None:
    """Make ``folder`` this run's own.

    Raises:
        UserError: another run has claimed it, or it holds files that a run would write among, or over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CHECKPOINTS).exists() and {path.name for path in folder.iterdir()} - {LOG_FILE}:
        raise UserError(f"{folder} holds other files; choose another run_name")
    try:
        (folder / CHECKPOINTS).mkdir()
    except FileExistsError:
        raise UserError(taken(folder, "run_name")) from None


def require_own_files(folder: Path) -> None:
    """Make sure that writing in a run's folder stays there: a stranger's may link to files of yours.

    Raises:
        UserError: something in it is a link to a place outside of it, or neither a file nor a folder.
    """
    home = folder.resolve()
    for path in [*folder.iterdir(), *(folder / CHECKPOINTS).glob("*")]:
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError(f"{path} links to a place outside of the run's folder; put a copy there to go on")
        if not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise UserError(f"{path} is neither a file nor a folder; take it away to go on")


def remove_if_empty(folder: Path, root: Path) -> None:
    """Take back a run folder that nothing was written to, and its empty parents below and including ``root``.

    Never the current folder, nor one that it lies in.
    """
    folder, root, here = folder.absolute(), root.absolute(), Path.cwd()
    for path in [folder, *folder.parents]:
        if not path.is_dir() or any(path.iterdir()) or here.is_relative_to(path):
            return
        path.rmdir()
        if path == root:
            return


def seed_folder(group: Path, seed: int) -> Path:
    """Where one of several seeds' runs lies."""
    return group / f"seed={seed}"


def seed_runs(group: Path) -> list[Path]:
    """The runs of ``seeds=`` below their common folder; empty where it is none."""
    return (
        []
        if is_there(group / RECORD) or not is_there(group)
        else sorted(path.parent for path in group.glob(f"seed=*/{RECORD}"))
    )


def find_run(name: str, output_dir: str = "outputs") -> Path:
    """The run folder that ``name`` means: a path, a checkpoint inside one, or ``latest``.

    Raises:
        UserError: where there is none, or it has no checkpoint.
    """
    if name == "latest":
        if not (runs := known_runs(output_dir)):
            raise UserError(f"latest: there is no run with a checkpoint in {output_dir}/")
        return runs[0]
    path = Path(name)
    if not is_there(path):
        near = sorted(path.parent.glob(f"{glob.escape(path.name)}*")) if is_there(path.parent) else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{name}: there is no such run folder{hint}")
    folder = next((parent for parent in [path, *path.parents] if (parent / RECORD).is_file()), None)
    if folder is None:
        raise UserError(f"{name}: this is not a run folder (it has no {RECORD})")
    if not has_checkpoint(folder):
        raise UserError(f"{name}: this run has no checkpoint to start from")
    return folder


def saved_config(folder: Path) -> DictConfig:
    """The settings that a run was started with.

    Raises:
        UserError: they cannot be read.
    """
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = OmegaConf.create(read_bounded(folder / RECORD))
        is_whole = isinstance(config, DictConfig) and all(OmegaConf.is_dict(config.get(part)) for part in PARTS)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{folder / RECORD}: cannot be read ({reason})") from None
    if not is_whole:
        raise UserError(f"{folder / RECORD}: is not a run's config")
    if "${" in str(OmegaConf.to_container(config, resolve=False)):
        raise UserError(f"{folder / RECORD}: is not a run's config, which holds values, no ${{...}}")
    return cast("DictConfig", config)


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; a name that no file can have is not there."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_export(folder: Path) -> bool:
    """Whether ``folder`` is what ``ppo-export`` wrote."""
    return is_there(folder / EXPORT_RECORD)


def known_runs(output_dir: str = "outputs") -> list[Path]:
    """Folders of runs that have a checkpoint, newest first."""
    found = {path.parent.parent for path in Path(output_dir).glob(f"**/{CHECKPOINTS}/*.pt")}
    whole = [run for run in found if (run / RECORD).is_file()]
    return sorted(whole, key=recency, reverse=True)
