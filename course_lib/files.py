"""Write a file completely or not at all, and turn errors of the disk into plain words."""

import errno
import json
import os
import tempfile
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADVICE = {
    errno.ENOSPC: "free some space, or choose a folder on another disk",
    errno.EDQUOT: "free some space, or choose a folder on another disk",
    errno.EACCES: "change its permissions, or choose another folder",
    errno.EPERM: "change its permissions, or choose another folder",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EEXIST: "there is a file where a folder is needed; choose another path",
    errno.ENOTDIR: "there is a file where a folder is needed; choose another path",
    errno.EISDIR: "there is a folder where a file is needed; choose another path",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What to do about what the system refuses."""


def in_words(error: OSError) -> str:
    """A system's error as a sentence: the file, the reason, what to do."""
    if error.errno is None or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename
    named = "" if name is None or isinstance(name, int) else f"{os.fsdecode(name)}: "
    advice = ADVICE.get(error.errno)
    return f"{named}{error.strerror}{f'; {advice}' if advice else ''}."


def disk_name(name: str) -> str:
    """What two names have in common that some disks take for one: x and X, two ways to write ü."""
    return unicodedata.normalize("NFC", name).casefold()


def check_writable(folder: Path) -> None:
    """Raise an `OSError` if `folder`, or the folder in which it would be made, cannot be written; nothing is left there."""
    folder = Path(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to. When the block ends well, the file is on the disk and takes its name; after an
    error nothing of it is left, and what was there before stays. A link of that name is replaced, not written through."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: many writers go by it. A stem may hold points too, and a name has at most 255 letters.
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}{''.join(path.suffixes)[-16:]}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno is not None and str(error.filename) in ("None", str(unfinished)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Make a file of that many bytes, so that a full disk is an `OSError` now; where the system can."""
    with open(path, "wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:  # some file systems cannot; that is no reason to stop
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, str(path)) from None


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that every reader sees either the old file or the complete new one; text in UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, atomically."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
