"""How kernels are compiled: on the first call, free of the interpreter's lock, kept on disk for the next process."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import binding
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.options import DefaultOptions
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be reordered and products fused, so that loops use the vector units. NaN and infinity keep their meaning."""

PACKAGE = Path(__file__).parent.parent
SOURCES = ("kernels", "envs")
"""Where kernels are written: what one of them calls may stand in another's file."""


def _require_scipy() -> None:
    """As numba's ``ensure_blas``, without the import."""
    if find_spec("scipy") is None:
        raise ImportError("scipy is required for linear algebra")


def _spare_linear_algebra() -> None:
    """Keep numba from loading scipy.linalg, 12 MB, only to learn that it could.

    Kernels that multiply matrices through it, which none does here, load it when they are compiled.
    """
    linalg: Any = import_module("numba.np.linalg")
    previous = getattr(linalg, "ensure_blas", None)
    if previous is None:  # another numba
        return
    try:
        linalg.ensure_blas = _require_scipy
        import_module("numba.np.arraymath")  # asks where it is imported, and only there
    finally:
        linalg.ensure_blas = previous


_spare_linear_algebra()


class SelfContained(JITCodeLibrary):
    """A kernel's machine code with its own copy of each function that it calls.

    Copies are optimized for where they stand and may sum in different orders. Numba has a process use the copy that it
    meets first: where it compiles, that of the function alone; where it loads, that of the kernel which it loads first.
    """

    def _finalize_final_module(self) -> None:
        self._shared_module = self._final_module.clone()  # for kernels that call this one
        for function in self._shared_module.functions:
            if function.linkage == binding.Linkage.external and not function.is_declaration:
                function.linkage = binding.Linkage.linkonce_odr
        for function in self._final_module.functions:
            if function.linkage == binding.Linkage.linkonce_odr:
                function.linkage = binding.Linkage.internal
        super()._finalize_final_module()  # type: ignore[no-untyped-call]


class KernelCompiler(Compiler):
    """Numba's compiler, whose results are `SelfContained`."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:  # noqa: ANN401 (numba's)
        """As numba's."""
        library: Any = SelfContained(self.state.targetctx.codegen(), func.__qualname__)  # type: ignore[no-untyped-call]
        library.enable_object_caching()
        self.state.library = library
        return super().compile_extra(func)  # type: ignore[no-untyped-call]


def compiled(function: Function, *, allocates: bool = False, brief: bool = False) -> Function:
    """Machine code with the arithmetic as it is written.

    One that ``allocates`` makes arrays, or sets rows of an array to those of another, which may take a copy. All others
    work on memory that their caller holds, and do not count who refers to it. A ``brief`` one keeps the interpreter's
    lock: handing it over and waiting for it would take longer.
    """
    return _compiled(function, fastmath=False, allocates=allocates, nogil=not brief)


def vectorized(function: Function, *, allocates: bool = False, brief: bool = False) -> Function:
    """The same, but sums may be reordered."""
    return _compiled(function, fastmath=FAST_MATH, allocates=allocates, nogil=not brief)


def inlined(function: Function) -> Function:
    """As `vectorized`, and compiled only as a part of what calls it: each level of calls is else optimized anew."""
    return _compiled(function, fastmath=FAST_MATH, allocates=True, nogil=True, inline="always")


def in_llvm(generator: Callable[..., Any]) -> Any:  # noqa: ANN401 (a function without the first argument)
    """A function for kernels whose body ``generator`` writes in LLVM's language; called without the first argument."""
    return intrinsic(generator)


def _compiled(function: Function, *, allocates: bool, **options: Any) -> Function:  # noqa: ANN401 (as numba.njit's)
    options |= {"error_model": "numpy", "pipeline_class": KernelCompiler}
    if hasattr(DefaultOptions, "_nrt"):  # said either way: what is left out is taken from the kernel that calls
        options["_nrt"] = allocates
    settings: Any = numba.config
    previous = settings.CACHE_DIR
    try:
        settings.CACHE_DIR = str(cache_folder())  # read where the function is made, and only there
        return cast(Function, numba.njit(cache=is_kept(), **options)(function))
    finally:
        settings.CACHE_DIR = previous


@cache
def is_kept() -> bool:
    """Whether machine code can be kept here; if not, each process compiles anew.

    Numba would look for another folder, one that it shares with the machine code of other sources.
    """
    try:
        for folder in (cache_folder().parent, cache_folder()):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(cache_folder()):
            warnings.warn(f"others can write to {cache_folder()}: kernels are compiled anew each time", stacklevel=2)
            return False
        with tempfile.TemporaryFile(dir=cache_folder()):
            return True
    except OSError:
        return False


def is_private(folder: Path) -> bool:
    """Whether nobody but this user and root can put machine code into ``folder``, or another folder in its place."""
    if not hasattr(os, "getuid"):
        return True
    for path in [(real := folder.resolve()), *real.parents]:
        status = path.stat()
        is_shared = bool(status.st_mode & 0o002) or bool(status.st_mode & 0o020 and not is_own_group(status.st_gid))
        is_sticky = path != real and bool(status.st_mode & stat.S_ISVTX)  # /tmp: what lies in it stays its owner's
        if status.st_uid not in (os.getuid(), 0) or (is_shared and not is_sticky):
            return False
    return True


def is_own_group(group: int) -> bool:
    """Whether it is the group that many systems make for each user, called like him and his alone."""
    import grp
    import pwd

    with suppress(KeyError):
        found = grp.getgrgid(group)
        return found.gr_name == pwd.getpwuid(os.getuid()).pw_name and set(found.gr_mem) <= {found.gr_name}
    return False


@cache
def cache_folder() -> Path:
    """The machine code of exactly these sources.

    Numba looks at a kernel's own file for changes, not at the files of the kernels that were compiled into it.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sources():
        digest.update(path.read_bytes())
    return user_cache() / "ppo-cli" / f"kernels-{digest.hexdigest()[:16]}"


@cache
def sources_stamp() -> str:
    """What numba knows these sources by, besides: another copy of them, or one written anew, is compiled again."""
    stamps = "".join(f"{path}:{path.stat().st_mtime_ns}\n" for path in sources())
    return hashlib.sha256(stamps.encode()).hexdigest()[:16]


def sources() -> list[Path]:
    """The files that kernels are written in."""
    return [path for folder in SOURCES for path in sorted((PACKAGE / folder).rglob("*.py"))]


def user_cache() -> Path:
    """Where this user's programs keep what they can make again; ``NUMBA_CACHE_DIR`` has the last word."""
    if named := os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home()))
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
