"""Each claim has an experiment that composes, and that one command runs through to the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ppo_cli.claims.base import NAMES
from ppo_cli.cli import report
from ppo_cli.cli.compose import Composer, choices_of, resolve
from ppo_cli.cli.sweep import combinations, swept_settings
from ppo_cli.cli.validate import validated
from tests.cli.helpers import Shell

COMPOSER = Composer()

SHORT: Mapping[str, list[str]] = {
    "advantage_variance": ["total_env_steps=512", "num_envs=4", "rollout_length=32", "seed=1,2"],
    "policy_collapse": ["total_env_steps=256", "rollout_length=16", "num_envs=4", "learning_rate=1e-2"],
    "trust_region": ["total_env_steps=512", "max_kl=0.01,0.1", "num_envs=4"],
    "trpo_cost": ["total_env_steps=512", "rollout_length=16", "network.hidden=[8,8]"],
    "clip": ["total_env_steps=512", "rollout_length=32", "clip=0.2"],
    "sample_reuse": ["total_env_steps=512", "rollout_length=32", "num_epochs=1,2"],
    "entropy": ["total_env_steps=1600", "rollout_length=200", "entropy_coef=0,0.01"],
    "gae_lambda": ["total_env_steps=512", "rollout_length=32", "gae_lambda=0,0.9,1"],
    "diverse": ["total_env_steps=1600", "rollout_length=100", "env=cartpole,frozen_lake"],
}
FAST = ("sample_reuse",)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs take plain torch, whatever this machine has compiled before."""
    monkeypatch.setattr("ppo_cli.fused.domain.is_ready", lambda *_: False)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def jobs_of(name: str) -> list[dict[str, Any]]:
    """The settings of each job of an experiment."""
    words = [f"experiment={name}"]
    config, problems = COMPOSER.try_compose(words, is_sweep=True)
    assert config is not None
    assert not problems
    jobs = [COMPOSER.compose(each) for each in combinations(swept_settings(COMPOSER, words, config))]
    return [validated(resolve(job, choices_of(job))) for job in jobs]


def test_every_claim_has_an_experiment_and_none_goes_by_another_name() -> None:
    marked = {
        name: claim
        for name in COMPOSER.options("experiment")
        if (claim := COMPOSER.compose([f"experiment={name}"]).get("claim"))
    }
    assert marked == {name: name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_job_of_a_claims_sweep_is_valid_and_has_five_seeds(name: str) -> None:
    jobs = jobs_of(name)
    assert {job["claim"] for job in jobs} == {name}
    if name == "advantage_variance":  # its seeds are jobs
        assert len({job["seed"] for job in jobs}) >= 5
    else:
        assert {job["seeds"] >= 5 for job in jobs} == {True}


def test_the_diverse_environments_share_every_setting_but_the_environment() -> None:
    jobs = jobs_of("diverse")
    assert len({job["env"]["name"] for job in jobs}) >= 5
    names = {name for job in jobs for name in job if job[name] != jobs[0][name]}
    assert names == {"env"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
@pytest.mark.usefixtures("uncompiled")
def test_a_short_sweep_ends_with_the_page_and_the_verdict(shell: Shell, name: str) -> None:
    words = [*SHORT[name], *([] if name == "advantage_variance" else ["seeds=2"])]
    assert shell.train("-m", f"experiment={name}", *words, "num_threads=1", "run_name=short") == 0
    assert "verdict" in shell.out
    assert "\n  best " not in shell.out, "some of its configurations exist to fail"
    (page,) = shell.folder.glob("**/short/claim.html")
    html = page.read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in html
    assert f"ppo-train -m experiment={name}" in html
    assert not [word for word in ("http://", "https://", "<script") if word in html]
    assert page.with_suffix(".png").stat().st_size < 150_000


def test_the_report_checks_the_claim_again(shell: Shell, uncompiled: None) -> None:
    words = SHORT["sample_reuse"]
    shell.train("-m", "experiment=sample_reuse", *words, "seeds=2", "num_threads=1", "run_name=short", "quiet=true")
    (page,) = shell.folder.glob("**/short/claim.html")
    first = shell.out[shell.out.index("verdict") :]
    page.unlink()
    assert report.main([str(page.parent)]) == 0
    assert page.exists()
    again = shell.capture.readouterr().out
    assert again[again.index("verdict") :] == first


def test_an_experiment_that_is_a_sweep_says_so_in_one_line(shell: Shell) -> None:
    assert shell.train("experiment=clip") == 2
    assert shell.errors == ["experiment=clip: is a sweep over clip: ppo-train -m experiment=clip"]
    assert not shell.runs


def test_one_point_of_it_is_a_run_like_any_other(shell: Shell, uncompiled: None) -> None:
    words = ["total_env_steps=256", "rollout_length=16", "num_envs=4", "seeds=null", "quiet=true"]
    assert shell.train("experiment=clip", "clip=0.3", *words) == 0
    assert len(shell.runs) == 1
    assert not list(shell.folder.glob("**/claim.html"))
