"""Write all of a file or nothing of it."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to. When the block ends well, the file is on the disk and takes its name; after an
    error nothing of it is left, and what was there before stays. A link of that name is replaced, not written through."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: many writers go by it.
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}{''.join(path.suffixes)}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that whoever looks sees the old one or the whole new one, never a half; text in UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, atomically."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
