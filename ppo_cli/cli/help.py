"""`--help`: what to type, what there is to choose from, and every setting with its value, meaning and range."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ppo_cli.cli.arguments import Arguments
from ppo_cli.cli.compose import Composer, choices_of
from ppo_cli.cli.declared import Setting, declared_settings
from ppo_cli.cli.help_page import Page
from ppo_cli.cli.program import print_problems
from ppo_cli.cli.run_folder import known_runs
from ppo_cli.cli.schema import SECTIONS
from ppo_cli.cli.sources import UndeclaredError
from ppo_cli.cli.trust import is_trusted, search_path
from ppo_cli.cli.validate import (
    EVAL_SETTINGS,
    EXPORT_SETTINGS,
    PLAY_SETTINGS,
    REPORT_SETTINGS,
    SEARCH_SETTINGS,
    TRAIN_SETTINGS,
)

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Help:
    """What a command says about itself."""

    about: str
    examples: Rows
    settings: str
    """Dotted name of the class that declares them."""
    keys: Rows = ()


HELP = {
    "ppo-eval": Help(
        about=(
            "ppo-eval plays a run's policy, or an exported one, on fresh episodes, one for each seed of a fixed list, "
            "and prints the mean and the standard deviation of the return, the length, and shares such as the win rate "
            "with a 95 % interval."
        ),
        examples=(
            ("ppo-eval latest", "the newest run"),
            ("ppo-eval outputs/minesweeper/ppo/<run> episodes=10000", "a run, more precisely"),
            ("ppo-eval <run>/checkpoints/<step>.pt mode=greedy", "one of its checkpoints"),
        ),
        settings=EVAL_SETTINGS,
    ),
    "ppo-play": Help(
        about=(
            "ppo-play shows a run's policy at play: Minesweeper in the terminal, with the probability of each cell as "
            "heat and the critic's estimate of winning, any environment that draws itself as a picture."
        ),
        examples=(
            ("ppo-play latest", "watch the newest run"),
            ("ppo-play <run> seed=17 sample=true", "from the episode of seed 17 on, its actions drawn as in training"),
            ("ppo-play <run> output=game.gif episodes=3", "a picture that moves; also .mp4, and .png for a sheet"),
            ("ppo-play <run> <other run>", "two runs on the same seeds, side by side"),
            ("ppo-play <run>/checkpoints/<step>.pt <run>", "then and now"),
        ),
        settings=PLAY_SETTINGS,
        keys=(
            ("space, enter", "one step"),
            ("r", "run, or pause"),
            ("+  -", "faster, slower"),
            ("n", "next episode"),
            ("q", "leave"),
        ),
    ),
    "ppo-report": Help(
        about=(
            "ppo-report shows what runs came to, finished, running or crashed: learning curves over seeds with 95 % "
            "intervals, final figures, which setting mattered, what looks unhealthy, failures, and the command that "
            "repeats each run. It writes one HTML file that needs no network, and its figures as PNG."
        ),
        examples=(
            ("ppo-report latest", "the newest run, or the sweep or seeds that it belongs to"),
            ("ppo-report outputs/cartpole/ppo/sweep_<time>", "every run in and below a folder"),
            ("ppo-report <run> <other run> metric=minesweeper/win_rate", "compare runs by another figure"),
            ("ppo-report <run> format=terminal", "print it, and write nothing"),
        ),
        settings=REPORT_SETTINGS,
    ),
    "ppo-export": Help(
        about=(
            "ppo-export writes a run's policy to a folder for others: weights as safetensors, what they mean as JSON, "
            "and on request ONNX or TorchScript, whose outputs are compared with the policy's before the file is kept."
        ),
        examples=(
            ("ppo-export latest", "the newest run, into its own folder"),
            ("ppo-export <run> output=policies/mine format=onnx", "elsewhere, with an ONNX form"),
            ("ppo-export <run>/checkpoints/<step>.pt", "one of its checkpoints"),
        ),
        settings=EXPORT_SETTINGS,
    ),
}
"""Of the commands that take runs."""

TRAIN_EXAMPLES = (
    ("ppo-train env=minesweeper clip=0.2", "learn Minesweeper, 9x9 with 10 mines"),
    ("ppo-train env=cartpole total_env_steps=1e5", "balance a pole; half a minute"),
    ("ppo-train env=gymnasium env.id=Acrobot-v1", "any Gymnasium environment"),
    ("ppo-train -m clip=0.1,0.2 seed=1,2", "four runs, as many at once as the cores carry"),
    ("ppo-train resume=latest total_env_steps=4e6", "go on with the newest run"),
)
TRAIN_FLAGS = (
    ("-m", "sweep: several values for a setting, one run for each combination; the same again does what is missing"),
    ("--help", "this text, for the env, algo and network on the line: ppo-train env=pendulum --help"),
    ("--cfg job", "print the settings of a run, and do nothing else"),
    ("--config-dir DIR", "your own env/, network/, algo/ and experiment/ YAML files, beside ours"),
    ("-sc install=bash", 'tab completion (bash, zsh, fish): eval "$(ppo-train -sc install=bash)"'),
    ("--version", "the version"),
    ("--hydra-help", "what else Hydra, which composes the settings, can do"),
)
SEARCH_EXAMPLES = (
    ("ppo-search env=cartpole trials=50", "what configs/space/ppo.yaml tries"),
    ("ppo-search env=cartpole gamma=0.99", "a value fixes a setting"),
    ("ppo-search env=cartpole 'clip=interval(0.1,0.4)'", "several replace what is tried for it"),
    ("ppo-search env=pendulum seeds=3 pruner=asha jobs=4", "three runs a trial, four at once"),
)
SPELLINGS = (
    ("0.1,0.2,0.3", "one of these; also choice(0.1,0.2,0.3)"),
    ("range(1,10)", "a whole number from 1 to 9"),
    ("interval(0.1,0.4)", "a number between; a whole one where both ends are whole"),
    ("log(1e-5,1e-2)", "the same, by its logarithm"),
)
UNNAMED_NETWORK = "board for Minesweeper, conv for images, mlp for vectors; network=mlp --help shows its settings"
NEWEST_RUNS = 5


def print_help(command: str) -> None:
    """The help of a command that takes runs: what it does, its settings, flags, and the newest runs."""
    text = HELP[command]
    page = Page()
    page.paragraph(text.about)
    page.line()
    page.rows(text.examples)
    if text.keys:
        page.heading("Keys")
        page.rows(text.keys)
    page.heading("Settings")
    show_defaults(page, text.settings)
    page.heading("Flags")
    page.rows([("--help", "this text"), ("-sc install=bash", f'tab completion: eval "$({command} -sc install=bash)"')])
    if runs := known_runs()[:NEWEST_RUNS]:
        page.heading("Newest runs")
        for run in runs:
            page.line(f"  {run}")
    page.show()


def print_train_help(arguments: Arguments) -> None:
    """The help of ``ppo-train`` for the choices on the command line."""
    composer = Composer(arguments.flags.get("--config-dir"), arguments.flags.get("--config-path"))
    overrides = [override for override in arguments.overrides if not override.startswith("resume=")]
    config, problems = composer.try_compose(overrides, is_sweep=True)
    print_problems([*arguments.problems, *problems])
    if config is None:
        return
    values: Any = OmegaConf.to_container(config, resolve=False)
    choices = choices_of(config)

    page = Page()
    page.paragraph("ppo-train learns to act by PPO, or by an algorithm that led to it, and shows how well it does.")
    page.line()
    page.rows(TRAIN_EXAMPLES)
    page.heading("Choose one of each", "chosen now in [ ]")
    for group in composer.groups():
        names = [f"[{name}]" if name == choices.get(group) else name for name in composer.options(group)]
        page.hanging(f"  {page.style('36', group)}{' ' * (12 - len(group))}", 14, "  ".join(names) or "(none)")

    top = declared_settings(TRAIN_SETTINGS) or {}
    sections = {title: {name: top[name] for name in names} for title, names in SECTIONS.items()}
    page.heading("Training")
    page.settings(sections.pop("Training"), values)
    page.heading("Algorithm", f"algo={choices.get('algo')}")
    page.settings(settings_of_part(values.get("algo")), values)
    page.heading("Environment", f"env={choices.get('env')}")
    page.settings(settings_of_part(values.get("env")), values["env"], "env.")
    page.heading("Network", f"network={choices.get('network')}")
    if settings := settings_of_part(values.get("network")):
        page.settings(settings, values["network"], "network.")
    else:
        page.hanging("  ", 2, UNNAMED_NETWORK)
    for title, settings in sections.items():
        page.heading(title)
        page.settings(settings, values)
    page.heading("Flags")
    page.rows(TRAIN_FLAGS)
    page.show()


def print_search_help() -> None:
    """The help of ``ppo-search``."""
    page = Page()
    page.paragraph(
        "ppo-search trains with settings drawn from a space, stops what falls behind, and ends with the command that "
        "did best. It takes the settings of ppo-train: a value fixes one, several say what is tried for it. The same "
        "command again goes on."
    )
    page.line()
    page.rows(SEARCH_EXAMPLES)
    page.heading("Settings of the search")
    show_defaults(page, SEARCH_SETTINGS)
    page.heading("Several values")
    page.rows(SPELLINGS)
    page.heading("What is tried", "unless the command line says otherwise; a space/ folder of yours adds files")
    for name in (composer := Composer()).options("space"):
        content: Any = OmegaConf.to_container(composer.compose([f"+space@search_space={name}"]).search_space)
        page.hanging(f"  {page.style('36', name)}{' ' * (8 - len(name))}", 10, "  ".join(map(str, content)))
    page.heading("Flags")
    page.rows(
        [
            ("--help", "this text; ppo-train --help has the settings of the runs"),
            ("--config-dir DIR", "your own space/, env/, network/, algo/ and experiment/ YAML files, beside ours"),
            ("-sc install=bash", 'tab completion: eval "$(ppo-search -sc install=bash)"'),
        ]
    )
    page.show()


def show_defaults(page: Page, target: str) -> None:
    """The settings that the class ``target`` declares, as they are unless the command line says otherwise."""
    declared = declared_settings(target) or {}
    page.settings(declared, {name: setting.default for name, setting in declared.items()})


def settings_of_part(node: Any) -> dict[str, Setting]:  # noqa: ANN401 - a node of the config
    """What the class that a part of the config names declares; nothing where it cannot be read."""
    target = node.get("_target_") if isinstance(node, dict) else None
    if target is None or not (is_trusted(target) or Path(target.replace(".", "/")).parent.with_suffix(".py").is_file()):
        return {}
    try:
        return declared_settings(target, search_path(target)) or {}
    except UndeclaredError:
        return {}
