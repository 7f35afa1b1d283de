"""Reading and writing safely: named errors, atomic writes, disk space, fingerprints."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Stands in names of what is being written: machines that share an output root number processes alike.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_tidied: set[str] = set()
_tidying = threading.Lock()


class DataError(ValueError):
    """The data or a file is not usable; the message names it and the next step."""


def collected_error(problems: list[str], *, advice: str) -> DataError:
    """One error for many files.

    Parameters
    ----------
    problems : list of str
        One line a file: the first 20 are printed in full, the others counted.
    advice : str
        The next step to take, put last.
    """
    lines = [f"{len(problems)} problem(s) found:"] + [f"  - {line}" for line in problems[:20]]
    if len(problems) > 20:
        lines.append(f"  ... and {len(problems) - 20} more")
    return DataError("\n".join(lines + [advice]))


def shown(path: str | os.PathLike) -> str:
    """A path for people: relative where it lies near the current folder, else whole."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return str(path)
    return relative if relative.count("..") <= 1 else str(path)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name to write to, moved to ``path`` only when the block succeeds.

    The temporary file lies in the folder of ``path`` and keeps its ending, because OpenCV,
    nibabel and Keras choose the format by it. After an error it is removed, and an older file
    under ``path`` stays as it was. What a killed process left goes with the next one's first file
    in that folder.

    Raises
    ------
    DataError
        If the disk is full or the folder cannot be written; the message says where.
    """
    path = Path(path)
    temporary = path.with_name(_unfinished(path.name))
    try:
        with refusals_named(path):
            _make_tidy(path.parent)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # of a folder that could not be made, say
            temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(beside: str | os.PathLike) -> Iterator[Path]:
    """A folder below ``beside``, to be filled and moved from; what is left in it goes at the end.

    Raises
    ------
    DataError
        As :func:`atomic_path`.
    """
    with refusals_named(Path(beside)):
        _make_tidy(Path(beside))
        with TemporaryDirectory(prefix=_unfinished(""), dir=beside) as folder:
            yield Path(folder)


def _unfinished(name: str) -> str:
    return f".writing-{_MACHINE}-{os.getpid()}-{name}"


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Name the next step where a disk is full or does not let us write to ``path``: a DataError then."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left while writing {path}: free some, or set LITS_OUTPUT_ROOT to a "
                "folder on another disk"
            ) from error
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(
                f"cannot write {path} ({error.strerror}): give what it is named after a shorter name"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise DataError(
                f"cannot write {path} ({error.strerror}): set LITS_OUTPUT_ROOT to a writable folder"
            ) from error
        raise


def _make_tidy(folder: Path) -> None:
    """Make a folder, and at this process's first call remove what killed ones were writing there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # below /proc, say, which takes no folders
        raise DataError(f"cannot write {folder} ({error.strerror}): set LITS_OUTPUT_ROOT to a writable folder") from error
    place = os.path.realpath(folder)
    with _tidying:
        if place in _tidied:
            return
        _tidied.add(place)
        for path in folder.glob(".writing-*"):
            writer = re.match(rf"\.writing-{_MACHINE}-(\d+)-", path.name)
            if writer and not _runs(int(writer[1])):
                with suppress(OSError):  # Windows keeps a file that is open
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _runs(process: int) -> bool:
    """Whether another process of that number runs. On Windows, asking would end it: never."""
    if os.name == "nt" or process == os.getpid():  # our own number, of a container before this one
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def require_free_space(folder: str | os.PathLike, needed_bytes: int) -> None:
    """Raise DataError if the disk of ``folder`` has less than ``needed_bytes`` to spare."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DataError(
            f"{needed_bytes / 1e6:,.0f} MB are needed below {folder}, {free / 1e6:,.0f} MB are "
            "free: make room, or set LITS_OUTPUT_ROOT to a folder on another disk"
        )


def fingerprint(paths: Iterable[str | os.PathLike], *extra: object) -> str:
    """Sixteen hex digits that change when a file is added, removed, rewritten or touched.

    Built from each file's path, size and modification time, not from its contents, so that
    58,638 slices take about a second. A link that leads nowhere counts as a file, to be reported
    by whoever reads it. ``extra`` values (an image size, a version) enter too.

    Raises
    ------
    DataError
        If a file is no longer there, or cannot be asked for; the message names it.
    """
    digest = hashlib.sha256(repr(extra).encode())
    for path in paths:
        try:
            state = os.stat(path) if os.path.exists(path) else os.lstat(path)
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; it was there when the folder was searched: index it anew"
            ) from error
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write what JSON can hold, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_table(path: str | os.PathLike, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically; :func:`read_table` reads it."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: str | os.PathLike, columns: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV that this package wrote.

    Parameters
    ----------
    path : path
    columns : mapping
        What has to be there, and of which type. Empty cells of text are ``""``, and of numbers NaN.

    Raises
    ------
    DataError
        If the file cannot be read, is cut short, or of another version; it says to delete it.
    """
    import pandas as pd

    try:
        if b"\0" in Path(path).read_bytes():
            raise ValueError("it holds null bytes")
        table = pd.read_csv(path, dtype=columns)
        if missing := set(columns) - set(table):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (OSError, OverflowError, ValueError) as error:  # pandas' own are ValueErrors
        raise DataError(f"{path}: damaged, or of another version ({error}): delete this file, it is made anew") from error
    return table.fillna({name: "" for name, kind in columns.items() if kind is str})
