import pytest
import torch

from ppo_cli.envs.probes import (
    POISON,
    ActionObservationProbe,
    ActionProbe,
    ConstantValueProbe,
    ContinuousActionProbe,
    DiscountProbe,
    IllegalActionProbe,
    ObservationValueProbe,
    Probe,
    SeveralChoicesProbe,
    TruncationProbe,
)
from ppo_cli.types import legal_actions

PROBES = [
    ConstantValueProbe,
    ObservationValueProbe,
    DiscountProbe,
    ActionProbe,
    ActionObservationProbe,
    TruncationProbe,
    ContinuousActionProbe,
    IllegalActionProbe,
    SeveralChoicesProbe,
]
GAMMA = 0.9
POISONED = torch.tensor(POISON).item()  # as float32 has it


def numbers(obs):
    """The one number that each environment shows, [N]."""
    return (obs["obs"] if isinstance(obs, dict) else obs)[:, 0].clone()


def optimal_action(probe: Probe, obs):
    """Known actions by lookup; zeros where every action is as good."""
    known_obs, known_action = probe.known_actions()
    if not len(known_action):
        return torch.zeros(probe.num_envs, dtype=torch.int64)
    return known_action[(numbers(obs)[:, None] == numbers(known_obs)).int().argmax(dim=1)]


def known_value(probe: Probe, obs):
    known_obs, value = probe.known_values(GAMMA)
    return value[(numbers(obs)[:, None] == numbers(known_obs)).int().argmax(dim=1)]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("probe_class", PROBES)
def test_known_values_solve_the_bellman_equation_along_optimal_play(probe_class, autoreset):
    probe = probe_class(16, autoreset=autoreset)
    obs = probe.reset([3])
    dead = torch.zeros(16, dtype=torch.bool)
    for _ in range(25):
        value = known_value(probe, obs)
        step = probe.step(optimal_action(probe, obs))
        target = step.reward + GAMMA * known_value(probe, step.final_obs) * ~step.terminated
        torch.testing.assert_close(value[~dead], target[~dead])
        dead = (step.terminated | step.truncated) & (autoreset == "next_step")
        obs = step.obs


@pytest.mark.parametrize("probe_class", PROBES)
def test_spaces_describe_the_tensors(probe_class):
    probe = probe_class(4)
    obs = probe.step(optimal_action(probe, probe.reset([0]))).obs
    row = {key: value[0].numpy() for key, value in obs.items()} if isinstance(obs, dict) else obs[0].numpy()
    assert probe.single_observation_space.contains(row)


@pytest.mark.parametrize("probe_class", PROBES)
def test_the_seed_decides_every_episode(probe_class):
    def play(seed):
        probe = probe_class(32)
        obs = probe.reset([seed])
        shown = [numbers(obs)]
        for _ in range(8):
            obs = probe.step(optimal_action(probe, obs)).obs
            shown.append(numbers(obs))
        return torch.stack(shown)

    assert torch.equal(play(5), play(5))
    is_random = probe_class in (
        ObservationValueProbe,
        ActionObservationProbe,
        ContinuousActionProbe,
        IllegalActionProbe,
        SeveralChoicesProbe,
    )
    assert torch.equal(play(5), play(6)) == (not is_random)


def test_truncation_comes_at_the_time_limit_and_shows_the_true_successor():
    probe = TruncationProbe(2, time_limit=3)
    assert numbers(probe.reset([0])).tolist() == [-1, -1]
    steps = [probe.step(torch.zeros(2, dtype=torch.int64)) for _ in range(4)]
    assert [step.reward[0].item() for step in steps] == [0, 1, 1, 0]
    assert [step.truncated[0].item() for step in steps] == [False, False, True, False]
    assert [numbers(step.obs)[0].item() for step in steps] == [1, 1, -1, 1]
    assert [numbers(step.final_obs)[0].item() for step in steps] == [1, 1, 1, 1]
    assert not any(step.terminated.any() for step in steps)


def test_poisoned_dead_step_pays_poison_and_restarts_without_moving():
    probe = TruncationProbe(1, autoreset="next_step", poison=True, time_limit=2)
    probe.reset([0])
    steps = [probe.step(torch.zeros(1, dtype=torch.int64)) for _ in range(6)]
    assert [step.reward.item() for step in steps] == [0, 1, POISONED, 0, 1, POISONED]
    assert [step.truncated.item() for step in steps] == [False, True, False, False, True, False]
    assert [numbers(step.obs).item() for step in steps] == [1, 1, -1, 1, 1, -1]
    assert all(step.final_obs is step.obs for step in steps)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_poison_covers_the_successor_of_a_terminal_step_and_nothing_that_is_acted_on(autoreset):
    probe = DiscountProbe(1, autoreset=autoreset, poison=True)
    obs = probe.reset([0])
    acted_on, dead = [], torch.tensor([False])
    for _ in range(9):
        if not dead:
            acted_on.append(numbers(obs).item())
        step = probe.step(torch.zeros(1, dtype=torch.int64))
        assert (numbers(step.final_obs).item() == POISONED) == step.terminated.item()
        assert (step.reward.item() == POISONED) == dead.item()
        dead = step.terminated & (autoreset == "next_step")
        obs = step.obs
    assert set(acted_on) == {0.0, 1.0}


def test_illegal_action_pays_most_and_the_mask_forbids_it():
    probe = IllegalActionProbe(8)
    obs = probe.reset([1])
    illegal = (~legal_actions(obs)).int().argmax(dim=1)
    assert legal_actions(obs).sum(dim=1).tolist() == [2] * 8
    assert set(illegal.tolist()) == {0, 2}
    assert probe.step(illegal).reward.tolist() == [10.0] * 8


def test_continuous_reward_falls_with_the_squared_distance():
    probe = ContinuousActionProbe(8)
    sign = numbers(probe.reset([0]))
    reward = probe.step(torch.full((8, 1), 1.5)).reward
    torch.testing.assert_close(reward, torch.where(sign > 0, -1.0, -4.0))


def test_zero_environments_are_refused():
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        ConstantValueProbe(0)
