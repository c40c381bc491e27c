from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_cli.export import Graph, policy_files, tensors_of, write_files
from ppo_cli.networks.mlp import MLP
from ppo_cli.normalize import ObsNormalizer
from ppo_cli.policy import Policy, PolicyError, load_policy, read_policy
from ppo_cli.random_obs import random_obs
from ppo_cli.spaces import space_from_json, space_to_json
from tests.policies import CELLS, HALF_BOUNDED, IMAGE, KINDS, MASKED, VECTOR, made


def written(folder: Path, kind: str = "mlp") -> Path:
    description, tensors, _, _ = made(kind)
    write_files(folder, policy_files(description, tensors, []))
    return folder


STRUCTURED = [
    spaces.Discrete(4, start=-2),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 3]),
    spaces.MultiDiscrete([3, 2], start=[1, 0]),
    spaces.MultiDiscrete([[3, 2, 1], [1, 5, 2]], start=[[0, 0, -2], [1, 0, 9]]),
    spaces.Dict([("place", spaces.Box(-1, 1, (2, 2))), ("kind", spaces.Discrete(3))]),  # not in alphabetical order
    spaces.Tuple([spaces.Discrete(9), spaces.Tuple([spaces.Box(-5, 5, (2,)), spaces.MultiBinary(2)])]),
]
"""What Gymnasium gives and a policy reads flattened."""


@pytest.mark.parametrize("space", [VECTOR, MASKED, IMAGE, CELLS, HALF_BOUNDED, *STRUCTURED])
def test_a_space_comes_back_as_it_was(space: spaces.Space[Any]) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


@pytest.mark.parametrize(
    "node",
    [
        None,
        "Box",
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "Discrete", "n": 10**12, "start": 0},
        {"type": "Discrete", "n": True, "start": "x"},
        {"type": "MultiBinary", "shape": [10**6, 10**6]},
        {"type": "MultiBinary", "shape": [-1]},
        {"type": "Box", "dtype": "float32", "shape": [10**9, 10**9], "low": 0, "high": 1},
        {"type": "Box", "dtype": "object", "shape": [2], "low": 0, "high": 1},
        {"type": "Box", "dtype": "float32", "shape": [2], "low": "0", "high": 1},
        {"type": "Box", "dtype": "float32", "shape": [2], "low": [0, 0, 0], "high": 1},
        {"type": "Box", "dtype": "uint8", "shape": [2], "low": None, "high": 1},
        {"type": "Dict", "spaces": {"obs": {"type": "Text"}}},
        {"type": "Tuple", "spaces": {}},
        {"type": "MultiDiscrete", "nvec": [2, 0], "start": [0, 0]},
        {"type": "MultiDiscrete", "nvec": [2], "start": [0, 0]},
        {"type": "MultiDiscrete", "nvec": [2, 2], "start": [0, 0], "shape": [3]},
        {"type": "MultiDiscrete", "nvec": 2, "start": [0, 0], "shape": [2]},
        {"type": "MultiDiscrete", "nvec": [2**23, 2**23, 2**23], "start": [0, 0, 0]},
    ],
)
def test_what_is_no_space_is_refused(node: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        space_from_json(node)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_policy_computes_what_the_trained_one_did_to_the_bit(tmp_path: Path, kind: str) -> None:
    _, _, network, normalizer = made(kind)
    policy = load_policy(written(tmp_path / "export", kind))
    inputs = random_obs(policy, 33, torch.Generator().manual_seed(1))
    obs = dict(zip(policy.spaces.obs, inputs, strict=True)) if isinstance(policy.spaces.obs, spaces.Dict) else inputs[0]
    with torch.no_grad():
        (expected, value), (found, found_value) = network(normalizer(obs)), policy.network(policy.obs_normalizer(obs))
    assert torch.equal(expected.mode(), found.mode())
    assert torch.equal(value, found_value)
    assert torch.equal(expected.entropy(), found.entropy())
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in policy.network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_is_what_the_graph_and_the_environment_take(tmp_path: Path, kind: str) -> None:
    policy = load_policy(written(tmp_path / "export", kind))
    inputs = random_obs(policy, 20, torch.Generator().manual_seed(2))
    is_dict = isinstance(policy.spaces.obs, spaces.Dict)
    names = list(policy.spaces.obs) if is_dict else []
    arrays = [part.numpy() for part in inputs]
    actions = policy.act(dict(zip(names, arrays, strict=True)) if is_dict else arrays[0])
    with torch.no_grad():
        np.testing.assert_allclose(actions, Graph(policy)(*inputs)[0].numpy(), rtol=1e-6)
    target = policy.spaces.action if policy.spaces.env_action is None else policy.spaces.env_action
    for row in range(20):
        one = dict(zip(names, (array[row] for array in arrays), strict=True)) if is_dict else arrays[0][row]
        action = policy.act(one)
        np.testing.assert_allclose(action, actions[row], rtol=1e-5)
        assert target.contains(action)
        if "legal" in names:
            start = int(getattr(target, "start", 0))
            assert arrays[names.index("legal")][row][action - start]


def structured_policy(env_obs: spaces.Space[Any], *, is_masked: bool = False) -> Policy:
    flat: spaces.Space[Any] = spaces.flatten_space(env_obs)
    assert isinstance(flat, spaces.Box)
    obs: spaces.Space[Any] = spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32))
    obs = spaces.Dict(obs=obs, legal=spaces.MultiBinary(3)) if is_masked else obs
    network = MLP(obs, spaces.Discrete(3), hidden=[8])
    description = {
        "network": {"class": "MLP", "settings": {"hidden": [8]}},
        "observation_space": space_to_json(obs),
        "action_space": space_to_json(spaces.Discrete(3)),
        "env_action_space": None,
        "env_observation_space": space_to_json(env_obs),
    }
    return read_policy(description, tensors_of(network, ObsNormalizer((), enabled=False)))


@pytest.mark.parametrize("space", STRUCTURED, ids=str)
def test_observations_that_are_no_array_are_taken_as_the_environment_gives_them(space: spaces.Space[Any]) -> None:
    policy, batch = structured_policy(space), batch_space(space, 16)
    space.seed(1)
    singles = [space.sample() for _ in range(16)]
    together = concatenate(space, singles, create_empty_array(space, 16))
    assert together in batch
    rows = np.stack([spaces.flatten(space, single) for single in singles]).astype(np.float32)
    expected = policy.network(torch.from_numpy(rows))[0].mode().tolist()
    assert [int(policy.act(single)) for single in singles] == expected
    assert policy.act(together).tolist() == expected
    masked = structured_policy(space, is_masked=True)
    assert masked.act({"obs": singles[0], "legal": np.array([0, 1, 0], np.int8)}) == 1


@pytest.mark.parametrize("space", STRUCTURED, ids=str)
@pytest.mark.parametrize("obs", [2.5, 77, None, {"place": 1}, (3,), np.zeros((2, 7)), "word"], ids=str)
def test_an_observation_of_another_kind_is_refused(space: spaces.Space[Any], obs: Any) -> None:
    with pytest.raises(ValueError, match="expected an observation of"):
        structured_policy(space).act(obs)


def test_drawn_actions_follow_the_policy_and_the_generator(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path))
    obs = np.tile(np.array([1, -2, 0, 3], np.float32), (20_000, 1))
    drawn = policy.act(obs, greedy=False, generator=torch.Generator().manual_seed(1))
    again = policy.act(obs, greedy=False, generator=torch.Generator().manual_seed(1))
    distribution, _ = policy.network(policy.obs_normalizer(torch.from_numpy(obs[:1])))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, distribution.log_probs[0].exp(), atol=0.015)
    np.testing.assert_array_equal(drawn, again)


def test_a_board_network_plays_another_board(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, "board"))
    legal = np.zeros(48, dtype=bool)
    legal[17] = True
    assert policy.act({"board": np.full((6, 8), -1, np.int8), "legal": legal}) == 17


@pytest.mark.parametrize("obs", [np.zeros(5), np.zeros((2, 2, 4)), {"obs": np.zeros(4)}, 3.0, None])
def test_another_shape_is_refused(tmp_path: Path, obs: Any) -> None:
    policy = load_policy(written(tmp_path))
    with pytest.raises((ValueError, TypeError)):
        policy.act(obs)


def test_a_flipped_bit_a_missing_file_and_a_newer_format_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path / "export")
    data = bytearray((folder / "policy.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "policy.safetensors").write_bytes(data)
    with pytest.raises(PolicyError, match="SHA-256"):
        load_policy(folder)
    (folder / "policy.safetensors").unlink()
    with pytest.raises(PolicyError, match="missing"):
        load_policy(folder)
    (folder / "policy.json").write_text('{"format": 99}')
    with pytest.raises(PolicyError, match="format 99"):
        load_policy(folder)


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.Popen", "torch.nn.Linear", "MLP.x", "", "builtins.eval", ".x"]
)
def test_a_network_outside_the_list_is_refused_and_not_imported(name: str) -> None:
    description, tensors, _, _ = made("mlp")
    description["network"]["class"] = name
    with pytest.raises(PolicyError, match=r"not part of ppo-cli|trust"):
        read_policy(description, tensors)


MODULE = """
from ppo_cli.networks.mlp import MLP

class Mine(MLP):
    pass

open("imported", "w").close()
"""


def test_a_network_of_a_trusted_module_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_networks.py").write_text(MODULE)
    description, tensors, _, _ = made("mlp")
    description["network"]["class"] = "their_networks.Mine"
    with pytest.raises(PolicyError, match="trust=their_networks"):
        read_policy(description, tensors, trust=["their_network", "networks"])
    assert not Path("imported").exists()
    assert isinstance(read_policy(description, tensors, trust=["their_networks"]).network, MLP)
    assert Path("imported").exists()


@pytest.mark.parametrize(
    "settings_of_theirs",
    [
        {"hidden": [10**9, 10**9]},
        {"hidden": [8], "channels": 3},
        {"hidden": "x"},
        {"activation": "os.system"},
        {"hidden": []},
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused_before_memory_is_asked_for(
    tmp_path: Path, settings_of_theirs: dict[str, Any]
) -> None:
    folder = written(tmp_path)
    description = json.loads((folder / "policy.json").read_text())
    description["network"]["settings"] = settings_of_theirs
    (folder / "policy.json").write_text(json.dumps(description))
    with pytest.raises(PolicyError, match="holds no policy that can be read"):
        load_policy(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bfloat16])
def test_weights_of_another_type_are_refused(dtype: torch.dtype) -> None:
    description, tensors, _, _ = made("mlp")
    cast = {name: value.to(dtype) for name, value in safetensors.torch.load(tensors).items()}
    with pytest.raises(PolicyError, match=r"expected torch\.float32"):
        read_policy(description, safetensors.torch.save(cast))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_description_the_policy_loads_or_there_is_a_reason(tmp_path: Path, data: Any) -> None:
    folder = written(tmp_path / "export") if not (tmp_path / "export").exists() else tmp_path / "export"
    described = json.loads((folder / "policy.json").read_text())
    changed = copy.deepcopy(described)
    node, key = changed, data.draw(st.sampled_from(list(described)))
    while isinstance(node[key], dict) and node[key] and data.draw(st.booleans()):
        node, key = node[key], data.draw(st.sampled_from(list(node[key])))
    node[key] = data.draw(junk)
    (folder / "policy.json").write_text(json.dumps(changed))
    try:
        load_policy(folder)
    except PolicyError as error:
        assert "\n" not in str(error)
    finally:
        (folder / "policy.json").write_text(json.dumps(described))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_damaged_tensors_give_a_reason_and_nothing_else(junk_bytes: bytes, position: int) -> None:
    description, tensors, _, _ = made("mlp")
    damaged = tensors[:position] + junk_bytes + tensors[position + len(junk_bytes) :]
    try:
        read_policy(description, damaged)
    except Exception as error:
        assert not isinstance(error, MemoryError)
