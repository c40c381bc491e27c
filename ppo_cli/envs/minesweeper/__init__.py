"""Minesweeper: `rules` says what the game is, `env` serves the trainer, `gymnasium_env` everybody else.

Nothing is imported here, so that looking at the package costs nothing.
"""
