from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ppo_cli.envs.minesweeper import rules as game
from ppo_cli.envs.minesweeper.env import Backend, MinesweeperVecEnv
from ppo_cli.envs.minesweeper.kernels_torch import TorchMinefield, mix, num_dilations, num_draws, signed
from ppo_cli.envs.minesweeper.layout import FirstClick, Rules
from ppo_cli.envs.minesweeper.rules import GOLDEN, HIDDEN, MASK32
from ppo_cli.envs.minesweeper.tensors import BoardTensors
from tests.envs.minesweeper_levels import FIRST_CLICKS, LEVELS, any_rules
from tests.helpers import HostWaits

OTHERS: list[Backend] = ["numba", "reference"]
CPU = torch.device("cpu")


def envs_of(rules: Rules, num_envs: int, seed: int, backends: list[Backend]) -> list[MinesweeperVecEnv]:
    height, width, mines, first_click = rules.height, rules.width, rules.mines, rules.first_click
    envs = [
        MinesweeperVecEnv(num_envs, height, width, mines, first_click, shaping=0.7, backend=name) for name in backends
    ]
    for env in envs:
        env.reset(range(seed, seed + num_envs))
    return envs


def clicks_of_a_mixed_crowd(env: MinesweeperVecEnv, generator: torch.Generator) -> Tensor:
    """Even games avoid mines and so reach the end of the board; odd ones click anything hidden; some click anywhere."""
    assert isinstance(env.obs, dict)
    weight = env.obs["legal"].float()
    weight[::2] *= 1e-6 + ~env.mines().flatten(1)[::2]
    action = torch.multinomial(weight, 1, generator=generator)[:, 0]
    anywhere = torch.randint(0, weight.shape[1], action.shape, generator=generator)
    return torch.where(torch.rand(action.shape, generator=generator) < 0.05, anywhere, action)


def assert_same_boards(left: MinesweeperVecEnv, right: MinesweeperVecEnv) -> None:
    for name in BoardTensors._fields:
        ours, theirs = getattr(left._boards, name), getattr(right._boards, name)
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name


def assert_all_play_alike(envs: list[MinesweeperVecEnv], num_steps: int, seed: int) -> int:
    """The same clicks in all environments, everything compared after each; how many games ended."""
    generator = torch.Generator().manual_seed(seed)
    ended = 0
    for _ in range(num_steps):
        action = clicks_of_a_mixed_crowd(envs[0], generator)
        for env in envs:
            env.step(action)
        for env in envs[1:]:
            assert_same_boards(envs[0], env)
        ended += int(envs[0]._boards.terminated.sum())
    return ended


def winding_corridor(height: int, width: int) -> np.ndarray:
    """Mines [H, W] in every fourth column from the third on, open by turns at the bottom and at the top."""
    mines = np.zeros((height, width), np.bool_)
    for number, column in enumerate(range(2, width - 2, 4)):
        mines[: height - 2, column] = number % 2 == 0
        mines[2:, column] |= number % 2 == 1
    return mines


def clicked_boards(rules: Rules, mines: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Fresh boards with ``mines`` [N, A] after a click on ``cells`` [N], by the torch operations."""
    field = TorchMinefield(len(cells), rules, 0.0, CPU)
    clicked = torch.arange(rules.num_cells) == torch.from_numpy(cells)[:, None]
    boards: np.ndarray = field.reveal(torch.from_numpy(mines), field.boards.board, clicked).numpy()
    return boards


def reference_board(rules: Rules, mines: np.ndarray, cell: int) -> np.ndarray:
    board = np.full(rules.num_cells, HIDDEN, np.int8)
    game.reveal(rules, mines, board, cell)
    return board


def furthest_zero(rules: Rules, mines: np.ndarray, start: int) -> int:
    """King's moves through zeros from ``start`` to the zero of its region that is furthest away."""
    zeros = {cell for cell in range(rules.num_cells) if not mines[cell] and not mines[rules.neighbours[cell]].any()}
    ring, seen, moves = {start}, {start}, 0
    while ring := {near for cell in ring for near in rules.neighbours[cell] if near in zeros} - seen:
        seen |= ring
        moves += 1
    return moves


def chances(rules: Rules) -> np.ndarray:
    """With d mines laid, the chance that a word lays the next, [mines]; first click in the middle of the board."""
    middle = rules.height // 2 * rules.width + rules.width // 2
    allowed = rules.num_cells - len(rules.forbidden(middle)) - np.arange(rules.mines)
    return np.asarray(allowed * (2**32 // rules.num_cells) / 2**32)


def chance_of_more_draws(rules: Rules, draws: int) -> float:
    """Exactly, by following the number of mines laid from word to word."""
    hit = chances(rules)
    laid = np.zeros(rules.mines)
    laid[0] = 1.0
    for _ in range(draws):
        moving = laid * hit
        laid -= moving
        laid[1:] += moving[:-1]
    return float(laid.sum())


def draws_of_games(rules: Rules, num_games: int) -> np.ndarray:
    """How many words the layouts of seeds 0, 1, ... take when the middle is clicked first."""
    middle = rules.height // 2 * rules.width + rules.width // 2
    forbidden, threshold = rules.forbidden(middle), 2**32 % rules.num_cells
    counter = torch.tensor([signed(number * GOLDEN % 2**64) for number in range(1, num_draws(rules) + 1)])
    key = torch.tensor([signed(game.stream_key(seed, 0)) for seed in range(num_games)])
    words = (mix(key[:, None] + counter) >> 32 & MASK32) * rules.num_cells
    taken = []
    for row in torch.where(words & MASK32 >= threshold, words >> 32, -1).tolist():
        new: dict[int, None] = {}
        for number, cell in enumerate(row, start=1):
            if cell >= 0 and cell not in forbidden:
                new[cell] = None
            if len(new) == rules.mines:
                taken.append(number)
                break
    return np.array(taken)


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
@pytest.mark.parametrize("level", LEVELS)
def test_it_plays_full_games_of_every_level_as_the_kernel_and_the_reference_do(
    level: tuple[int, int, int], first_click: FirstClick
) -> None:
    envs = envs_of(Rules(*level, first_click), 4, 5, ["numba", "reference", "torch"])
    ended = assert_all_play_alike(envs, num_steps=level[0] * level[1] // 3, seed=1)
    assert ended >= 8


@settings(max_examples=40, deadline=None)
@given(rules=any_rules(), seed=st.integers(0, 2**63))
def test_it_equals_the_reference_on_boards_of_any_shape(rules: Rules, seed: int) -> None:
    assert_all_play_alike(envs_of(rules, 4, seed, ["reference", "torch"]), num_steps=15, seed=seed)


def test_words_wrap_as_unsigned_ones_do() -> None:
    words = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, GOLDEN, 1234567 + GOLDEN]
    mixed = mix(torch.tensor([signed(word) for word in words]))
    assert mixed.tolist() == [signed(game.mix(word)) for word in words]


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
@pytest.mark.parametrize("level", LEVELS)
def test_many_layouts_are_those_of_the_kernel(level: tuple[int, int, int], first_click: FirstClick) -> None:
    num_games = 2_000
    kernel, ours = envs_of(Rules(*level, first_click), num_games, 2**64 - num_games, ["numba", "torch"])
    first = torch.arange(num_games) % (level[0] * level[1])
    kernel.step(first)
    field = ours._field
    assert isinstance(field, TorchMinefield)
    assert torch.equal(kernel._boards.mines, field.place_mines(ours._boards.seed, ours._boards.episode, first))


@pytest.mark.parametrize(("height", "width", "mines"), [(1, 8, 1), (2, 6, 2), (4, 5, 2), (3, 6, 2), (5, 5, 1)])
def test_every_click_on_every_layout_of_a_small_board_shows_what_the_reference_shows(
    height: int, width: int, mines: int
) -> None:
    rules = Rules(height, width, mines, "unsafe")
    cases = list(product(combinations(range(rules.num_cells), mines), range(rules.num_cells)))
    layouts = np.zeros((len(cases), rules.num_cells), np.bool_)
    np.put_along_axis(layouts, np.array([layout for layout, _ in cases]), True, axis=1)
    cells = np.array([cell for _, cell in cases])
    expected = [reference_board(rules, layout, cell) for layout, cell in zip(layouts, cells.tolist(), strict=True)]
    np.testing.assert_array_equal(clicked_boards(rules, layouts, cells), expected)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (16, 16), (16, 30), (5, 29)])
def test_a_corridor_that_winds_through_the_whole_board_opens_at_once_and_is_not_far_from_the_bound(
    height: int, width: int
) -> None:
    mines = winding_corridor(height, width).reshape(-1)
    rules = Rules(height, width, int(mines.sum()), "unsafe")
    np.testing.assert_array_equal(
        clicked_boards(rules, mines[None], np.array([0]))[0], reference_board(rules, mines, 0)
    )
    assert 0.7 * num_dilations(rules) <= furthest_zero(rules, mines, 0) <= num_dilations(rules)


def test_a_single_row_needs_all_dilations_but_one() -> None:
    rules = Rules(1, 9, 1, "unsafe")
    assert furthest_zero(rules, np.arange(9) == 8, 0) == 6
    assert num_dilations(rules) == 7


@pytest.mark.parametrize(
    "rules",
    [
        *(Rules(*level, first_click) for level in LEVELS for first_click in FIRST_CLICKS),
        Rules(9, 9, 72, "zero"), Rules(9, 9, 80, "safe"), Rules(1, 2, 1, "unsafe"), Rules(1, 2, 1, "safe"),
    ],
)  # fmt: skip
def test_the_bound_on_draws_is_missed_by_less_than_one_game_in_2_to_the_64(rules: Rules) -> None:
    assert chance_of_more_draws(rules, num_draws(rules)) < 2.0**-64
    assert chance_of_more_draws(rules, num_draws(rules) * 3 // 4) > 2.0**-64 or num_draws(rules) < 10  # nor is it idle


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
def test_layouts_take_as_many_words_as_independent_ones_would(first_click: FirstClick) -> None:
    rules, num_games = Rules(9, 9, 10, first_click), 10_000
    taken, hit = draws_of_games(rules, num_games), chances(rules)
    assert len(taken) == num_games
    standard_error = (((1 - hit) / hit**2).sum() / num_games) ** 0.5
    assert abs(taken.mean() - (1 / hit).sum()) < 4 * standard_error
    assert taken.max() < 0.8 * num_draws(rules)


def test_a_board_short_of_words_still_has_all_its_mines_and_keeps_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppo_cli.envs.minesweeper.kernels_torch.num_draws", lambda rules: 3)
    field = TorchMinefield(50, Rules(5, 5, 8, "zero"), 0.0, CPU)
    field.start(range(50))
    mines = field.step(torch.full((50,), 12)).mines
    assert (mines.sum(dim=1) == 8).all()
    assert not mines.view(50, 5, 5)[:, 1:4, 1:4].any()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("saved_by_torch", [True, False])
def test_a_state_saved_by_one_backend_goes_on_bit_for_bit_in_another(other: Backend, saved_by_torch: bool) -> None:
    backends: list[Backend] = ["torch", other] if saved_by_torch else [other, "torch"]
    first, second = envs_of(Rules(), 6, 2**64 - 6, backends)
    generator = torch.Generator().manual_seed(4)
    for _ in range(25):
        first.step(clicks_of_a_mixed_crowd(first, generator))
    state = first.state_dict()
    second.reset(range(6))
    second.step(clicks_of_a_mixed_crowd(second, generator))
    second.load_state_dict(state)
    assert isinstance(first.obs, dict)
    assert isinstance(second.obs, dict)
    assert all(torch.equal(first.obs[key], second.obs[key]) for key in first.obs)
    for left, right in zip(first.episode_metrics().values(), second.episode_metrics().values(), strict=True):
        right.copy_(left)  # figures of games that are over are no part of the future
    ended = assert_all_play_alike([first, second], num_steps=40, seed=7)
    assert ended > 20


def test_steps_write_into_the_same_memory_and_the_mask_is_what_is_hidden() -> None:
    (env,) = envs_of(Rules(), 8, 0, ["torch"])
    generator = torch.Generator().manual_seed(0)
    addresses = []
    for _ in range(30):
        step = env.step(clicks_of_a_mixed_crowd(env, generator))
        for obs in (step.obs, step.final_obs):
            assert isinstance(obs, dict)
            assert torch.equal(obs["legal"], obs["board"].flatten(1) == HIDDEN)
        addresses.append([tensor.data_ptr() for tensor in env._boards])
    assert all(row == addresses[0] for row in addresses)


def test_a_reset_forgets_the_games_before() -> None:
    env, fresh = envs_of(Rules(), 8, 0, ["torch", "torch"])
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        env.step(clicks_of_a_mixed_crowd(env, generator))
    obs = env.reset(range(8))
    assert isinstance(obs, dict)
    assert (obs["board"] == HIDDEN).all()
    assert obs["legal"].all()
    for left, right in zip(env.episode_metrics().values(), fresh.episode_metrics().values(), strict=True):
        right.copy_(left)
    fresh._boards.mines.copy_(env._boards.mines)  # of a game that is not placed: nobody reads them
    assert_all_play_alike([env, fresh], num_steps=1, seed=3)


@pytest.mark.parametrize("stray", [-1, 81, 2**40])
def test_an_action_that_is_no_cell_clicks_nothing(stray: int) -> None:
    (env,) = envs_of(Rules(), 2, 0, ["torch"])
    step = env.step(torch.tensor([stray, 40]))
    assert isinstance(step.obs, dict)
    assert (step.obs["board"][0] == HIDDEN).all()
    assert step.reward[0] == 0
    assert not step.terminated[0]
    assert (step.obs["board"][1] >= 0).any()
    with pytest.raises(ValueError, match=r"expected actions of shape \(2,\), got \(3,\)"):
        env.step(torch.tensor([3, 4, 5]))


def test_wrong_seeds_are_refused_in_words() -> None:
    env = MinesweeperVecEnv(2, backend="torch")
    with pytest.raises(ValueError, match="expected one seed for each of 2 games, got 3"):
        env.reset([1, 2, 3])
    with pytest.raises(ValueError, match=r"seeds must lie in \[0, 2\*\*64\), got -5"):
        env.reset([1, -5])


@pytest.mark.parametrize("first_click", FIRST_CLICKS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_step_reads_no_value_and_stays_on_its_device(level: tuple[int, int, int], first_click: FirstClick) -> None:
    """On the meta device there are no values: whoever reads one, or mixes in a tensor from elsewhere, fails."""
    height, width, mines = level
    env = MinesweeperVecEnv(4, height, width, mines, first_click, backend="torch", device="meta")
    env.reset(range(4))
    action = torch.zeros(4, dtype=torch.int64, device="meta")
    with HostWaits() as waits:
        step = env.step(action)
        figures = env.episode_metrics()
    assert waits.found == []
    assert isinstance(step.obs, dict)
    for tensor in (*step.obs.values(), step.reward, step.terminated, step.truncated, *figures.values()):
        assert tensor.device.type == "meta"


def test_on_a_gpu_auto_means_torch_and_on_a_cpu_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def field(num_games: int, rules: Rules, shaping: float, device: torch.device) -> TorchMinefield:
        devices.append(device.type)
        return TorchMinefield(num_games, rules, shaping, CPU)

    monkeypatch.setattr("ppo_cli.envs.minesweeper.env.TorchMinefield", field)
    MinesweeperVecEnv(1, device="cpu")
    assert devices == []
    MinesweeperVecEnv(1, device="cuda")
    MinesweeperVecEnv(1, device="cpu", backend="torch")
    MinesweeperVecEnv(1, device="cuda", backend="numba")
    assert devices == ["cuda", "cpu"]
