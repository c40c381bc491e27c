from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.testing import assert_close

from ppo_cli.distributions import Categorical
from ppo_cli.networks.board import Board
from ppo_cli.networks.codes import NUM_PLANES, planes
from ppo_cli.types import Obs


def spaces_of(height: int, width: int) -> tuple[spaces.Dict, spaces.Discrete]:  # type: ignore[type-arg]
    cells = height * width
    board = spaces.Box(-2, 8, (height, width), np.int8)
    return spaces.Dict(board=board, legal=spaces.MultiBinary(cells)), spaces.Discrete(cells)


def random_obs(height: int, width: int, size: int = 6) -> dict[str, Tensor]:
    board = torch.randint(-1, 9, (size, height, width), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    return {"board": board, "legal": (board == -1).flatten(1)}


def network(**settings: object) -> Board:
    torch.manual_seed(0)
    made = Board(*spaces_of(5, 5), **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        made.policy_head.weight.mul_(100)
    return made


def turned(x: Tensor, rotations: int, mirrored: bool) -> Tensor:
    x = x.flip(-1) if mirrored else x
    return torch.rot90(x, rotations, (-2, -1))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotations", range(4))
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
def test_a_turned_board_is_played_in_the_turned_way(
    rotations: int, mirrored: bool, residual: bool, pooling: str
) -> None:
    made = network(channels=16, num_layers=5, residual=residual, pooling=pooling)
    obs = random_obs(5, 7)
    policy, value = made(obs)
    board = turned(obs["board"], rotations, mirrored)
    turned_policy, turned_value = made({"board": board, "legal": (board == -1).flatten(1)})
    expected = turned(policy.log_probs.unflatten(1, (5, 7)), rotations, mirrored).flatten(1)
    assert_close(turned_policy.log_probs, expected, atol=1e-4, rtol=1e-4)
    assert_close(turned_value, value, atol=1e-5, rtol=1e-5)
    assert policy.log_probs.std() > 0.1


def test_without_tied_weights_a_turned_board_is_another_board() -> None:
    made = network(channels=16, symmetric=False)
    obs = random_obs(5, 5)
    board = turned(obs["board"], 1, False)
    value = made(obs)[1]
    assert not torch.allclose(made({"board": board, "legal": (board == -1).flatten(1)})[1], value, atol=1e-4)


def test_tied_weights_are_an_eighth_of_the_free_ones() -> None:
    tied, free = network(channels=32), network(channels=32, symmetric=False)
    size = [sum(p.numel() for p in made.convolutions.parameters()) for made in (tied, free)]
    assert size[0] * 8 == size[1]


def test_one_network_plays_boards_of_every_size() -> None:
    made = network()
    for height, width in ((3, 3), (9, 9), (16, 30)):
        policy, value = made(random_obs(height, width))
        assert policy.log_probs.shape == (6, height * width)
        assert value.shape == (6,)


def test_a_cell_that_is_shown_is_never_chosen() -> None:
    obs = random_obs(5, 5)
    policy, _ = network()(obs)
    assert isinstance(policy, Categorical)
    assert (policy.log_probs.exp()[~obs["legal"]] == 0).all()


def test_planes_say_the_code_the_edge_and_the_share_that_is_hidden() -> None:
    board = torch.tensor([[[-1, 0], [8, -2]]], dtype=torch.int8)
    x = planes(board)[0]
    assert x.shape == (NUM_PLANES, 2, 2)
    assert x[0].tolist() == [[1, 0], [0, 1]]  # hidden; a mine that was hit reads as hidden
    assert x[1].tolist() == [[0, 1], [0, 0]]
    assert x[9].tolist() == [[0, 0], [1, 0]]
    assert (x[10] == 1).all()
    assert (x[11] == 0.5).all()
    assert x[:10].sum(0).eq(1).all()


@pytest.mark.parametrize(
    ("settings", "message"), [({"channels": 12}, "multiple of 8"), ({"num_layers": 0}, "num_layers")]
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**settings)


def test_a_vector_observation_is_refused() -> None:
    with pytest.raises(ValueError, match="board"):
        Board(spaces.Box(-1, 1, (4,)), spaces.Discrete(4))


def test_gradients_reach_every_weight() -> None:
    made = network(residual=True, num_layers=4)
    obs: Obs = random_obs(5, 5)
    policy, value = made(obs)
    (policy.log_prob(policy.mode()).sum() + value.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())
