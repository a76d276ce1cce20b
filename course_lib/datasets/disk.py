"""Write everything or nothing: folders built beside their final location, a lock, and clear messages for a full
disk."""

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from course_lib.datasets.errors import DataError

PARTIAL = "partial-"
"""What the name of a folder begins with while it is being built."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT)


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home folder; one of nobody stays as it is, where `Path.expanduser` gives up."""
    return Path(os.path.expanduser(path))


def say(line: str) -> None:
    """One line on standard error, so that it never mixes with a command's output."""
    print(line, file=sys.stderr, flush=True)


def progress_bar(label: str, total: int | None, unit: str, show: bool = True) -> tqdm:
    """A bar on standard error, shown once a step takes longer than a second; `unit` `"B"` counts bytes."""
    return tqdm(
        desc=label, total=total, unit=unit, unit_scale=unit == "B", delay=1, disable=not show, leave=False
    )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Build a folder beside its final location, and move it there when it is complete; after an error nothing of it
    is left.

    Only under a lock: the temporary folder has a fixed name, so that the remains of a killed process are removed.

    Raises:
        DataError: if the disk is full or may not be written.
    """
    partial = folder.with_name(PARTIAL + folder.name)
    with disk_errors(folder.parent):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def disk_errors(folder: Path, instead: str = "set COURSE_CACHE to a folder of your own") -> Iterator[None]:
    """Turn an error of the disk into one sentence that says what to do.

    Args:
        folder: what is written to.
        instead: what to do where it cannot be.

    Raises:
        DataError: if the disk is full or may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"The disk that holds {folder} is full; the unfinished files there have been removed. "
                f"Free some space, or {instead}, on another disk."
            ) from None
        if error.errno in FORBIDDEN:
            raise DataError(
                f"The folder {folder} cannot be written ({error.strerror}). {instead[:1].upper()}{instead[1:]}."
            ) from None
        raise


@contextmanager
def locked(
    path: Path, label: str, instead: str = "set COURSE_CACHE to a folder of your own"
) -> Iterator[None]:
    """Let one process at a time into the block; the system drops the lock when its process ends, however it
    ends.

    Args:
        path: the lock's file. It stays, empty: to remove it would let two processes hold two locks of one
            name.
        label: what is being prepared, for the line that a waiting process prints.
        instead: what to do where the folder cannot be written.
    """
    with disk_errors(path.parent, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b")
    with file:
        if not _try_lock(file):
            say(f"{label}: waiting for another process that is preparing it")
            while not _try_lock(file):
                time.sleep(0.1)
        yield  # closing the file drops the lock


def _try_lock(file) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network disks know no locks. To go on without one is better than never to start.
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
