"""A small text that stands for something huge is refused before it is built; what a run writes is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ppo_cli.bounded_yaml import DEEPEST, LARGEST, MOST_VALUES, read_bounded, require_bounded

TENFOLD = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def refusal(text: str) -> str | None:
    """Why the text is refused, if it is."""
    try:
        require_bounded(text)
    except yaml.YAMLError as error:
        return str(error)
    return None


@given(plain)
def test_what_yaml_writes_of_plain_values_is_allowed(value: object) -> None:
    text = yaml.safe_dump([value, value])  # the second one is an alias of the first, where it is a list
    assert refusal(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(TENFOLD), f"more than {MOST_VALUES:,} values"),
        ("a: &a [*a]", f"more than {MOST_VALUES:,} values"),
        ("[&a [1], &a [*a]]", f"more than {MOST_VALUES:,} values"),
        ("a: *nothing", f"more than {MOST_VALUES:,} values"),
        ("[" * 100_000, f"more than {DEEPEST} levels deep"),
        ("{a: " * 1000, f"more than {DEEPEST} levels deep"),
        ("- 1\n" * (MOST_VALUES + 1), f"more than {MOST_VALUES:,} values"),
        ("a: [", "expected (the )?node content"),
    ],
)
def test_what_grows_beyond_all_bounds_is_refused(text: str, reason: str) -> None:
    with pytest.raises(yaml.YAMLError, match=reason):
        require_bounded(text)


@pytest.mark.parametrize(
    ("text", "count"), [("[1, 2]", 3), ("{a: 1}", 3), ("[&x [1], *x, *x]", 7), ("[&x {a: [&y b, *y]}, *x, *y]", 12)]
)
def test_an_alias_counts_as_much_as_what_it_stands_for(monkeypatch: pytest.MonkeyPatch, text: str, count: int) -> None:
    monkeypatch.setattr("ppo_cli.bounded_yaml.MOST_VALUES", count)
    assert refusal(text) is None
    monkeypatch.setattr("ppo_cli.bounded_yaml.MOST_VALUES", count - 1)
    assert refusal(text) is not None


def test_a_huge_file_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(yaml.YAMLError, match=f"{LARGEST:,} are allowed"):
        read_bounded(tmp_path / "huge.yaml")
    with pytest.raises(OSError, match="not a file"):
        read_bounded(tmp_path)
