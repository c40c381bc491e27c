import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from ppo_cli.envs import gymnasium_specs
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv

SEEDS = [11, 22, 33]
TIME_LIMIT = 7
CLASSIC = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"]


class Counter(gym.Env):
    """Counts its steps in a buffer that it reuses; ends on the third, by termination, truncation or both."""

    observation_space = spaces.Box(0, 10, (1,), np.float64)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, terminates=True, truncates=False, start=0, reports_success=False, masks=None):
        self.ends = terminates, truncates
        self.start = start
        self.reports_success = reports_success
        self.masks = masks
        self.buffer = np.zeros(1)

    def info(self):
        count = int(self.buffer[0])
        mask = {"action_mask": np.array(self.masks[count % len(self.masks)])} if self.masks else {}
        return mask | ({"is_success": count == 3} if self.reports_success else {})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[0] = self.start
        return self.buffer, self.info()

    def step(self, action):
        assert self.action_space.contains(action)
        self.buffer += 1
        is_end = self.buffer[0] >= 3
        return self.buffer, float(action), is_end and self.ends[0], is_end and self.ends[1], self.info()


class Picture(Counter):
    """A 4x5 image whose first pixel counts the steps; its shape is a setting."""

    def __init__(self, shape=(4, 5, 3)):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def picture(self, outcome):
        image = np.full(self.observation_space.shape, 200, np.uint8)
        image.flat[0] = outcome[0][0]
        return image, *outcome[1:]

    def reset(self, *, seed=None, options=None):
        return self.picture(super().reset(seed=seed))

    def step(self, action):
        return self.picture(super().step(action))


class Spaces(gym.Env):
    """Samples its observation space; keeps the last action."""

    def __init__(self, observation_space=None, action_space=None):
        self.observation_space = observation_space or spaces.Box(-1, 1, (2,))
        self.action_space = spaces.Discrete(2) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.action = action
        return self.observation_space.sample(), 0.0, False, False, {}


class NativeCounter(VectorEnv):
    """A vector environment of its own; the mode it declares is a setting."""

    single_observation_space = spaces.Box(0, 10, (1,), np.float32)
    single_action_space = spaces.Discrete(2)

    def __init__(self, num_envs=1, mode=AutoresetMode.NEXT_STEP, mask=None, **_):
        self.num_envs = num_envs
        self.metadata: dict[str, Any] = {"autoreset_mode": mode} if mode else {}
        self.mask = {"action_mask": np.array([mask] * num_envs)} if mask else {}
        self.seed: int | None = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed
        return np.zeros((self.num_envs, 1), np.float32), self.mask

    def step(self, actions):
        ended = np.ones(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), ended * 1.0, ended, ~ended, self.mask


@pytest.fixture(autouse=True)
def registered():
    ids = {
        "TestCounter-v0": {"entry_point": Counter},
        "TestPicture-v0": {"entry_point": Picture},
        "TestSpaces-v0": {"entry_point": Spaces},
        "TestNative-v0": {"entry_point": Counter, "vector_entry_point": NativeCounter},
        "TestNoPackage-v0": {"entry_point": "no_such_package_here:Env"},
    }
    for id, settings in ids.items():
        gym.register(id, disable_env_checker=True, **settings)
    yield
    for id in ids:
        del gym.registry[id]


@pytest.fixture
def make():
    made = []

    def make_env(num_envs, id, **settings):
        made.append(GymnasiumVecEnv(num_envs, id, **settings))
        return made[-1]

    yield make_env
    for env in made:
        env.close()


def random_actions(env, steps):
    generator = torch.Generator().manual_seed(0)
    if isinstance(env.single_action_space, spaces.Discrete):
        return torch.randint(int(env.single_action_space.n), (steps, env.num_envs), generator=generator)
    return torch.randn(steps, env.num_envs, *env.single_action_space.shape, generator=generator)


class HandStepped:
    """One plain Gymnasium environment, restarted by hand."""

    def __init__(self, id, seed, kwargs):
        self.env = gym.make(id, **kwargs)
        self.obs, _ = self.env.reset(seed=seed)

    def step(self, action):
        """The true successor, reward, terminated, truncated."""
        if isinstance(self.env.action_space, spaces.Box):
            action = np.clip(action * self.env.action_space.high, self.env.action_space.low, self.env.action_space.high)
        else:
            action = int(action)
        self.obs, reward, terminated, truncated, _ = self.env.step(action)
        return self.obs, reward, terminated, truncated

    def restart(self):
        self.obs, _ = self.env.reset()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("id", CLASSIC)
def test_same_step_final_obs_is_the_successor_that_a_single_environment_shows(make, id, vectorization):
    kwargs = {"max_episode_steps": TIME_LIMIT}
    env = make(3, id, kwargs=kwargs, vectorization=vectorization)
    assert env.autoreset == "same_step"
    singles = [HandStepped(id, seed, kwargs) for seed in SEEDS]
    np.testing.assert_array_equal(env.reset(SEEDS), [single.obs for single in singles])
    ends = 0
    for action in random_actions(env, 30):
        step = env.step(action)
        for n, single in enumerate(singles):
            successor, reward, terminated, truncated = single.step(action[n].numpy())
            np.testing.assert_array_equal(step.final_obs[n], successor.astype(np.float32))
            assert step.reward[n] == np.float32(reward)
            assert (bool(step.terminated[n]), bool(step.truncated[n])) == (terminated, truncated)
            if terminated or truncated:
                single.restart()
                ends += 1
            np.testing.assert_array_equal(step.obs[n], single.obs.astype(np.float32))
    assert ends >= 12


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("id", CLASSIC)
def test_next_step_shows_the_successor_first_and_then_restarts_in_a_dead_step(make, id, vectorization):
    kwargs = {"max_episode_steps": TIME_LIMIT}
    env = make(3, id, kwargs=kwargs, vectorization=vectorization, autoreset="next_step")
    assert env.autoreset == "next_step"
    singles = [HandStepped(id, seed, kwargs) for seed in SEEDS]
    env.reset(SEEDS)
    dead, dead_steps = [False] * 3, 0
    for action in random_actions(env, 30):
        step = env.step(action)
        assert step.final_obs is step.obs
        for n, single in enumerate(singles):
            if dead[n]:
                single.restart()
                expected = single.obs, 0.0, False, False
                dead_steps += 1
            else:
                expected = single.step(action[n].numpy())
            np.testing.assert_array_equal(step.obs[n], expected[0].astype(np.float32))
            assert (step.reward[n], step.terminated[n], step.truncated[n]) == (np.float32(expected[1]), *expected[2:])
            dead[n] = expected[2] or expected[3]
    assert dead_steps >= 9


def test_cartpole_is_stepped_natively_with_the_physics_of_the_single_environment(make):
    env = make(3, "CartPole-v1", kwargs={"max_episode_steps": 40})
    assert type(env._env).__name__ == "CartPoleVectorEnv"
    assert env.autoreset == "next_step"
    single = gym.make("CartPole-v1", max_episode_steps=-1).unwrapped
    single.reset(seed=0)
    env.reset(SEEDS)
    dead, ends = np.zeros(3, bool), 0
    for action in random_actions(env, 120):
        states = env._env.state.T.copy()
        step = env.step(action)
        for n in range(3):
            if dead[n]:
                assert step.reward[n] == 0
                assert step.obs[n].abs().max() <= 0.05, "a dead step shows the next episode's start"
                continue
            single.state, single.steps_beyond_terminated = states[n], None
            successor, reward, terminated, _, _ = single.step(int(action[n]))
            np.testing.assert_allclose(step.final_obs[n], successor, rtol=1e-6)
            assert (step.reward[n], step.terminated[n]) == (reward, terminated)
        dead = (step.terminated | step.truncated).numpy()
        ends += dead.sum()
    assert ends >= 6


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_native_environment_gives_way_to_sync_when_another_mode_or_a_wrapper_is_asked_for(make, autoreset):
    env = make(2, "CartPole-v1", autoreset=autoreset)
    assert (type(env._env).__name__ == "CartPoleVectorEnv") == (autoreset == "next_step")
    assert env.autoreset == autoreset
    assert make(2, "CartPole-v1", wrappers=["TimeAwareObservation"]).single_observation_space.shape == (5,)


@pytest.mark.filterwarnings("ignore:.*(AutoresetMode|autoreset_mode)")
@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, "sometimes", None])
def test_unknown_autoreset_modes_are_refused_natively_and_avoided_automatically(make, mode):
    gym.registry["TestNative-v0"].vector_entry_point = partial(NativeCounter, mode=mode)
    with pytest.raises(ValueError, match="only same_step and next_step are known: use vectorization=sync"):
        make(2, "TestNative-v0", vectorization="native")
    assert isinstance(make(2, "TestNative-v0")._env, SyncVectorEnv)


@pytest.mark.filterwarnings("ignore:.*AutoresetMode")
def test_native_mode_may_be_declared_by_name_and_must_match_what_is_asked(make):
    gym.registry["TestNative-v0"].vector_entry_point = partial(NativeCounter, mode="NextStep")
    assert make(2, "TestNative-v0", vectorization="native").autoreset == "next_step"
    with pytest.raises(ValueError, match="autoreset next_step, but same_step was asked for: use vectorization=sync"):
        make(2, "TestNative-v0", vectorization="native", autoreset="same_step")


def test_native_same_step_without_final_obs_is_an_error_not_a_wrong_bootstrap(make):
    env = make(2, "TestNative-v0", kwargs={"mode": AutoresetMode.SAME_STEP})
    env.reset([1, 2])
    with pytest.raises(ValueError, match=r"does not report info\['final_obs'\]"):
        env.step(torch.zeros(2, dtype=torch.int64))


def test_native_environment_gets_one_seed_that_depends_on_all(make):
    env = make(2, "TestNative-v0")
    drawn = []
    for seeds in ([1, 2], [1, 2], [1, 3], [2, 1]):
        env.reset(seeds)
        drawn.append(env._env.seed)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_seeds_decide_the_episodes_and_differ_between_environments(make, vectorization):
    def play(seeds):
        env = make(3, "CartPole-v1", vectorization=vectorization)
        trace = [env.reset(seeds).clone()]
        trace += [env.step(action).obs.clone() for action in random_actions(env, 60)]
        return torch.stack(trace)

    first = play(SEEDS)
    assert torch.equal(first, play(SEEDS))
    assert not torch.equal(first[0], play([7, 8, 9])[0])
    assert len(first[0].unique(dim=0)) == 3


def test_wrong_number_of_seeds_is_refused(make):
    with pytest.raises(ValueError, match="one seed per environment: 2, got 1"):
        make(2, "TestCounter-v0").reset([1])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_final_obs_survives_an_environment_that_resets_into_the_same_buffer(make, vectorization):
    env = make(2, "TestCounter-v0", kwargs={"start": 1}, vectorization=vectorization)
    env.reset([0, 0])
    steps = [env.step(torch.zeros(2, dtype=torch.int64)) for _ in range(2)]
    assert steps[1].final_obs.flatten().tolist() == [3, 3]
    assert steps[1].obs.flatten().tolist() == [1, 1]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("ends", [(True, False), (False, True), (True, True)])
def test_terminated_and_truncated_pass_through_untouched(make, ends, autoreset):
    env = make(2, "TestCounter-v0", kwargs={"terminates": ends[0], "truncates": ends[1]}, autoreset=autoreset)
    env.reset([0, 0])
    flags = []
    for _ in range(3):
        step = env.step(torch.zeros(2, dtype=torch.int64))
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        flags.append((bool(step.terminated[1]), bool(step.truncated[1])))
    assert flags == [(False, False), (False, False), ends]


def test_discrete_actions_count_from_zero_whatever_the_start(make):
    env = make(3, "TestCounter-v0")
    assert env.single_action_space == spaces.Discrete(3)
    env.reset(SEEDS)
    step = env.step(torch.tensor([0, 1, 2]))
    assert step.reward.tolist() == [5, 6, 7], "the environment pays its own number of the action"
    assert step.reward.dtype == torch.float32


def test_box_actions_stretch_from_minus_one_to_one_and_are_clipped(make):
    space = spaces.Box(np.array([-2, 0, 10], np.float32), np.array([2, 1, 30], np.float32))
    env = make(4, "TestSpaces-v0", kwargs={"action_space": space})
    assert env.single_action_space == spaces.Box(-1, 1, (3,))
    env.reset([0] * 4)
    env.step(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [-1.0, -1.0, -1.0], [7.0, 7.0, -7.0]]))
    taken = [single.unwrapped.action for single in env._env.envs]
    np.testing.assert_array_equal(taken, [[0, 0.5, 20], [1, 0.75, 25], [-2, 0, 10], [2, 1, 10]])
    assert taken[0].dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (1, 3), (1, 1), ()], ids=str)
@pytest.mark.parametrize("num_envs", [1, 2, 3, 6])
def test_actions_of_any_shape_keep_their_own_bounds(make, shape, num_envs):
    high = 10.0 ** np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(np.float32)
    env = make(num_envs, "TestSpaces-v0", kwargs={"action_space": spaces.Box(-high, high, shape, np.float32)})
    env.reset([0] * num_envs)
    share = torch.linspace(-1, 1, num_envs * high.size).reshape(num_envs, high.size)  # as a policy gives them
    env.step(share)
    for single, mine in zip(env._env.envs, share, strict=True):
        np.testing.assert_allclose(single.unwrapped.action, high * mine.numpy().reshape(shape), rtol=1e-6)
        assert single.unwrapped.action.shape == shape


def test_unbounded_action_dimensions_pass_through_and_half_bounded_ones_are_only_clipped(make):
    space = spaces.Box(
        np.array([-np.inf, 0, -4], np.float64), np.array([np.inf, np.inf, 4], np.float64), dtype=np.float64
    )
    env = make(1, "TestSpaces-v0", kwargs={"action_space": space})
    assert env.single_action_space.low.tolist() == [-np.inf, 0, -1]
    assert env.single_action_space.high.tolist() == [np.inf, np.inf, 1]
    env.reset([0])
    env.step(torch.tensor([[-9.0, 3.0, 0.5]]))
    assert env._env.envs[0].unwrapped.action.tolist() == [-9, 3, 2]
    env.step(torch.tensor([[9.0, -3.0, -2.0]]))
    assert env._env.envs[0].unwrapped.action.tolist() == [9, 0, -4]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("space", "counts", "taken"),
    [
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), [2, 3], [6, 1]),
        (spaces.MultiDiscrete([[2, 3], [4, 1]], dtype=np.int32), [2, 3, 4, 1], [[1, 2], [3, 0]]),
        (spaces.MultiBinary(2), [2, 2], [1, 1]),
        (spaces.MultiBinary([2, 1]), [2, 2], [[1], [1]]),
        (spaces.Box(np.array([-2, 3]), np.array([7, 3]), dtype=np.int8), [10, 1], [7, 3]),
        (spaces.Box(2**63 - 1, 2**63, (1,), np.uint64), [2], [2**63]),
    ],
    ids=str,
)
def test_several_choices_count_from_zero_whatever_the_environment_calls_them(make, space, counts, taken, vectorization):
    env = make(2, "TestSpaces-v0", kwargs={"action_space": space}, vectorization=vectorization)
    assert env.single_action_space == spaces.MultiDiscrete(counts)
    env.reset([0, 0])
    highest = torch.tensor([counts, counts]) - 1
    env.step(highest)
    env.step(torch.stack([torch.zeros(len(counts), dtype=torch.int64), highest[0]]))
    if vectorization == "sync":
        lowest, got = (single.unwrapped.action for single in env._env.envs)
        np.testing.assert_array_equal(got, taken)
        assert got.dtype == space.dtype and space.contains(got) and space.contains(lowest)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 2**16, (2,), np.int64),
        spaces.Box(-(2**62), 2**62, (4096,), np.int64),
        spaces.MultiDiscrete([2**15, 2, 2]),
        spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1)]),
        spaces.Dict(a=spaces.Discrete(2)),
    ],
    ids=lambda space: str(space)[:40],
)
def test_actions_that_no_policy_handles_are_refused_with_a_way_out(make, space):
    with pytest.raises(ValueError, match=r"(?s)TestSpaces-v0 has actions of .* TransformAction"):
        make(1, "TestSpaces-v0", kwargs={"action_space": space})


@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 4, 5), (4, 5)], ids=str)
def test_images_stay_uint8_in_their_own_layout(make, shape):
    env = make(2, "TestPicture-v0", kwargs={"shape": shape})
    assert env.single_observation_space == spaces.Box(0, 255, shape, np.uint8)
    assert env.reset([0, 0]).dtype == torch.uint8
    steps = [env.step(torch.zeros(2, dtype=torch.int64)) for _ in range(3)]
    assert steps[2].final_obs.shape == (2, *shape)
    assert steps[2].final_obs.dtype == torch.uint8
    assert (steps[2].final_obs.flatten()[0], steps[2].obs.flatten()[0], steps[2].obs.flatten()[1]) == (3, 0, 200)


def test_float64_and_integer_vectors_become_float32(make):
    for dtype in (np.float64, np.int64, np.uint8):
        space = spaces.Box(0, 9, (2,), dtype)
        env = make(2, "TestSpaces-v0", kwargs={"observation_space": space})
        assert env.reset([0, 0]).dtype == torch.float32
        assert env.single_observation_space.dtype == np.float32


def test_discrete_observations_are_one_hot(make):
    env = make(2, "FrozenLake-v1", kwargs={"is_slippery": False})
    assert env.single_observation_space.shape == (16,)
    assert env.reset([0, 0]).argmax(dim=1).tolist() == [0, 0]
    step = env.step(torch.tensor([1, 2]))  # down a row of four, right
    assert step.obs.argmax(dim=1).tolist() == [4, 1]
    assert step.obs.sum(dim=1).tolist() == [1, 1]


def test_dict_observations_are_flattened_and_other_structures_refused(make):
    parts = spaces.Dict(place=spaces.Box(-1, 1, (2,)), kind=spaces.Discrete(3))
    assert make(2, "TestSpaces-v0", kwargs={"observation_space": parts}).reset([0, 0]).shape == (2, 5)
    endless = spaces.Sequence(spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"TestSpaces-v0 has observations of Sequence.*FlattenObservation"):
        make(2, "TestSpaces-v0", kwargs={"observation_space": endless})


class Misshapen(Spaces):
    """Gives observations of another shape than it declares, from the first or from the second one on."""

    def __init__(self, first, then, ends=True):
        super().__init__()
        self.first, self.then, self.ends = first, then, ends

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.first, np.float32), {}

    def step(self, action):
        return np.zeros(self.then, np.float32), 0.0, self.ends, False, {}


@pytest.mark.parametrize("ends", [True, False], ids=["last", "in between"])
@pytest.mark.parametrize("shape", [(3,), (1,), (1, 2), ()], ids=str)
def test_an_observation_of_the_wrong_shape_names_the_environment_and_both_shapes(make, shape, ends):
    message = re.escape(
        f"TestSpaces-v0 gave an observation of shape {list(shape)}, but its observation_space has shape [2]"
    )
    gym.registry["TestSpaces-v0"].entry_point = Misshapen
    with pytest.raises(ValueError, match=message):
        make(2, "TestSpaces-v0", kwargs={"first": shape, "then": (2,)})
    env = make(2, "TestSpaces-v0", kwargs={"first": (2,), "then": shape, "ends": ends})
    env.reset([1, 2])
    with pytest.raises(ValueError, match=message):
        env.step(torch.zeros(2, dtype=torch.int64))


def at_most_one(env):
    return gym.wrappers.ClipReward(env, 0, 1)


def test_wrappers_are_named_with_their_keywords(make):
    wrappers = [{"FrameStackObservation": {"stack_size": 4}}, "FlattenObservation", at_most_one]
    env = make(2, "TestPicture-v0", kwargs={"shape": (2, 3)}, wrappers=wrappers)
    env.reset([0, 0])
    step = env.step(torch.zeros(2, dtype=torch.int64))
    assert step.obs[0].tolist() == [0, *[200] * 5, 0, *[200] * 5, 0, *[200] * 5, 1, *[200] * 5]
    assert step.reward.tolist() == [1, 1]
    with pytest.raises(ValueError, match="has no 'FlatenObservation'; did you mean FlattenObservation"):
        make(2, "TestCounter-v0", wrappers=["FlatenObservation"])


WRAPPER_MISTAKES = {
    "vector": r"has no 'vector'; expected a name from gymnasium.wrappers, or \{name",
    "vector.FlattenObservation": "has no 'vector.FlattenObservation'; did you mean FlattenObservation",
    3: r"wrappers: 3: expected a name from gymnasium.wrappers, or \{name: \{keyword: value\}\}",
    '{"FrameStackObservation": 4}': r"wrappers: \{'FrameStackObservation': 4\}: expected a name",
    '{"FrameStackObservation": {"stack_size": 4}, "FlattenObservation": {}}': (
        r"2 names in one entry; expected one in each: \[\{FrameStackObservation: \{stack_size: 4\}\}, "
        r"\{FlattenObservation: \{\}\}\]"
    ),
    "{}": r"0 names in one entry; expected one in each: \[\{name: \{\}\}\]",
    "TimeLimit": "wrappers: TimeLimit does not fit: TypeError: .* 'max_episode_steps'",
    '{"FrameStackObservation": {"stak": 4}}': r"FrameStackObservation with \{'stak': 4\} does not fit: .* 'stak'",
    "GrayscaleObservation": "wrappers: GrayscaleObservation does not fit: ValueError: .* requires an image",
}


@pytest.mark.parametrize("entry", WRAPPER_MISTAKES)
def test_a_mistake_in_an_entry_of_wrappers_is_told_with_the_form_that_is_right(make, entry):
    wrapper = json.loads(entry) if str(entry).startswith("{") else entry
    with pytest.raises(ValueError, match=WRAPPER_MISTAKES[entry]):
        make(2, "TestCounter-v0", wrappers=[wrapper])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    "wrapper",
    [
        "NormalizeObservation",
        {"NormalizeReward": {"gamma": 0.9}},
        "vector.NormalizeReward",
        gym.wrappers.NormalizeObservation,
    ],
    ids=str,
)
def test_wrappers_whose_moments_no_checkpoint_holds_are_refused_for_the_setting_that_saves_them(
    make, wrapper, vectorization
):
    setting = "normalize_reward=true" if "Reward" in str(wrapper) else "normalize_obs=true"
    with pytest.raises(ValueError, match=f"is not saved with the policy: .*; {setting} does the same and is saved"):
        make(2, "TestCounter-v0", wrappers=[wrapper, "FlattenObservation"], vectorization=vectorization)


def test_moments_inside_an_environment_are_refused_unless_they_stand_still(make):
    def normalized(is_still):
        env = gym.wrappers.NormalizeReward(Counter())
        env.update_running_mean = not is_still
        return env

    def native(**settings):
        return gym.wrappers.vector.NormalizeObservation(NativeCounter(**settings))

    gym.registry["TestCounter-v0"].entry_point = normalized
    assert make(1, "TestCounter-v0", kwargs={"is_still": True}).reset([1]).tolist() == [[0]]
    with pytest.raises(ValueError, match="NormalizeReward begins anew"):
        make(1, "TestCounter-v0", kwargs={"is_still": False})
    gym.registry["TestNative-v0"].vector_entry_point = native
    with pytest.raises(ValueError, match="NormalizeObservation begins anew"):
        make(1, "TestNative-v0", vectorization="native")


MASKS = [[True, False, True], [False, True, True], [False, False, False], [True, False, False]]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_mask_belongs_to_the_observation_that_it_comes_with(make, vectorization):
    env = make(2, "TestCounter-v0", kwargs={"masks": MASKS}, vectorization=vectorization)
    assert env.single_observation_space["legal"] == spaces.MultiBinary(3)
    assert env.reset([0, 0])["legal"].tolist() == [MASKS[0]] * 2
    steps = [env.step(torch.tensor([2, 2])) for _ in range(3)]
    assert steps[0].obs["legal"].tolist() == [MASKS[1]] * 2
    assert steps[1].obs["legal"].tolist() == [[True] * 3] * 2, "a row that allows nothing allows everything"
    assert steps[2].obs["legal"].tolist() == [MASKS[0]] * 2, "of the episode that has just begun"
    assert steps[2].final_obs["legal"].tolist() == [MASKS[3]] * 2, "of the episode that has just ended"
    assert steps[2].final_obs["obs"].flatten().tolist() == [3, 3]
    assert steps[2].obs["legal"].dtype == torch.bool


def test_mask_of_a_real_environment_is_found_and_a_native_one_covers_every_row(make):
    env = make(2, next(id for id in gym.registry if id.startswith("Taxi-")))
    legal = env.reset([0, 1])["legal"]
    expected = [single.unwrapped.action_mask(single.unwrapped.s).tolist() for single in env._env.envs]
    assert legal.int().tolist() == expected
    native = make(2, "TestNative-v0", kwargs={"mask": [True, False]})
    assert native.reset([0, 0])["legal"].tolist() == [[True, False]] * 2


def test_mask_of_the_wrong_length_is_refused(make):
    with pytest.raises(ValueError, match="has 3 actions but reports action masks of length 2"):
        make(2, "TestCounter-v0", kwargs={"masks": [[True, False]]})


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_success_is_read_at_the_end_of_the_episode_and_silence_is_failure_afterwards(make, autoreset):
    env = make(2, "TestCounter-v0", kwargs={"reports_success": True}, autoreset=autoreset)
    env.reset([0, 0])
    for _ in range(3):
        assert env.episode_metrics() == {}
        env.step(torch.zeros(2, dtype=torch.int64))
    assert env.episode_metrics()["charts/success_rate"].tolist() == [1, 1]
    for single in env._env.envs:
        single.unwrapped.reports_success = False
    env.reset([0, 0])
    for _ in range(3):
        env.step(torch.zeros(2, dtype=torch.int64))
    assert env.episode_metrics()["charts/success_rate"].tolist() == [0, 0]


def test_unknown_id_names_the_nearest(make):
    with pytest.raises(ValueError, match="no environment is registered as 'CartPol-v1'; did you mean CartPole-v1"):
        make(2, "CartPol-v1")
    with pytest.raises(ValueError, match="did you mean LunarLander-v3"):
        make(2, "LunarLander-v2")


def test_missing_package_names_the_extra(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d", raising=False)
    with pytest.raises(ValueError, match=r"LunarLander-v3 needs .* pip install 'ppo-cli\[box2d\]'"):
        make(2, "LunarLander-v3")
    monkeypatch.setitem(gymnasium_specs.EXTRAS, "no_such", ("no_such_package_here", "toys"))
    with pytest.raises(ValueError, match=r"pip install 'ppo-cli\[toys\]'"):
        make(2, "TestNoPackage-v0")
    monkeypatch.delitem(gymnasium_specs.EXTRAS, "no_such")
    with pytest.raises(ValueError, match="package that is not installed: No module named 'no_such_package_here'"):
        make(2, "TestNoPackage-v0")


def test_an_id_without_a_version_is_the_latest_one(make):
    for version in (9, 10):
        gym.register(
            f"TestAged-v{version}", entry_point=Picture, kwargs={"shape": (version,)}, disable_env_checker=True
        )
    try:
        assert make(1, "TestAged").single_observation_space.shape == (10,)
    finally:
        for version in (9, 10):
            del gym.registry[f"TestAged-v{version}"]


def test_what_gymnasiums_own_environments_raise_about_a_setting_costs_a_line(make):
    with pytest.raises(ValueError, match=r"FrozenLake-v1 could not be made with kwargs .*: KeyError: 'nosuch'"):
        make(1, "FrozenLake-v1", kwargs={"map_name": "nosuch"})
    with pytest.raises(ValueError, match=r"HalfCheetah-v2 could not be made: ImportError: .* gymnasium-robotics"):
        make(1, "HalfCheetah-v2")


def test_what_an_environment_of_ones_own_raises_keeps_its_traceback(make):
    def broken():
        return {}["no such key"]

    gym.registry["TestCounter-v0"].entry_point = broken
    with pytest.raises(KeyError):
        make(1, "TestCounter-v0")


@pytest.mark.parametrize("steps", [0, -2, 1.5, "many"])
@pytest.mark.parametrize("id", ["CartPole-v1", "Acrobot-v1"])
def test_a_time_limit_is_a_whole_number_of_steps(make, id, steps):
    with pytest.raises(ValueError, match=f"kwargs.max_episode_steps={steps}: expected a whole number at least 1"):
        make(1, id, kwargs={"max_episode_steps": steps})


def test_a_module_that_is_not_there_is_named_itself(make):
    with pytest.raises(ValueError, match=r"nomod:X-v0: there is no module nomod$"):
        make(1, "nomod:X-v0", trusted_modules=["nomod"])
    with pytest.raises(ValueError, match=r"there is no module my_envs.py; a file is named without .py: my_envs:X-v0"):
        make(1, "my_envs.py:X-v0", trusted_modules=["my_envs"])


def test_unknown_keyword_is_named(make):
    with pytest.raises(ValueError, match=r"CartPole-v1 could not be made with kwargs .*'gravitas'"):
        make(2, "CartPole-v1", kwargs={"gravitas": 1})


def test_module_is_imported_only_when_trusted(make, tmp_path, monkeypatch):
    (tmp_path / "my_toys.py").write_text(
        "import gymnasium as gym\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gym.register('MyToy-v0', entry_point=CartPoleEnv)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="would import my_toys, which is not trusted: add my_toys"):
        make(2, "my_toys:MyToy-v0", trusted_modules=["my_toy"])
    assert "my_toys" not in sys.modules
    assert make(2, "my_toys:MyToy-v0", trusted_modules=["my_toys"]).single_observation_space.shape == (4,)
    del gym.registry["MyToy-v0"]


def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        make(0, "CartPole-v1")
    with pytest.raises(ValueError, match="vectorization must be one of auto, native, sync, async, got 'thread'"):
        make(1, "CartPole-v1", vectorization="thread")
    with pytest.raises(ValueError, match="Acrobot-v1 has no vector entry point"):
        make(1, "Acrobot-v1", vectorization="native")


def test_closing_twice_or_after_a_worker_died_releases_every_process(make):
    env = make(2, "TestCounter-v0", vectorization="async", num_workers=2)
    env.reset([0, 0])
    processes = [worker.process for worker in env._env.workers]
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].join()
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_workers_die_with_a_killed_parent():
    script = (
        "import time\n"
        "from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv\n"
        "env = GymnasiumVecEnv(2, 'CartPole-v1', vectorization='async', num_workers=2)\n"
        "print(*[worker.process.pid for worker in env._env.workers], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2
    assert not any(is_running(pid) for pid in workers)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
