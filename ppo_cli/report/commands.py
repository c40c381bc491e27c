"""The command that repeats a run, and the one that goes on with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import pairwise

from ppo_cli.report.files import read_yaml
from ppo_cli.report.groups import Group
from ppo_cli.report.runs import Run
from ppo_cli.run_files import RESUMES_FILE

CONFIG_FLAGS = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}
OWN_FOLDER = ("run_name=", "resume=", "hydra.", "seeds=")
"""What belongs to the folder that a run has already, or to the command that started several."""

UNKNOWN = "# not known: the run left no settings"


def repeat(run: Run) -> str:
    """Ready to paste: the same settings, those that it went on with included, in a folder of its own."""
    words = _words(run)
    return shlex.join(["ppo-train", *words]) if words else UNKNOWN


def repeat_all(group: Group) -> list[str]:
    """The same for all of its seeds: one command where nothing else differs."""
    commands = [[word for word in _words(run) if not word.startswith("seed=")] for run in group.runs]
    seeds = [str(run.seed) for run in group.runs]
    if len(seeds) < 2 or not commands[0] or any(words != commands[0] for words in commands):
        return [repeat(run) for run in group.runs]
    return [shlex.join(["ppo-train", "-m", *commands[0], f"seed={','.join(seeds)}"])]


def _words(run: Run) -> list[str]:
    """The settings of the command; empty where the run did not say what was typed."""
    if not run.overrides and not run.summary:
        return []
    resumes = read_yaml(run.folder, RESUMES_FILE)
    later = (
        [entry.get("overrides") for entry in resumes if isinstance(entry, dict)] if isinstance(resumes, list) else []
    )
    words = [*run.overrides, *(str(word) for words in later if isinstance(words, list) for word in words)]
    kept = {word.lstrip("+").partition("=")[0]: word for word in words if not word.startswith(OWN_FOLDER)}
    if run.seed is not None:
        kept["seed"] = f"seed={run.seed}"
    return [*_config_flags(str(run.summary.get("command") or "")), *kept.values()]


def _config_flags(command: str) -> Iterator[str]:
    """Where the settings' own files were, which the overrides do not say."""
    try:
        words = shlex.split(command)
    except ValueError:
        return
    for word, following in pairwise([*words, ""]):
        flag, equals, _ = word.partition("=")
        if flag in CONFIG_FLAGS:
            yield word
            yield from () if equals else [following]


def go_on(run: Run) -> str:
    """Ready to paste: the run from its newest checkpoint."""
    return shlex.join(["ppo-train", f"resume={run.folder}"])
