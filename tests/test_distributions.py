from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from ppo_cli.distributions import ILLEGAL, Categorical, Gaussian, MultiCategorical
from ppo_cli.types import map_tensors


def categorical_pair() -> tuple[Categorical, torch.distributions.Categorical]:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    return Categorical.from_logits(logits), torch.distributions.Categorical(logits=logits)


def gaussian_pair(seed: int = 0) -> tuple[Gaussian, torch.distributions.Independent]:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(7, 3, generator=generator), torch.randn(7, 3, generator=generator)
    reference = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    return Gaussian(mean, log_std), reference


class Choices:
    """Torch's categoricals of two, five and three choices, each independent of the others."""

    def __init__(self, logits: list[torch.Tensor]) -> None:
        self.parts = [torch.distributions.Categorical(logits=part) for part in logits]

    def sample(self) -> torch.Tensor:
        return torch.stack([part.sample() for part in self.parts], dim=-1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.parts, action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(choice) for part, choice in pairs]).sum(0)

    def entropy(self) -> torch.Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: Choices) -> torch.Tensor:
        pairs = zip(self.parts, other.parts, strict=True)
        return torch.stack([torch.distributions.kl_divergence(one, two) for one, two in pairs]).sum(0)


def choices_pair(seed: int = 0) -> tuple[MultiCategorical, Choices]:
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(7, n, generator=generator) for n in (2, 5, 3)]
    padded = torch.full((7, 3, 5), ILLEGAL)
    for d, part in enumerate(logits):
        padded[:, d, : part.shape[1]] = part
    return MultiCategorical(Categorical.from_logits(padded)), Choices(logits)


@pytest.mark.parametrize("pair", [categorical_pair, choices_pair, gaussian_pair])
def test_log_prob_and_entropy_equal_those_of_torch(pair: object) -> None:
    ours, reference = pair()  # type: ignore[operator]
    action = reference.sample()
    assert_close(ours.log_prob(action), reference.log_prob(action))
    assert_close(ours.entropy(), reference.entropy())


def test_kl_equals_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(7, 5, generator=generator)
    ours, reference = categorical_pair()
    expected = torch.distributions.kl_divergence(reference, torch.distributions.Categorical(logits=other))
    assert_close(ours.kl(Categorical.from_logits(other)), expected)
    gaussian, gaussian_reference = gaussian_pair()
    other_gaussian, other_reference = gaussian_pair(seed=5)
    expected = torch.distributions.kl_divergence(gaussian_reference, other_reference)
    assert_close(gaussian.kl(other_gaussian), expected, rtol=1e-4, atol=1e-4)


def test_kl_of_several_choices_equals_that_of_torch() -> None:
    (ours, reference), (other, other_reference) = choices_pair(), choices_pair(seed=5)
    assert_close(ours.kl(other), reference.kl(other_reference))
    assert_close(ours.kl(ours), torch.zeros(7))


def test_choices_that_a_dimension_does_not_have_are_never_drawn() -> None:
    policy, _ = choices_pair()
    policy = map_tensors(lambda x: x[:1].expand(20_000, 3, 5), policy)
    action = policy.sample(policy.noise(1, torch.Generator().manual_seed(0))[0])
    assert [set(choice.tolist()) for choice in action.unbind(-1)] == [set(range(n)) for n in (2, 5, 3)]
    assert_close(policy.log_prob(action).exp().reciprocal().mean(), torch.tensor(30.0), rtol=0.05, atol=0)
    assert torch.equal(policy.mode(), policy.dimensions.log_probs.argmax(-1))


def test_an_illegal_action_is_never_drawn_even_where_it_would_be_by_far_the_likeliest() -> None:
    logits = torch.tensor([[50.0, 0.0, 0.0]]).expand(20_000, 3)
    legal = torch.tensor([[False, True, True]]).expand(20_000, 3)
    policy = Categorical.from_logits(logits, legal)
    action = policy.sample(policy.noise(1, torch.Generator().manual_seed(0))[0])
    assert set(action.tolist()) == {1, 2}
    assert policy.mode()[0] == 1
    assert_close(policy.entropy()[0], torch.tensor(2.0).log())


def test_samples_follow_the_probabilities() -> None:
    probability = torch.tensor([0.5, 0.3, 0.15, 0.05])
    policy = Categorical.from_logits(probability.log().expand(200_000, 4))
    counts = policy.sample(policy.noise(1, torch.Generator().manual_seed(0))[0]).bincount(minlength=4)
    chi_square = ((counts - 200_000 * probability).square() / (200_000 * probability)).sum().item()
    assert chi_square < 16.3  # 0.1 % point with 3 degrees of freedom


def test_gaussian_samples_have_the_stated_moments() -> None:
    policy = Gaussian(torch.tensor([1.0, -2.0]).expand(100_000, 2), torch.tensor([0.5, -1.0]).expand(100_000, 2))
    action = policy.sample(policy.noise(1, torch.Generator().manual_seed(0))[0])
    assert_close(action.mean(0), torch.tensor([1.0, -2.0]), atol=0.03, rtol=0)
    assert_close(action.std(0).log(), torch.tensor([0.5, -1.0]), atol=0.02, rtol=0)


def test_masked_gradients_and_kl_stay_finite() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    legal = torch.tensor([True, False, True, False, True, False]).expand(4, 6)
    policy = Categorical.from_logits(logits, legal)
    other = Categorical.from_logits(torch.randn(4, 6), legal)
    (policy.entropy() + other.kl(policy) + policy.log_prob(policy.mode())).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[~legal] == 0).all()


def test_a_distribution_is_data() -> None:
    policy, _ = categorical_pair()
    first = map_tensors(lambda x: x[:2], policy)
    assert torch.equal(first.log_probs, policy.log_probs[:2])
