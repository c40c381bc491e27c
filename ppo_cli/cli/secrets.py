"""Secrets of the shell's environment stay there: what is typed is printed, saved with the run and shared."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
"""Environment variables whose name ends so are not for a file."""

SHORTEST = 8  # characters; a shorter value is found in words by chance


def secret_problems(words: Iterable[str]) -> list[str]:
    """A sentence for each of ``words``, such as ``env.kwargs.token=...``, that holds a secret; without the secret."""
    secrets = {name: value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    return [
        f"{word.partition('=')[0] if '=' in word else 'a word'}=...: holds the value of the variable {name}, and "
        "settings are saved; let the code that needs it read the variable"
        for word in words
        for name, value in secrets.items()
        if value in word
    ]
