"""Golden messages: what was given, what was expected, how to fix it; exit code 2, no traceback, no folder."""

from __future__ import annotations

import shlex

import gymnasium
import pytest

from ppo_cli.cli.compose import Composer
from tests.cli.helpers import Shell

ENVS = ", ".join(Composer().options("env"))
BATCH = "the batch of 4096 (num_envs=64 x rollout_length=64)"
EMPTY_RANGE = "there is no value in this range; it goes from the start up to the end, which is left out"
ENDLESS_RANGE = "expected range(start,end,step) with finite numbers and a step other than 0"
EMPTY_GLOB = "there is no value of this name; glob looks among the names in a group, as in env=glob(*)"
ONE_RUN = "several values are a sweep, but resume= goes on with one run; give one value"
SMALL = "num_envs=64 rollout_length=64 "

MISTAKES = {
    "clip=-1": "clip=-1: expected a number above 0",
    "clip=nan": "clip=nan: expected a number above 0",
    "clip=inf": "clip=inf: expected a number above 0",
    "clip=abc": "clip=abc: expected a number above 0",
    "clip=null": "clip=null: expected a number above 0",
    "gamma=1.5": "gamma=1.5: expected a number from 0 to 1",
    "seed=1.5": "seed=1.5: expected a whole number from 0 to 4294967295",
    "seeds=[1,a]": "seeds=[1,a]: expected a whole number or null",
    "num_envs=true": "num_envs=true: expected a whole number at least 1",
    "normalize_obs=maybe": "normalize_obs=maybe: expected true or false",
    "optimizer=adm": "optimizer=adm: expected one of adam, rmsprop; did you mean adam?",
    "quiet=maybe": "quiet=maybe: expected true or false",
    "clipp=0.2": "clipp=0.2: there is no setting clipp. Did you mean clip=0.2?",
    "+clipp=0.2": "clipp=0.2: there is no setting clipp. Did you mean clip=0.2?",
    "++learnig_rate=1": "learnig_rate=1: there is no setting learnig_rate. Did you mean learning_rate=1?",
    "foo=1": "foo=1: there is no setting foo; ppo-train --help lists them",
    "mines=3": "mines=3: there is no setting mines. Did you mean env.mines=3?",
    "hydra.run.dirr=x": "hydra.run.dirr=x: there is no setting hydra.run.dirr. Did you mean hydra.run.dir=x?",
    "algo=vpg clip=0.1": (
        "clip=0.1: algo=vpg has no setting clip (ppo has it). "
        "It has: gamma, baseline, value_coef, standardize_advantage, max_grad_norm"
    ),
    "algo=vpg +clip=0.1": (
        "clip=0.1: algo=vpg has no setting clip (ppo has it). "
        "It has: gamma, baseline, value_coef, standardize_advantage, max_grad_norm"
    ),
    "env=cartpole gae_lambda=0.9 algo=vpg": (
        "gae_lambda=0.9: algo=vpg has no setting gae_lambda (a2c, ppo, ppo_kl, trpo have it). "
        "It has: gamma, baseline, value_coef, standardize_advantage, max_grad_norm"
    ),
    "algo=trpo max_kl=0": "max_kl=0: expected a number above 0",
    "algo=trpo learning_rate_schedule=kl_adaptive": (
        "learning_rate_schedule=kl_adaptive: max_kl already sets the policy's step, and the learning rate is "
        "the critic's alone; expected constant, linear or cosine"
    ),
    "algo=trpo max_klr=0.1": "max_klr=0.1: there is no setting max_klr. Did you mean max_kl=0.1?",
    "env=minesweper": (
        f"env=minesweper: there is no env of this name. Did you mean env=minesweeper? Choose from: {ENVS}"
    ),
    "env=null": f"env=null: there is no env of this name. Choose from: {ENVS}",
    "envv=cartpole": "envv=cartpole: there is no setting envv. Did you mean env=cartpole?",
    "env=[cartpole,pendulum]": f"env=[cartpole,pendulum]: choose one env: {ENVS.replace(', ', ' | ')}",
    "launcher=jobllib": "launcher=jobllib: there is no launcher of this name. Did you mean launcher=joblib? "
    "Choose from: basic, joblib, processes, ray, slurm, submitit_local",
    "env.minse=3": "env.minse=3: there is no setting env.minse. Did you mean env.mines=3?",
    "env=gymnasium env.id=CartPol-v1": (
        "env.id=CartPol-v1: Gymnasium knows no environment of this name. Did you mean env.id=CartPole-v1?"
    ),
    "env=gymnasium": "env.id has no default: env.id=...",
    "env.mines=81": "env.mines must be between 1 and 80 on a 9x9 board with first_click=safe, got 81",
    "env.height=-3": "env.height=-3: expected a whole number at least 1",
    "env.first_click=sfae": "env.first_click=sfae: expected one of unsafe, safe, zero; did you mean safe?",
    "network.channels=3": (
        "network.channels=3: network=auto chooses by itself; to set something, name one: network=mlp network.channels=3"
    ),
    "network=mlp network.hiden=[3]": (
        "network.hiden=[3]: there is no setting network.hiden. Did you mean network.hidden=[3]?"
    ),
    "network=mlp network.hidden=[3,x]": "network.hidden=[3,x]: expected a whole number",
    SMALL + "num_minibatches=7": f"num_minibatches=7: does not divide {BATCH}; try 4 or 8",
    SMALL
    + "num_minibatches=4096": f"num_minibatches=4096: leaves one sample in each part of {BATCH}; expected at most 2048",
    SMALL + "total_env_steps=10": (
        "total_env_steps=10: is less than one update's batch of 4096 (num_envs=64 x rollout_length=64)"
    ),
    "clip=${sed}": "Interpolation key 'sed' not found",
    "~clip": "~clip: a setting cannot be deleted; many are switched off by 0, false or null",
    "clip=0.1,0.2": "clip=0.1,0.2: several values are a sweep: ppo-train -m clip=0.1,0.2; for a list: clip=[0.1,0.2]",
    "clip=interval(0.1,0.2)": (
        "clip=interval(0.1,0.2): values are drawn from an interval by ppo-search 'clip=interval(0.1,0.2)'; "
        "ppo-train -m wants a list"
    ),
    "seed=range(3)": "seed=range(3): several values are a sweep: ppo-train -m 'seed=range(3)'",
    "--clip 0.3": "--clip 0.3: there is no such flag; settings are written without dashes: clip=0.3",
    "--learning-rate=1": (
        "--learning-rate=1: there is no such flag; settings are written without dashes: learning_rate=1"
    ),
    "clip 0.2": "clip 0.2: settings are written with =: clip=0.2",
    "clip= 0.2": "clip= 0.2: no space after =: clip=0.2",
    "clip = 0.2": "clip = 0.2: no space around =: clip=0.2",
    "clip =0.2": "clip = 0.2: no space around =: clip=0.2",
    "=3": "=3: the setting's name is missing before =",
    "minesweeper": "minesweeper: expected name=value, for example clip=0.2",
    "outputs/x": "outputs/x: settings are written name=value; to go on with a run: resume=outputs/x",
    "env.id=a=b": "env.id=a=b: the value has characters that need quotes: 'env.id=\"a=b\"'",
    "clip=0.2,": "clip=0.2,: there is no value before or after a comma",
    "clip=,0.2": "clip=,0.2: there is no value before or after a comma",
    "network.hidden=[64,64": "network.hidden=[64,64: the value has 1 [ and 0 ]",
    "env=cartpole env.mines=3": "env.mines=3: there is no setting env.mines; env has: max_steps",
    "--config-dir nowhere": "--config-dir nowhere: there is no such folder",
    "--cfg jbo": "--cfg jbo: expected job, hydra or all",
    "env._target_=os.system": (
        "env._target_=os.system: the module os is not part of ppo-cli; if you trust its code, say trust=os"
    ),
    "env=gymnasium env.id=my_lab:Corridor-v0": (
        "env.id=my_lab:Corridor-v0: imports my_lab; if you trust its code, say trust=my_lab"
    ),
    "env=gymnasium env.id=CartPole-v1 env.wrappers=[NormalizeObservation]": (
        "wrappers: NormalizeObservation begins anew in each environment and is not saved with the policy: evaluations "
        "would be wrong; normalize_obs=true does the same and is saved"
    ),
    "env=gymnasium env.id=CartPole-v1 'env.wrappers=[3]'": (
        "wrappers: 3: expected a name from gymnasium.wrappers, or {name: {keyword: value}}"
    ),
    "env=gymnasium env.id=CartPole-v1 'env.wrappers=[{ClipReward: {min_reward: 0}, FlattenObservation: {}}]'": (
        "wrappers: 2 names in one entry; expected one in each: "
        "[{ClipReward: {min_reward: 0}}, {FlattenObservation: {}}]"
    ),
    "env=gymnasium env.id=HalfCheetah-v2": (
        "HalfCheetah-v2 could not be made: ImportError: The mujoco v2 and v3 based environments have been moved to the "
        "gymnasium-robotics project (https://github.com/Farama-Foundation/gymnasium-robotics)."
    ),
    "env=gymnasium env.id=FrozenLake-v1 'env.kwargs={map_name: nosuch}'": (
        "FrozenLake-v1 could not be made with kwargs {'map_name': 'nosuch'}: KeyError: 'nosuch'"
    ),
    "resume=nowhere": "nowhere: there is no such run folder",
    "resume=latest": "latest: there is no run with a checkpoint in outputs/",
    "-m env=cartpole,minesweper": (
        f"env=cartpole,minesweper: there is no env of this name. Did you mean env=minesweeper? Choose from: {ENVS}"
    ),
    "-m clip=0.1,-1 seed=1,2": "clip=-1: expected a number above 0",
    "-m clip=interval(0.1,0.2)": (
        "clip=interval(0.1,0.2): values are drawn from an interval by ppo-search 'clip=interval(0.1,0.2)'; "
        "ppo-train -m wants a list"
    ),
    "-m clip=range(0.3,0.1)": f"clip=range(0.3,0.1): {EMPTY_RANGE}",
    "-m seed=range(0)": f"seed=range(0): {EMPTY_RANGE}",
    "-m seed=range(1,3,0)": f"seed=range(1,3,0): {ENDLESS_RANGE}",
    "-m clip=range(1,inf)": f"clip=range(1,inf): {ENDLESS_RANGE}",
    "-m clip=glob(*)": f"clip=glob(*): {EMPTY_GLOB}",
    "-m env=glob(x*)": f"env=glob(x*): {EMPTY_GLOB}",
    "resume=x clip=0.1,0.2": f"clip=0.1,0.2: {ONE_RUN}",
    "resume=x total_env_steps=range(1,3)": f"total_env_steps=range(1,3): {ONE_RUN}",
    "resume=x clip=interval(0.1,0.2)": f"clip=interval(0.1,0.2): {ONE_RUN}",
    "resume=x env=glob(cart*)": f"env=glob(cart*): {ONE_RUN}",
    "resume=x clip=glob(*)": f"clip=glob(*): {EMPTY_GLOB}",
    "output_dir=": "output_dir=: expected a folder; output_dir=. is the current one",
    "-m output_dir= seed=1,2": "output_dir=: expected a folder; output_dir=. is the current one",
    "run_name=": "run_name=: expected a name; run_name=null makes one of the time and the seed",
    "resume=": "resume=: expected a run folder, or latest",
    "resume=a,b": f"resume=a,b: {ONE_RUN}",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(shell: Shell, line: str) -> None:
    assert shell.train(*shlex.split(line)) == 2
    assert shell.errors == [MISTAKES[line]]
    assert shell.out == ""
    assert list(shell.folder.iterdir()) == []


def test_all_mistakes_are_told_at_once(shell: Shell) -> None:
    assert shell.train("clip=-1", "clipp=3", "env=cartpoel", "env.height=0", "--foo", "seed=x") == 2
    given = [error.partition(":")[0] for error in shell.errors]
    assert given == ["--foo", "env=cartpoel", "clipp=3", "seed=x", "clip=-1", "env.height=0"]


def test_a_missing_gpu_is_told_before_anything_starts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert shell.train("device=cuda") == 2
    assert shell.errors == [
        "device=cuda: there is no CUDA device here that torch can use; device=cpu or device=auto runs"
    ]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["env=lunar_lander"], "LunarLander-v3: needs Box2D, which is not installed: pip install 'ppo-cli[box2d]'"),
        (
            ["env=gymnasium", "env.id=ALE/Pong-v5"],
            "ALE/Pong-v5: needs ale_py, which is not installed: pip install 'ppo-cli[atari]'",
        ),
    ],
)
def test_a_missing_extra_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch, words: list[str], error: str) -> None:
    find_spec = __import__("importlib.util").util.find_spec
    absent = ("Box2D", "ale_py")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find_spec(name))
    for id in [id for id in gymnasium.registry if id.startswith("ALE/")]:  # where it is installed after all
        monkeypatch.delitem(gymnasium.registry, id)
    assert shell.train(*words) == 2
    assert shell.errors == [f"env.id={error}"]


@pytest.mark.parametrize("setting", ["output_dir=file/below", "hydra.run.dir=file/below"])
def test_an_output_folder_that_cannot_be_made_is_told(shell: Shell, setting: str) -> None:
    (shell.folder / "file").touch()
    assert shell.train(setting) == 2
    assert shell.errors == [f"{setting}: {shell.folder}/file is a file, not a folder"]


def test_an_unwritable_output_folder_is_told(shell: Shell) -> None:
    assert shell.train("output_dir=/proc/below") == 2
    assert shell.errors[0].startswith("output_dir=/proc/below: cannot write in /proc (")


def test_a_setting_given_twice_is_a_warning(shell: Shell) -> None:
    assert shell.train("clip=0.1", "clip=0.3", "--cfg", "job", "--package", "clip") == 0
    assert shell.err == "warning: clip=0.1 clip=0.3: given more than once, the last one counts\n"


@pytest.mark.parametrize("setting", ["total_env_steps=1e6", "total_env_steps=1_000_000", "seed=1.0", "learning_rate=1"])
def test_numbers_may_be_written_in_any_way_that_means_them(shell: Shell, setting: str) -> None:
    assert shell.train(setting, "--cfg", "job") == 0
    assert shell.err == ""


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "which run? ppo-eval <run folder>, or ppo-eval latest"),
        ("latest", "latest: there is no run with a checkpoint in outputs/"),
        ("nowhere", "nowhere: there is no such run folder"),
        ("outputs/x/clip=0.1", "outputs/x/clip=0.1: there is no such run folder"),
        ("x episodes=-1", "episodes=-1: expected a whole number at least 1"),
        ("x episods=3", "episods=3: there is no setting episods. Did you mean episodes=3?"),
        ("x mode=gredy", "mode=gredy: expected one of both, greedy, sampled; did you mean greedy?"),
        ("x --mode greedy", "--mode greedy: there is no such flag; settings are written without dashes: mode=greedy"),
        ("x mode=", "mode=: expected one of both, greedy, sampled"),
    ],
)
def test_mistakes_of_eval(shell: Shell, line: str, error: str) -> None:
    assert shell.eval(*line.split()) == 2
    assert shell.errors == [error]
