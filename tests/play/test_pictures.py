from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppo_cli.envs.cartpole import CartPole
from ppo_cli.envs.gymnasium_adapter import GymnasiumVecEnv
from ppo_cli.envs.minesweeper.render import RED, render_rgb
from ppo_cli.play.agent import Moment, Score
from ppo_cli.play.board_picture import HEADER, NAVY, SMALLEST_WINDOW, board_picture
from ppo_cli.play.heat import heat
from ppo_cli.play.picture_files import PAUSE, Reel, contact_sheet, in_one_palette, write_pictures
from ppo_cli.play.pictures import GAP, STRIP, frame_picture, pictures
from tests.play.helpers import Preference, agent, minesweeper_agent

SIZE, EDGE = 48, 6  # of a cell on narrow boards, and of the frame's bevel
LEFT = (SMALLEST_WINDOW - 3 * SIZE) // 2  # of a board of two columns in its window


def moment(probs: list[float] | None, board: list[list[int]], choice: int = 0, win: float = 0.5) -> Moment:
    return Moment(
        step=3,
        episode_return=0.0,
        value=0.0,
        probs=None if probs is None else np.array(probs),
        action=None if probs is None else np.array(choice),
        done=probs is None,
        success=None,
        board=np.array(board, np.int8),
        win=win,
    )


def centre(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    """A pixel in the lower right of a cell, beside the pointer."""
    margin = SIZE // 2
    y, x = HEADER + margin - EDGE + (row + 1) * SIZE - 10, LEFT + margin + (column + 1) * SIZE - 10
    return tuple(picture[y, x].tolist())


def test_hidden_cells_have_the_colour_of_their_probability_and_shown_ones_do_not() -> None:
    drawn = board_picture(moment([0.0, 1.0, 0.25, 0.0], [[-1, -1], [-1, 0]], choice=1), 1, "", "")
    assert centre(drawn, 0, 0) == (192, 192, 192)
    assert centre(drawn, 0, 1) == tuple(np.floor(heat(1.0)).astype(int).tolist()) == (255, 122, 0)
    assert centre(drawn, 1, 0) == tuple(np.floor(heat(0.25)).astype(int).tolist())
    assert centre(drawn, 1, 1) == (192, 192, 192)


def test_a_board_without_a_choice_is_the_classic_picture() -> None:
    board = [[1, -1], [-2, 3]]
    drawn = board_picture(moment(None, board), 1, "", "")
    classic = render_rgb(board, SIZE)
    inside = slice(EDGE, -EDGE)
    height, width, _ = classic.shape
    place = slice(HEADER, HEADER + height - 2 * EDGE), slice(LEFT + EDGE, LEFT + width - EDGE)
    assert np.array_equal(drawn[place], classic[inside, inside])


@pytest.mark.parametrize("win", [0.0, 0.25, 0.5, 1.0])
def test_the_bar_is_as_long_as_the_win_estimate(win: float) -> None:
    drawn = board_picture(moment([1.0] * 36, [[-1] * 6] * 6, win=win), 1, "", "")
    columns = np.flatnonzero((drawn[78] == NAVY).all(axis=-1))
    full = board_picture(moment([1.0] * 36, [[-1] * 6] * 6, win=1.0), 1, "", "")
    longest = np.flatnonzero((full[78] == NAVY).all(axis=-1))
    length = np.ptp(columns) + 1 if len(columns) else 0
    assert abs(length - win * (np.ptp(longest) + 1)) <= 9


def test_the_counters_show_mines_and_clicks() -> None:
    three, four = (board_picture(moment([1.0] * 36, [[-1] * 6] * 6), mines, "", "") for mines in (3, 4))
    changed = np.argwhere((three != four).any(axis=-1))
    assert changed[:, 0].min() >= 17 and changed[:, 0].max() < 51 and changed[:, 1].max() < three.shape[1] // 2
    assert (three[17:51] == RED).all(axis=-1).any()


def test_heat_grows_warmer_with_every_step() -> None:
    colours = heat(np.linspace(0, 1, 50))
    assert (np.diff(colours[:, 2]) <= 0).all()
    assert tuple(heat(0.0)) == (192, 192, 192)


def test_two_agents_stand_side_by_side() -> None:
    ours = minesweeper_agent()
    (alone, _), *_ = pictures([ours], [1], [Score()])
    (pair, _), *_ = pictures([ours, minesweeper_agent()], [1], [Score(), Score()])
    width = alone.shape[1]
    assert pair.shape == (alone.shape[0], 2 * width + GAP, 3)
    assert np.array_equal(pair[:, :width], pair[:, width + GAP :])


def test_every_moment_is_a_picture_and_ends_are_marked() -> None:
    ours, score = minesweeper_agent(), Score()
    lengths = [len(list(ours.episode(seed))) for seed in (1, 2)]
    ends = [end for _, end in pictures([ours], [1, 2], [score])]
    assert len(ends) == sum(lengths)
    assert [index for index, end in enumerate(ends) if end] == [lengths[0] - 1, sum(lengths) - 1]
    assert score.episodes == 2


def shades(count: int) -> list[tuple[np.ndarray, bool]]:
    """Pictures of which each differs from the one before."""
    return [(np.full((7, 9, 3), 5 * index, np.uint8), index == count - 1) for index in range(count)]


def test_a_gif_has_a_frame_for_each_picture_repeats_and_pauses_at_the_end(tmp_path: Path) -> None:
    assert write_pictures(tmp_path / "game.gif", shades(5), fps=4) == 5
    with Image.open(tmp_path / "game.gif") as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (5, (9, 7), 0)
        durations, colours = [], []
        for index in range(5):
            file.seek(index)
            durations.append(file.info["duration"])
            colours.append(file.convert("RGB").getpixel((4, 4)))
    assert durations == [250, 250, 250, 250, 1000 * PAUSE]
    assert colours == [(5 * index,) * 3 for index in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["game.gif"]


def test_few_colours_are_kept_exactly_and_many_nearly() -> None:
    generator = np.random.default_rng(1)
    few = generator.integers(0, 6, (40, 40, 3), dtype=np.uint8) * 40
    many = np.stack(
        [*np.meshgrid(*[np.arange(64, dtype=np.uint8)] * 2, indexing="ij"), np.zeros((64, 64), np.uint8)], -1
    )
    (exact,) = in_one_palette(Reel([(few, True)]))
    (near,) = in_one_palette(Reel([(many, True)]))
    assert np.array_equal(np.asarray(exact.convert("RGB")), few)
    assert np.abs(np.asarray(near.convert("RGB")).astype(int) - many).max() <= 8


def test_minesweeper_keeps_within_a_gifs_colours() -> None:
    shown = list(pictures([minesweeper_agent(name="a name")], range(1, 6), [Score()]))
    frames = list(in_one_palette(Reel(shown)))
    errors = [
        np.abs(np.asarray(frame.convert("RGB")).astype(int) - picture).max(axis=-1)
        for frame, (picture, _) in zip(frames, shown, strict=True)
    ]
    assert np.mean(np.array(errors) > 8) < 0.005  # pixels on the smoothed edges of shapes


def test_a_png_is_a_sheet_of_at_most_24_with_the_first_and_the_last(tmp_path: Path) -> None:
    write_pictures(tmp_path / "sheet.png", shades(50), fps=4)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[0] % 7 == sheet.shape[1] % 9 == 0
    tiles = sheet[::7, ::9, 0].ravel()
    assert len(tiles) == 24 and tiles[0] == 0 and tiles[-1] == 245
    assert (np.diff(tiles.astype(int)) > 0).all()
    assert contact_sheet(Reel(shades(1))).shape == (7, 9, 3)


def test_a_film_is_readable_and_its_sides_are_even(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write_pictures(tmp_path / "game.mp4", shades(5), fps=10)
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "game.mp4"))
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / "game.mp4")))
    assert (frames, meta["size"], meta["fps"]) == (4 + 10 * PAUSE, (10, 8), 10)


def test_without_ffmpeg_a_film_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'ppo-cli\[video\]'"):
        write_pictures(tmp_path / "game.mp4", iter(()), fps=10)
    assert list(tmp_path.iterdir()) == []


def test_a_reel_gives_back_what_went_in() -> None:
    shown = shades(3)
    assert all(np.array_equal(ours, theirs) for ours, (theirs, _) in zip(Reel(shown), shown, strict=True))


def test_frames_of_an_environment_have_a_line_below() -> None:
    frame = np.zeros((100, 400, 3), np.uint8)
    one = Moment(3, 3.0, 0.5, np.array([0.1, 0.9]), np.array(1), done=False, success=None, frame=frame)
    drawn = frame_picture(one, "ours", "")
    assert drawn.shape == (100 + STRIP, 400, 3)
    assert not drawn[:100].any()
    red, green, blue = heat(0.9).astype(int).tolist()
    assert (drawn[100:] == (red, green, blue)).all(axis=-1).any()
    small = Moment(3, 3.0, 0.5, None, None, done=True, success=None, frame=frame[:50, :90])
    assert frame_picture(small, "ours", "").shape == (200 + STRIP, 360, 3)


class TestWithPygame:
    @pytest.fixture(autouse=True)
    def pygame(self) -> None:
        pytest.importorskip("pygame")

    def test_the_compiled_cartpole_looks_like_gymnasiums(self) -> None:
        import gymnasium

        ours, theirs = CartPole(1), gymnasium.make("CartPole-v1", render_mode="rgb_array")
        theirs.reset(seed=1)
        ours.reset([1])
        ours.carts.state[0] = theirs.unwrapped.state = np.array([0.4, 0.0, 0.1, 0.0])
        ours.step(__import__("torch").tensor([1]))
        theirs.step(1)
        assert np.array_equal(ours.frame(), theirs.render())

    def test_the_last_moment_of_an_episode_is_seen(self) -> None:
        """The cart that fell, not the one that starts next."""
        *_, last = agent(CartPole(1), Preference([1, 0]), with_frames=True).episode(1)
        assert last.frame is not None
        env = CartPole(1)
        env.reset([1])
        assert not np.array_equal(last.frame, env.frame())

    def test_a_gymnasium_environment_draws_its_last_moment(self) -> None:
        env = GymnasiumVecEnv(
            1, "FrozenLake-v1", {"render_mode": "rgb_array"}, vectorization="sync", autoreset="next_step"
        )
        *before, last = agent(env, Preference([2, 1, 0, 3]), with_frames=True).episode(3)
        assert last.done and last.frame is not None and before[0].frame is not None
        assert not np.array_equal(last.frame, before[0].frame)


def test_without_pygame_a_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    env = CartPole(1)
    env.reset([1])
    with pytest.raises(ValueError, match=r"pip install 'ppo-cli\[video\]'"):
        env.frame()
    lake = GymnasiumVecEnv(1, "FrozenLake-v1", {"render_mode": "rgb_array"}, vectorization="sync")
    with pytest.raises(ValueError, match=r"FrozenLake-v1 is drawn by pygame"):
        lake.frame()


def test_pictures_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken():
        yield from shades(2)
        raise RuntimeError("the agent broke")

    (tmp_path / "game.gif").write_bytes(b"an older film")
    with pytest.raises(RuntimeError):
        write_pictures(tmp_path / "game.gif", broken(), fps=4)
    assert (tmp_path / "game.gif").read_bytes() == b"an older film"
    assert len(list(tmp_path.iterdir())) == 1
