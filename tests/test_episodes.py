from __future__ import annotations

import pytest
import torch

from ppo_cli.episodes import EpisodeWindow


def test_no_tag_exists_before_the_first_episode_ends():
    window = EpisodeWindow()
    window.add(torch.empty(0), torch.empty(0), {"minesweeper/win_rate": torch.empty(0)})
    assert window.metrics() == {}
    assert window.count == 0


def test_figures_of_three_episodes_by_hand():
    window = EpisodeWindow()
    window.add(torch.tensor([1.0, 3.0]), torch.tensor([10, 20]), {"minesweeper/win_rate": torch.tensor([0.0, 1.0])})
    window.add(torch.tensor([8.0]), torch.tensor([60]), {"minesweeper/win_rate": torch.tensor([1.0])})
    assert window.metrics() == {
        "charts/episodic_return": 4.0,
        "charts/episodic_length": 30.0,
        "minesweeper/win_rate": pytest.approx(2 / 3),
        "charts/episodic_return_std": pytest.approx((26 / 3) ** 0.5),  # deviations -3, -1, 4
        "charts/episodic_return_min": 1.0,
        "charts/episodic_return_max": 8.0,
        "charts/episodes": 3.0,
    }


def test_the_oldest_episodes_leave_a_full_window():
    window = EpisodeWindow(size=2)
    for episode_return in (100.0, 1.0, 2.0):
        window.add(torch.tensor([episode_return]), torch.tensor([1]))
    assert window.metrics()["charts/episodic_return"] == 1.5
    assert window.count == 3


def test_an_update_with_more_episodes_than_the_window_counts_them_all_and_the_next_one_does_not():
    window = EpisodeWindow(size=2)
    window.add(torch.tensor([0.0, 2.0, 4.0, 6.0]), torch.ones(4))
    assert window.metrics()["charts/episodic_return"] == 3.0
    window.add(torch.tensor([8.0]), torch.ones(1))
    assert window.metrics()["charts/episodic_return"] == 7.0


def test_a_restored_window_continues_as_if_never_stopped():
    window, restored = EpisodeWindow(size=3), EpisodeWindow(size=3)
    window.add(torch.tensor([1.0, 2.0]), torch.tensor([5, 6]), {"eval/x": torch.tensor([0.5, 0.25])})
    restored.load_state_dict(window.state_dict())
    for each in (window, restored):
        each.add(torch.tensor([7.0, 9.0]), torch.tensor([1, 2]), {"eval/x": torch.tensor([1.0, 1.0])})
    assert restored.metrics() == window.metrics()


def test_the_state_survives_a_weights_only_checkpoint(tmp_path):
    window = EpisodeWindow()
    window.add(torch.tensor([1.5]), torch.tensor([3]))
    torch.save(window.state_dict(), tmp_path / "state.pt")
    restored = EpisodeWindow()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.metrics() == window.metrics()


def test_a_window_of_no_episodes_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        EpisodeWindow(size=0)
