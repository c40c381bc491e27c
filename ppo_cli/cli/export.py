"""`ppo-export`: write a run's policy to a folder for others. torch is imported last."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.cli.arguments import UserError
from ppo_cli.cli.commands import run_command, run_config, runs_and_settings, trust_named
from ppo_cli.cli.program import print_warnings
from ppo_cli.cli.run_folder import EXPORT, find_run, folder_problem, is_export, require_own_files
from ppo_cli.cli.validate import EXPORT_SETTINGS, validated

if TYPE_CHECKING:
    from ppo_cli.export import Form

FORMS: dict[str, tuple[Form, ...]] = {
    "safetensors": (),
    "onnx": ("onnx",),
    "torchscript": ("torchscript",),
    "all": ("onnx", "torchscript"),
}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def main(words: list[str] | None = None) -> int:
    """The console command. Returns the exit code."""
    return run_command("ppo-export", command, words)


def command(words: list[str]) -> int:
    """Do what the words ask for."""
    (name,), settings = runs_and_settings(words, "ppo-export", EXPORT_SETTINGS)
    trust_named(settings)
    run = find_run(name)
    output = Path(settings["output"]) if settings["output"] else run / EXPORT
    if settings["output"] is None:
        require_own_files(run)
    if problems := [*output_problems(output, settings["output"]), *missing_packages(settings["format"])]:
        raise UserError(*problems)
    config = validated(run_config(run))
    checkpoint = Path(name) if Path(name).suffix == ".pt" else None

    from ppo_cli.cli.exporting import export

    print_warnings(export(config, run, checkpoint, output, FORMS[settings["format"]]))
    return 0


def output_problems(output: Path, given: str | None) -> list[str]:
    """Why the files cannot go to ``output``: only an earlier export is written over."""
    setting = f"output={given}" if given else "output=<run>/export"
    if output.is_dir() and any(output.iterdir()) and not is_export(output):
        return [f"{setting}: {output} holds other files; choose another folder"]
    problem = folder_problem(output, setting, "output")
    return [problem] if problem else []


def missing_packages(form: str) -> list[str]:
    """What a form needs and is not installed."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing or "onnx" not in FORMS[form]:
        return []
    return [f"format={form}: needs {', '.join(missing)}, which is not installed: pip install 'ppo-cli[onnx]'"]


if __name__ == "__main__":
    sys.exit(main())
