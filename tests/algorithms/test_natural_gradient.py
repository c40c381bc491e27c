from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ppo_cli.algorithms.natural_gradient import (
    backtracking,
    conjugate_gradient,
    flatten,
    hessian_product,
    write_flat,
)
from ppo_cli.distributions import ILLEGAL, Categorical, Gaussian

NUM_ACTIONS = 3


class SmallPolicy(nn.Module):
    """A policy of float64 throughout, with 4 observed numbers; ``kind`` as the tests name it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.hidden = nn.Linear(4, 5)
        self.out = nn.Linear(5, NUM_ACTIONS)
        self.log_std = nn.Parameter(torch.tensor([0.1, -0.3, 0.2])) if kind == "gaussian" else None
        self.double()

    def forward(self, obs: Tensor) -> Categorical | Gaussian:
        out = self.out(self.hidden(obs).tanh())
        if self.log_std is not None:
            return Gaussian(out, self.log_std.expand_as(out))
        if self.kind == "masked":
            out = torch.where(legal(len(obs)), out, ILLEGAL)
        return Categorical(out.log_softmax(-1))


def legal(num_rows: int) -> Tensor:
    """All but one action, another one in each row; in the last row only one is left."""
    mask = torch.ones(num_rows, NUM_ACTIONS, dtype=torch.bool)
    mask[torch.arange(num_rows), torch.arange(num_rows) % NUM_ACTIONS] = False
    mask[-1] = torch.tensor([False, True, False])
    return mask


def mean_kl(policy: SmallPolicy, obs: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        old = policy(obs)
    return old.kl(torch.func.functional_call(policy, parameters, obs)).mean()


def explicit_hessian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    hessian = torch.autograd.functional.hessian(function, at)  # type: ignore[no-untyped-call]
    assert isinstance(hessian, Tensor)
    return hessian


@pytest.mark.parametrize("kind", ["categorical", "masked", "gaussian"])
def test_the_product_is_that_with_the_explicit_hessian_of_the_kl(kind: str) -> None:
    policy = SmallPolicy(kind)
    obs = torch.randn(7, 4, dtype=torch.float64)
    names, parameters = zip(*policy.named_parameters(), strict=True)
    sizes = [parameter.numel() for parameter in parameters]

    def kl(flat: Tensor) -> Tensor:
        parts = [x.view_as(p) for x, p in zip(flat.split(sizes), parameters, strict=True)]
        return mean_kl(policy, obs, dict(zip(names, parts, strict=True)))

    hessian = explicit_hessian(kl, flatten(parameters).detach())
    assert torch.linalg.eigvalsh(hessian).min() > -1e-12  # a Fisher matrix is positive semidefinite
    assert hessian.abs().max() > 1e-2
    product = hessian_product(mean_kl(policy, obs, dict(zip(names, parameters, strict=True))), parameters, damping=0.25)
    for seed in range(3):
        v = torch.randn(len(hessian), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert_close(product(v), hessian @ v + 0.25 * v, rtol=1e-9, atol=1e-12)


def test_the_fisher_matrix_of_a_softmax_is_known() -> None:
    logits = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    new = Categorical(logits.log_softmax(-1))
    product = hessian_product(Categorical(new.log_probs.detach()).kl(new), [logits], damping=0.0)
    p = new.log_probs.detach().exp()
    fisher = torch.stack([product(row) for row in torch.eye(3, dtype=torch.float64)])
    assert_close(fisher, p.diag() - torch.outer(p, p))


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradient_equals_a_direct_solve(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    matrix = root @ root.T + 0.1 * torch.eye(12, dtype=torch.float64)
    b = torch.randn(12, dtype=torch.float64, generator=generator)
    solution = conjugate_gradient(lambda v: matrix @ v, b, num_iterations=50, tolerance=1e-12)
    assert_close(solution.x, torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-8)


def test_the_residual_is_what_it_says_and_falls_with_every_iteration_allowed() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64))
    b = torch.ones(4, dtype=torch.float64)
    residuals = []
    for num_iterations in range(1, 5):
        x, residual = conjugate_gradient(lambda v: matrix @ v, b, num_iterations=num_iterations, tolerance=0.0)
        assert residual.item() == pytest.approx(((b - matrix @ x).norm() / b.norm()).item(), abs=1e-12)
        residuals.append(residual.item())
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-12  # as many iterations as dimensions: exact


def test_of_no_gradient_there_is_no_step() -> None:
    solution = conjugate_gradient(lambda v: 2 * v, torch.zeros(5), num_iterations=10)
    assert torch.equal(solution.x, torch.zeros(5))
    assert solution.residual.item() == 0


def test_backtracking_offers_ever_shorter_steps_until_one_is_accepted() -> None:
    offered: list[float] = []

    def accepts(scale: float) -> bool:
        offered.append(scale)
        return scale < 0.3

    assert backtracking(accepts, num_steps=10, shrink=0.5) == (True, 3)
    assert offered == [1.0, 0.5, 0.25]
    assert backtracking(accepts, num_steps=2, shrink=0.5) == (False, 2)


def test_a_flat_vector_goes_back_to_where_it_came_from() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    flat = flatten(parameters).detach()
    write_flat(parameters, torch.zeros_like(flat))
    assert not any(parameter.any() for parameter in parameters)
    write_flat(parameters, flat)
    assert all(torch.equal(now, then) for now, then in zip(parameters, before, strict=True))
