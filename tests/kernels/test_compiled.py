"""Machine code is kept, found again, and never mistaken for that of other sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.options import DefaultOptions
from numpy.typing import NDArray

from ppo_cli.kernels import compiled
from ppo_cli.kernels.compiled import PACKAGE, SOURCES, cache_folder, is_kept, user_cache


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Answers are remembered: none from before, none for after."""
    for remembered in (cache_folder, is_kept):
        remembered.cache_clear()
    yield
    for remembered in (cache_folder, is_kept):
        remembered.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the kernels' sources."""
    for folder in SOURCES:
        shutil.copytree(PACKAGE / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiled, "PACKAGE", tmp_path)
    return tmp_path


def folder_now() -> Path:
    cache_folder.cache_clear()
    return cache_folder()


@pytest.mark.parametrize(
    "source", ["kernels/linear.py", "kernels/threads.py", "envs/cartpole.py", "envs/minesweeper/kernels_numba.py"]
)
def test_any_change_of_a_kernels_source_leads_to_another_folder(package: Path, source: str) -> None:
    path = package / source
    before = folder_now()
    assert folder_now() == before
    original = path.read_text()
    path.write_text(original + "\n# changed\n")
    assert folder_now() != before
    path.write_text(original)
    assert folder_now() == before


def test_a_kernel_written_in_a_new_file_leads_to_another_folder(package: Path) -> None:
    before = folder_now()
    (package / "envs/pendulum.py").write_text("GRAVITY = 10.0\n")
    assert folder_now() != before


def test_another_numba_leads_to_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder_now()
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert folder_now() != before


def test_named_folders_have_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/of/the/desktop")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert user_cache() == Path("/of/the/desktop")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/of/numba")
    assert user_cache() == Path("/of/numba")
    assert folder_now().parent == Path("/of/numba/ppo-cli")


def add_one(x: int) -> int:
    return x + 1


def test_other_modules_keep_numbas_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "ours"))
    before = numba.config.CACHE_DIR
    ours = compiled.compiled(add_one)
    assert before == numba.config.CACHE_DIR
    theirs = numba.njit(cache=True)(add_one)
    assert str(tmp_path / "ours") in ours.stats.cache_path  # type: ignore[attr-defined]
    assert str(tmp_path / "ours") not in theirs.stats.cache_path


PROGRAM = """
import sys
import numpy as np
from ppo_cli.kernels.random import mix
print(int(mix(np.uint64(3))), sum(mix.stats.cache_hits.values()), sum(mix.stats.cache_misses.values()))
"""


ACTING = """
import numpy as np
from ppo_cli.kernels.heads import Choices, Heads, Pooling, Readings, act_on_boards, new_scratch
random = np.random.default_rng(0)
def floats(*shape):
    return random.standard_normal(shape, dtype=np.float32)
heads = Heads(floats(1), floats(48), floats(8), floats(8), floats(1))
readings = Readings(floats(32, 81), floats(32, 64), np.zeros((32, 9, 9, 64), np.uint16))
choices = Choices(floats(32, 81), np.zeros(32, np.int64), floats(32), floats(32))
legal, noise = random.random((32, 81)) < 0.7, random.exponential(size=(32, 81)).astype(np.float32)
act_on_boards(heads, new_scratch(heads, 81, 32), Pooling(8, 6, False), readings, legal, noise, choices)
print(int.from_bytes(choices.log_probs.tobytes() + choices.value.tobytes(), "little") % (2**61 - 1),
      sum(act_on_boards.stats.cache_hits.values()), sum(act_on_boards.stats.cache_misses.values()))
"""


def run_with(cache: Path, program: str = PROGRAM) -> tuple[int, int, int]:
    """What a fresh process computes, how many kernels it found, and how many it had to compile."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    result, hits, misses = (int(word) for word in done.stdout.split())
    return result, hits, misses


def test_the_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    first = run_with(tmp_path)
    assert first[1:] == (0, 1)
    assert run_with(tmp_path) == (first[0], 1, 0)
    (folder,) = (tmp_path / "ppo-cli").iterdir()
    assert list(folder.rglob("*.nbc"))


def test_a_process_that_compiles_computes_what_one_that_loads_does(tmp_path: Path) -> None:
    """To the bit, also where the kernel calls others whose sums are reordered: it used to differ on boards."""
    compiling, loading = run_with(tmp_path, ACTING), run_with(tmp_path, ACTING)
    assert (compiling[1:], loading[1:]) == ((0, 1), (1, 0))
    assert compiling[0] == loading[0]


def test_kernels_work_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected, _, _ = run_with(tmp_path / "cache")
    for _ in range(2):  # nor did the first find another place, where other sources would meet its machine code
        assert run_with(tmp_path / "file")[:2] == (expected, 0)


def shared(folder: Path, mode: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_machine_code_that_others_could_have_put_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert is_kept()
    is_kept.cache_clear()
    shared(cache_folder(), mode)
    with pytest.warns(UserWarning, match="others can write"):
        assert not is_kept()


def test_a_folder_of_others_above_is_fine_only_if_they_cannot_move_ours(tmp_path: Path) -> None:
    parent = shared(tmp_path / "shared", 0o1777)
    assert compiled.is_private(shared(parent / "ours", 0o700))
    shared(parent, 0o777)
    assert not compiled.is_private(parent / "ours")


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getuid()
    ours = shared(tmp_path / "ours", 0o755)
    assert compiled.is_private(ours)
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert compiled.is_private(ours) is (own == 0)  # root may do everything anyway


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    before = os.umask(0)
    try:
        assert is_kept()
    finally:
        os.umask(before)
    assert cache_folder().stat().st_mode & 0o077 == 0
    assert cache_folder().parent.stat().st_mode & 0o077 == 0


def add_rows(rows: NDArray[np.float64], total: NDArray[np.float64]) -> None:
    for n in range(len(rows)):
        row = rows[n]
        for k in range(len(row)):
            total[k] += row[k]


def copy_rows(rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for n in range(len(rows)):
        out[n] = rows[n]


def machine_language(kernel: Callable[..., None], *arrays: NDArray[np.float64]) -> str:
    kernel(*arrays)
    (code,) = kernel.inspect_llvm().values()  # type: ignore[attr-defined]
    return str(code)


def test_only_kernels_that_make_arrays_count_who_refers_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_kept", lambda: False)
    rows, total = np.arange(6.0).reshape(3, 2), np.zeros(2)
    assert "NRT_incref" not in machine_language(compiled.vectorized(add_rows), rows, total)
    assert total.tolist() == [6, 9]
    out = np.zeros((3, 2))
    assert "NRT_incref" in machine_language(compiled.vectorized(copy_rows, allocates=True), rows, out)
    assert (out == rows).all()


def test_a_kernel_that_makes_arrays_without_saying_so_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_kept", lambda: False)
    with pytest.raises(numba.core.errors.NumbaRuntimeError, match="NRT required"):
        compiled.vectorized(copy_rows)(np.ones((3, 2)), np.zeros((3, 2)))


def test_a_numba_that_always_counts_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_kept", lambda: False)
    monkeypatch.delattr(DefaultOptions, "_nrt")
    out = np.zeros((3, 2))
    compiled.vectorized(copy_rows)(np.ones((3, 2)), out)
    assert out.all()
