"""Hydra's own flags that print something in place of a run: ``--cfg``, ``--info`` and ``--hydra-help``."""

from __future__ import annotations

from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ppo_cli.cli.arguments import Arguments, UserError
from ppo_cli.cli.compose import Composer


def show(composer: Composer, arguments: Arguments, composed: DictConfig | None = None) -> None:
    """Hydra's own ``--cfg``, ``--info`` and ``--hydra-help``; ``composed`` saves composing a second time."""
    flags = arguments.flags
    options: dict[str, Any] = {"config_name": composer.config_name, "overrides": arguments.overrides}
    if "--cfg" in flags:
        if flags["--cfg"] not in ("job", "hydra", "all"):
            raise UserError(f"--cfg {flags['--cfg']}: expected job, hydra or all")
        if composed is not None and "--package" not in flags:
            names = {
                "job": [str(name) for name in composed if name != "hydra"],
                "hydra": ["hydra"],
                "all": [str(name) for name in composed],
            }
            part = OmegaConf.masked_copy(composed, names[flags["--cfg"]])
            print(OmegaConf.to_yaml(part, resolve="--resolve" in flags), end="")
            return
        composer.hydra.show_cfg(
            cfg_type=flags["--cfg"], package=flags.get("--package"), resolve="--resolve" in flags, **options
        )
    elif "--info" in flags:
        run_mode = RunMode.MULTIRUN if "--multirun" in flags else RunMode.RUN
        composer.hydra.show_info(flags["--info"], run_mode=run_mode, **options)
    else:
        parser = get_args_parser()
        composer.hydra.hydra_help(composer.config_name, args_parser=parser, args=parser.parse_args(["--hydra-help"]))
