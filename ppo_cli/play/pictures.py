"""Moments as pictures: Minesweeper's window, or what the environment draws with a line below; several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ppo_cli.envs.minesweeper.env import MinesweeperVecEnv
from ppo_cli.play.agent import Agent, Moment, Score, side_by_side
from ppo_cli.play.board_picture import GREY, board_picture, write_ends
from ppo_cli.play.heat import heat

Picture = NDArray[np.uint8]

PAPER = (250, 250, 250)
SMALLEST_WIDTH = 320  # pixels; smaller frames are drawn several times as large
STRIP = 44  # pixels below a frame
MOST_BARS = 12
"""Actions whose probabilities are drawn as bars."""
BAR = 14  # pixels of a bar, with the space before it
GAP = 12  # pixels between two pictures


def pictures(agents: Sequence[Agent], seeds: Iterable[int], scores: Sequence[Score]) -> Iterator[tuple[Picture, bool]]:
    """Each moment of the episodes of ``seeds`` as one picture of all agents, and whether the episodes end with it.

    All pictures have one size. ``scores``, one for each agent, count the episodes as they end.
    """
    for seed in seeds:
        waiting = set(range(len(agents)))
        for moments in side_by_side(agents, seed):
            for index in [index for index in waiting if moments[index].done]:
                scores[index].add(moments[index])
                waiting.remove(index)
            rows = zip(agents, moments, scores, strict=True)
            yield (
                beside([picture(agent, moment, f"seed {seed}", score.text()) for agent, moment, score in rows]),
                not waiting,
            )


def picture(agent: Agent, moment: Moment, caption: str, note: str) -> Picture:
    """One agent's moment, uint8 [h, w, 3], with whose it is and how it has done."""
    caption = f"{agent.name}  {caption}".strip()
    if isinstance(agent.env, MinesweeperVecEnv):
        return board_picture(moment, agent.env.rules.mines, caption, note)
    return frame_picture(moment, caption, note)


def frame_picture(moment: Moment, caption: str, note: str) -> Picture:
    """The environment's own picture; below it the return, V(s), and the probabilities of a few actions as bars."""
    assert moment.frame is not None
    frame = Image.fromarray(moment.frame)
    if frame.width < SMALLEST_WIDTH:
        factor = -(-SMALLEST_WIDTH // frame.width)
        frame = frame.resize((frame.width * factor, frame.height * factor), Image.Resampling.NEAREST)
    sheet = Image.new("RGB", (frame.width, frame.height + STRIP), PAPER)
    sheet.paste(frame, (0, 0))
    draw = ImageDraw.Draw(sheet)
    draw.line([(0, frame.height), (frame.width, frame.height)], (210, 210, 210))
    state = f"step {moment.step}   return {moment.episode_return:.4g}" + (
        "" if moment.done else f"   V {moment.value:.4g}"
    )
    right = frame.width - 8
    if moment.probs is not None and len(moment.probs) <= MOST_BARS:
        right = _bars(draw, moment.probs, right, frame.height + STRIP - 9) - 10
    write_ends(draw, (8, right), frame.height + 5, state, "")
    write_ends(draw, (8, right), frame.height + 23, caption, note)
    return np.asarray(sheet)


def _bars(draw: ImageDraw.ImageDraw, probs: NDArray[np.float64], right: int, bottom: int) -> int:
    """A column for each action, as high as it is probable, ending at ``right``. Returns where they begin."""
    left = right - BAR * len(probs)
    for action, prob in enumerate(probs):
        x = left + BAR * action
        red, green, blue = (int(part) for part in heat(prob))
        draw.rectangle((x + 3, bottom - round((STRIP - 16) * prob), x + BAR - 1, bottom), (red, green, blue))
        draw.line([(x + 3, bottom + 1), (x + BAR - 1, bottom + 1)], GREY)
    return left


def beside(parts: Sequence[Picture]) -> Picture:
    """Pictures from left to right, with a gap; shorter ones have paper below."""
    height = max(len(part) for part in parts)
    paper = np.array(PAPER, np.uint8)
    columns: list[Picture] = []
    for part in parts:
        if columns:
            columns.append(np.broadcast_to(paper, (height, GAP, 3)))
        columns.append(np.concatenate([part, np.broadcast_to(paper, (height - len(part), part.shape[1], 3))]))
    return np.concatenate(columns, axis=1)
