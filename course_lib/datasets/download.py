"""Download one zip file over HTTP with pooch, which retries; an interrupted download starts again."""

import os
import shutil
import urllib.parse
from pathlib import Path

import pooch
import requests

from course_lib.datasets.disk import PARTIAL, disk_errors, progress_bar
from course_lib.datasets.errors import ArchiveDamaged, DataUnavailable

TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as dead."""
TRIES = 4
"""How often a download is begun before it is given up."""
MAX_BYTES = 2 * 1024**3
"""More than any archive of the course holds: what is larger is a mistake or an attack."""
CHUNK = 1 << 16


def download_zip(url: str, target: Path, label: str, instead: str, progress: bool = True) -> None:
    """Download a zip file to `target`, which exists only once the download is complete.

    What is in the zip is not looked at here. Only under a lock: it is written beside `target` first, in a folder of a
    fixed name.

    Args:
        url: the address.
        target: the file to write.
        label: what it is, for messages.
        instead: what the learner can do instead, for the end of a message: "set … to …".
        progress: whether to report on standard error how far it is.

    Raises:
        DataUnavailable: if the server cannot be reached, refuses, or keeps breaking off.
        ArchiveDamaged: if the server sends something that is not a zip file, or far too much.
        DataError: if the disk is full or may not be written.
    """
    server = server_of(url, label, instead)
    folder = target.with_name(f"{PARTIAL}{target.name}")
    pooch.get_logger().setLevel("CRITICAL")  # what it would say, the messages below say
    with disk_errors(target.parent):
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
        folder.mkdir(parents=True)
        try:
            name = target.name
            store = pooch.create(
                folder, "", registry={name: None}, urls={name: url}, retry_if_failed=TRIES - 1
            )
            store.fetch(name, downloader=_Downloader(label, server, instead, progress))
            os.replace(folder / name, target)
        except (requests.RequestException, ValueError) as error:
            raise DataUnavailable(
                f"{label}, and its download from {server} failed {TRIES} times in a row ({_reason(error)}). "
                f"Try again later, or {instead}."
            ) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def server_of(url: str, label: str, instead: str) -> str:
    """The server's name in an address.

    Raises:
        DataUnavailable: if it is not the address of a web server.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port or True):
            return parts.netloc
    except ValueError:  # such as http://[bad
        pass
    raise DataUnavailable(
        f"{label}, and {url} is not a web address. COURSE_MIRROR must begin with https://: set it, unset it, or {instead}."
    )


class _Downloader(pooch.HTTPDownloader):
    """Raises at once, as a `DataError`, what trying again cannot mend."""

    def __init__(self, label: str, server: str, instead: str, progress: bool):
        super().__init__(
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers={"User-Agent": "segmentation-course", "Accept-Encoding": "identity"},
        )
        self.label, self.server, self.instead, self.progress = label, server, instead, progress

    def __call__(self, url, output_file, pooch, check_only=False):
        with open(output_file, "wb") as file, progress_bar(self.server, None, "B", self.progress) as bar:
            try:
                super().__call__(url, _Checked(file, bar, self), pooch)
            except requests.HTTPError as error:
                if (status := error.response.status_code) < 500 and status != 429:
                    raise DataUnavailable(
                        f"{self.label}, and {self.server} answered {_reason(error)} to {url}. "
                        f"Check that address, or {self.instead}."
                    ) from None
                raise
            except requests.ConnectionError as error:
                if not file.tell() and _never_reached(error):
                    raise DataUnavailable(
                        f"{self.label}, and {self.server} cannot be reached ({_reason(error)}): "
                        f"connect to a network, or {self.instead}."
                    ) from None
                raise
            if not file.tell():
                raise ValueError("it sent nothing")


class _Checked:
    """The file that is written; it stops what does not begin like a zip, and what does not end."""

    def __init__(self, file, bar, downloader: _Downloader):
        self.file, self.bar, self.downloader, self.start = file, bar, downloader, b""

    def write(self, block: bytes) -> None:
        label, server, instead = self.downloader.label, self.downloader.server, self.downloader.instead
        self.start = (self.start + block[:4])[:4]
        if not b"PK\x03\x04".startswith(self.start):
            raise ArchiveDamaged(
                f"{label}, and {server} did not send a zip archive. "
                f"If this network has a login page, log in and try again, or {instead}."
            )
        self.file.write(block)
        self.bar.update(len(block))
        if self.file.tell() > MAX_BYTES:
            raise ArchiveDamaged(
                f"{label}, and {server} sent far more than this data set; the download was stopped and removed. "
                f"Check the address, or {instead}."
            )

    def flush(self) -> None:
        """Leaves it to the file: pooch would flush after every block."""


def _never_reached(error: requests.ConnectionError) -> bool:
    """Whether no connection came about, so that to wait a second is of no use."""
    return (
        isinstance(error, requests.ConnectTimeout)
        or "Failed to establish" in str(error)
        or "resolve" in str(error)
    )


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without what a terminal would obey."""
    if isinstance(error, requests.HTTPError):
        text = f"{error.response.status_code} {error.response.reason}"
    elif isinstance(error, requests.Timeout) or "timed out" in str(error):
        text = f"nothing came for {TIMEOUT:g} seconds"
    elif isinstance(error, requests.TooManyRedirects):
        text = "it sends from one address to the next"
    elif isinstance(error, requests.ConnectionError) and _never_reached(error):
        text = "no connection"
    elif isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        text = "the connection dropped"
    else:
        text = f"an unusable response, {type(error).__name__}"
    return "".join(letter for letter in text if letter.isprintable())[:200]
