"""Download one file over HTTP, and go on after a break where it stopped.

Public archive servers differ: some state no length, some know no byte ranges, some pack the file anew for
every request. So a part that lies there is gone on with only if the server answers with exactly the missing
range (206) of the same copy (ETag); any other good answer starts from zero.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from course_lib.datasets.disk import FULL, disk_errors
from course_lib.datasets.errors import ArchiveDamaged, DataUnavailable
from course_lib.datasets.progress import Progress

TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as dead."""
TRIES = 4
"""Tries in a row that bring nothing new before a download is given up."""
FIRST_PAUSE = 0.5
"""Seconds before the second try; every further pause is twice as long."""
MAX_BYTES = 2 * 1024**3
"""More than any archive of the course holds: what is larger is a mistake or an attack."""
CHUNK = 1 << 16


class _Broken(Exception):
    """A try that failed in a way that the next one may not: the connection dropped, the server was busy."""


class _NoConnection(_Broken):
    """A try that never reached the server."""


def download_zip(url: str, target: Path, label: str, instead: str, progress: bool = True) -> None:
    """Download a zip file to `target`, which exists only once it is whole.

    Until then the bytes lie in `<target>.part` and the server's ETag in `<target>.part.etag`; both stay after
    a break of the connection, for the next call, and go with any other failure. What is in the zip is not
    looked at here.

    Args:
        url: the address.
        target: the file to write.
        label: what it is, for messages.
        instead: what the learner can do instead, for the end of a message: "set … to …".
        progress: whether to report on standard error how far it is.

    Raises:
        DataUnavailable: if the server cannot be reached, refuses, or keeps breaking off.
        ArchiveDamaged: if the server sends something that is no zip file, or far too much.
        DataError: if the disk is full or may not be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DataUnavailable(
            f"{label}, and {url} is no web address. "
            f"Let COURSE_MIRROR begin with https://, unset it, or {instead}."
        )
    part = target.with_name(target.name + ".part")
    server = urllib.parse.urlsplit(url).netloc
    start = best = _size(part)
    failures = 0
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                _fetch(url, part, label, instead, progress)
                break
            except _Broken as broken:
                size = _size(part)
                failures = 1 if size > best else failures + 1
                best = max(best, size)
                if not size:
                    _discard(part)
                if isinstance(broken, _NoConnection) and best == start:
                    raise DataUnavailable(
                        f"{label}, and {server} cannot be reached ({broken}): "
                        f"connect to a network, or {instead}."
                    ) from None
                if failures == TRIES:
                    kept = f"; the {size / 1e6:.1f} MB that came are kept for the next call" if size else ""
                    raise DataUnavailable(
                        f"{label}, and its download from {server} failed {TRIES} times in a row "
                        f"({broken}){kept}. Call again later, or {instead}."
                    ) from None
                time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
            except OSError as error:
                if error.errno in FULL:
                    _discard(part)
                raise
        os.replace(part, target)
        _discard(part)


def _fetch(url: str, part: Path, label: str, instead: str, progress: bool) -> None:
    """One try: ask for what is missing in `part`, and append it."""
    server = urllib.parse.urlsplit(url).netloc
    have, tag = _size(part), _tag(part)
    headers = {"User-Agent": "segmentation-course", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag and not tag.startswith("W/"):  # a weak tag may not stand in If-Range
            headers["If-Range"] = tag

    with _open_url(urllib.request.Request(url, headers=headers), part, label, instead) as answer:
        new_tag = answer.headers.get("ETag") or ""
        length = answer.headers.get("Content-Length") or ""
        if answer.status == 206:
            begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if begin != str(have) or (tag and new_tag and tag != new_tag):
                _discard(part)
                raise _Broken("the server's copy changed in between")
            new_tag = new_tag or tag
        else:
            have = 0
        total = have + int(length) if length.isdigit() else None

        bar = Progress(f"{server}: downloading", total, "bytes", progress)
        with open(part, "ab" if have else "wb") as file:
            _tag_file(part).write_text(new_tag, encoding="utf-8")
            while block := _read(answer):
                if have == 0 and not b"PK\x03\x04".startswith(block[:4]):
                    file.close()
                    _discard(part)
                    raise ArchiveDamaged(
                        f"{label}, and {server} sent no zip archive but {answer.headers.get_content_type()}. "
                        f"If this network has a login page, log in and try again, or {instead}."
                    )
                file.write(block)
                have += len(block)
                if have > MAX_BYTES:
                    file.close()
                    _discard(part)
                    raise ArchiveDamaged(
                        f"{label}, and {server} sends far more than this data set; the download was stopped "
                        f"and removed. Check the address ({url}), or {instead}."
                    )
                bar.update(have)
        bar.close()

    # Where no length is stated, only the table of contents at a zip's end tells whether this is all of it.
    complete = have >= total if total is not None else zipfile.is_zipfile(part)
    if not complete:
        raise _Broken("the connection dropped")


def _open_url(
    request: urllib.request.Request, part: Path, label: str, instead: str
) -> http.client.HTTPResponse:
    """Send the request; what a further try may mend is raised as `_Broken`, what none can as
    `DataUnavailable`."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is longer than the server's copy
            _discard(part)
            raise _Broken("the server's copy changed in between") from None
        if error.code == 429 or error.code >= 500:
            raise _Broken(f"it answered {error.code} {error.reason}") from None
        server = urllib.parse.urlsplit(request.full_url).netloc
        raise DataUnavailable(
            f"{label}, and {server} answered {error.code} {error.reason} to {request.full_url}. "
            f"Check that address, or {instead}."
        ) from None
    except urllib.error.URLError as error:
        raise _NoConnection(getattr(error.reason, "strerror", None) or str(error.reason)) from None
    except TimeoutError:
        raise _NoConnection("no answer in time") from None
    except (http.client.HTTPException, ConnectionError):
        raise _Broken("the connection dropped") from None


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(CHUNK)
    except TimeoutError:
        raise _Broken(f"nothing came for {TIMEOUT:g} seconds") from None
    except (http.client.HTTPException, OSError):
        raise _Broken("the connection dropped") from None


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _tag(part: Path) -> str:
    return _tag_file(part).read_text(encoding="utf-8") if _tag_file(part).is_file() else ""


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
