"""The YAML files and the classes that they configure say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ppo_cli.cli.compose import Composer, choices_of, resolve
from ppo_cli.cli.declared import Setting, declared_settings
from ppo_cli.cli.schema import SECTIONS
from ppo_cli.cli.validate import BOOKKEEPING, TRAIN_SETTINGS, validated
from ppo_cli.cli.values import convert

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
COMPOSER = Composer()
NEEDS_EXTRA = {"lunar_lander"}


def yaml(path: str) -> dict[str, object]:
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / path), resolve=False)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def settings(overrides: list[str]) -> dict[str, object]:
    config = COMPOSER.compose(overrides)
    return resolve(config, choices_of(config))


def assert_same(written: dict[str, object], declared: dict[str, Setting]) -> None:
    assert list(written) == list(declared)
    for name, setting in declared.items():
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert convert(written[name], setting.options) == default, name


def test_train_yaml_is_the_declaration_of_the_trainer() -> None:
    written = {key: value for key, value in yaml("train.yaml").items() if key not in ("defaults", "hydra")}
    assert_same(written, declared_settings(TRAIN_SETTINGS) or {})


@pytest.mark.parametrize("name", [name for name in COMPOSER.options("algo")])
def test_an_algorithms_yaml_is_the_declaration_of_its_class(name: str) -> None:
    written = yaml(f"algo/{name}.yaml")
    algo = written.pop("algo")
    assert isinstance(algo, dict)
    assert_same(written, declared_settings(algo["_target_"]) or {})


@pytest.mark.parametrize("name", [name for name in COMPOSER.options("network") if name != "auto"])
def test_a_networks_yaml_is_the_declaration_of_its_class(name: str) -> None:
    written = yaml(f"network/{name}.yaml")
    assert_same(written, declared_settings(str(written.pop("_target_"))) or {})


@pytest.mark.parametrize("name", COMPOSER.options("env"))
def test_an_environments_yaml_has_every_setting_of_its_class(name: str) -> None:
    env = settings([f"env={name}", *(["env.id=CartPole-v1"] if name == "gymnasium" else [])])["env"]
    assert isinstance(env, dict)
    assert sorted(set(env) - set(BOOKKEEPING)) == sorted(declared_settings(env["_target_"]) or {})


@pytest.mark.parametrize("name", [name for name in COMPOSER.options("env") if name not in NEEDS_EXTRA])
def test_every_environment_is_valid_as_shipped(name: str) -> None:
    config = validated(settings([f"env={name}", *(["env.id=CartPole-v1"] if name == "gymnasium" else [])]))
    assert config["env"]["name"] == ("CartPole-v1" if name == "gymnasium" else name)


@pytest.mark.parametrize("name", COMPOSER.options("experiment"))
def test_every_experiment_is_valid_as_shipped(name: str) -> None:
    assert validated(settings([f"experiment={name}"]))["total_env_steps"] >= 1


def test_tuned_values_belong_to_a_pair_that_exists() -> None:
    pairs = {f"{env}_{algo}" for env in COMPOSER.options("env") for algo in COMPOSER.options("algo")}
    assert {path.stem for path in (CONFIGS / "tuned").glob("*.yaml")} <= pairs


def test_the_help_shows_each_setting_of_the_trainer_once() -> None:
    shown = [name for names in SECTIONS.values() for name in names]
    assert sorted(shown) == sorted(declared_settings(TRAIN_SETTINGS) or {})


def test_the_package_list_names_every_folder_with_modules_or_configs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "ppo_cli").rglob("__init__.py")
    }
    configs = {"ppo_cli." + str(path.parent.relative_to(ROOT)).replace("/", ".") for path in CONFIGS.rglob("*.yaml")}
    assert set(project["tool"]["setuptools"]["packages"]) == packages | configs
    for config in configs:
        folder = ROOT / config.removeprefix("ppo_cli.").replace(".", "/")
        assert (folder / "__init__.py").is_file(), f"{folder} is not found in a wheel without it"


@pytest.mark.parametrize("pair", sorted(path.stem for path in (CONFIGS / "tuned").glob("*.yaml")))
def test_every_tuned_pair_is_valid_as_shipped(pair: str) -> None:
    env, algo = next(
        (env, algo) for env in COMPOSER.options("env") for algo in COMPOSER.options("algo") if pair == f"{env}_{algo}"
    )
    if env not in NEEDS_EXTRA:
        assert validated(settings([f"env={env}", f"algo={algo}"]))["algo"]["name"] == algo
