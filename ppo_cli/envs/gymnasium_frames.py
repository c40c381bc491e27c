"""Gymnasium's own pictures of an environment, without a window."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

RENDERERS = "ppo-cli[video]"
"""What installs the package that Gymnasium draws classic control and toy text with."""


def drawn(name: str, render: Callable[[], Any]) -> NDArray[np.uint8]:
    """The picture that ``render`` returns, uint8 [H, W, 3]; SDL opens no window for it and greets nobody.

    Raises:
        ValueError: a package is missing, or it returns something else.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        picture = render()
    except DependencyNotInstalled as error:
        if "pygame" in str(error):
            raise ValueError(f"{name} is drawn by pygame, which is not installed: pip install '{RENDERERS}'") from error
        raise ValueError(f"{name} cannot be drawn: {error}") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        raise ValueError(f"{name} cannot be drawn: its render() returned {type(picture).__name__}, expected uint8 RGB")
    return picture


def cartpole_frame(state: NDArray[Any]) -> NDArray[np.uint8]:
    """A cart and its pole in ``state`` [4], as Gymnasium's CartPole draws them."""
    renderer = _cartpole()
    renderer.state = state
    return drawn("CartPole", renderer.render)


@functools.cache
def _cartpole() -> Any:  # noqa: ANN401 - Gymnasium's class
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    return cast(Any, CartPoleEnv(render_mode="rgb_array"))
