"""Find, download, verify, unpack and keep the public archives of the real data sets.

An archive is looked for in this order:

1. `COURSE_DATA`, a folder of archives (`nuclei-dsb2018.zip`, …), for machines without a network and for classes;
2. the user's cache (`COURSE_CACHE`, else the system's cache folder), already unpacked;
3. the public archive, pinned by commit in `data/archives.json`:
   `https://github.com/<repository>/archive/<commit>.zip`, or that path on the server that `COURSE_MIRROR`
   names.

Only the folders that the course reads are unpacked. Verified are: that the file is a zip, that its top folder
is `<repository>-<commit>`, that no name leads out of the folder, the checksum of every file read, and, for
what `data/manifests/` lists, a SHA-256 digest. The zip file itself has no digest here: a public server may
pack it anew for every request, and the copies that classes hand round may be parts of it. The digests cover
train and val of nuclei and membranes, and of CamVid the labels of train and val. The rest (the test splits,
CamVid's images) rests on its checksum and on the commit in the address.

A copy is built beside its final location and moved there in one step, so a folder with a marker was complete; its files are
counted once in every process, since disks get cleaned. One process at a time works on an archive.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pooch

from course_lib import resources
from course_lib.datasets import disk
from course_lib.datasets.disk import expanded, progress_bar, say
from course_lib.datasets.download import CHUNK, MAX_BYTES, download_zip, server_of
from course_lib.datasets.errors import ArchiveDamaged, DataError, DataUnavailable, SplitUnavailable
from course_lib.datasets.splits import SPLITS, split_of

__all__ = [
    "Archive",
    "ArchiveDamaged",
    "DataError",
    "DataUnavailable",
    "SplitUnavailable",
    "archives",
    "cache_folder",
    "ensure",
    "locked",
    "pin",
    "status",
]

MANIFEST = resources.DATA / "archives.json"
PUBLIC = "https://github.com"
MARKER = ".complete"
"""The file that an unpacked copy has once it is whole and verified; it says what the copy holds."""
MARKED = {"format": 2, "public": bool, "commit": str, "pins": str, "splits": list, "files": int, "bytes": int}
"""What a marker says. A copy with another one, such as another version's, is made anew."""
MAX_FILES = 100_000
"""More files than any archive of the course holds."""
BAD_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
"""What the system says of names that no sound archive has: a file and a folder of one name, 300 letters."""


@dataclass(frozen=True)
class Archive:
    """One entry of `data/archives.json`: where a data set comes from, and which parts of it the course reads."""

    name: str
    title: str
    file: str
    repository: str
    commit: str
    folders: tuple[str, ...]
    pinned: str
    approximate_mb: int
    licence: str
    citation: str

    @property
    def top_folder(self) -> str:
        """The one folder at the top of the zip."""
        return f"{self.repository.split('/')[1]}-{self.commit}/"

    @property
    def url(self) -> str:
        """The address of the archive, on the public server or on the one that `COURSE_MIRROR` names."""
        server = os.environ.get("COURSE_MIRROR") or PUBLIC
        return f"{server.rstrip('/')}/{self.repository}/archive/{self.commit}.zip"


def archives() -> dict[str, Archive]:
    """The archives that the course knows, by name."""
    entries = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return {
        name: Archive(name, **{**entry, "folders": tuple(entry["folders"])})
        for name, entry in entries.items()
    }


def cache_folder() -> Path:
    """Where unpacked archives are kept: `COURSE_CACHE`, else a folder in the system's cache folder."""
    return expanded(os.environ.get("COURSE_CACHE") or pooch.os_cache("segmentation-course"))


def ensure(name: str, split: str | None = None, *, progress: bool = True) -> Path:
    """The folder of an unpacked, verified archive; found, or downloaded and unpacked if need be.

    Args:
        name: `"nuclei"`, `"membranes"` or `"camvid"`.
        split: the split that the archive must hold; `None` takes any that is here.
        progress: whether to report on standard error how far a download or unpacking is.

    Returns:
        The folder that stands for the top folder of the archive. Treat it as read-only.

    Raises:
        ValueError: if there is no archive of that name.
        DataUnavailable: if the archive is not here and cannot be downloaded.
        SplitUnavailable: if the archive does not hold the split.
        ArchiveDamaged: if a file is cut short, altered or foreign. One in `COURSE_DATA` is left as it is, one
            that was downloaded is removed.
        DataError: if the cache cannot be written: disk full, or no permission.
    """
    known = archives()
    if name not in known:
        raise ValueError(f"name is {name!r}; it must be one of {', '.join(known)}.")
    archive = known[name]

    if (given := _given(archive)) is not None:
        return _from_given(archive, given, split, progress)
    if problem := _place_problem():
        say(f"{name}: {problem}")
    folder = _cached(archive, split)
    if folder is None:
        with locked(name):
            folder = _cached(archive, split)
            if folder is None:  # another process may just have made it
                _tell_lacks(archive)
                folder = _from_network(archive, split, progress)
    _check_split(archive, split, _marker(folder)["splits"], "the public archive", "Choose another split.")
    return folder


def status() -> list[dict]:
    """Which data is on this machine; downloads and unpacks nothing.

    Returns:
        One dict per archive: `name`, `title`, `found` (`"COURSE_DATA"`, `"cache"` or `"absent"`), `splits` (a
        list), `bytes` (of the zip in `COURSE_DATA`, or unpacked in the cache; 0 where absent), `download_mb`
        (roughly), `licence`, `citation`, `url`, `looked_in` (the places, a list) and `problem` (a sentence, or `None`).
    """
    given_folder = os.environ.get("COURSE_DATA")
    places = [f"COURSE_DATA ({given_folder})"] if given_folder else []
    rows = []
    for archive in archives().values():
        found, splits, size, problem = "absent", [], 0, _place_problem()
        if (given := _given(archive)) is not None:
            found, size = "COURSE_DATA", given.stat().st_size
            try:
                splits = _splits(archive, (path for _, path in _contents(archive, given)))
            except _Damage as damage:
                problem = str(_given_damaged(given, damage))
        elif (folder := _cached(archive)) is not None:
            marker = _marker(folder)
            found, splits, size = "cache", marker["splits"], marker["bytes"]
        elif lacking := [reason for folder in _copies(archive) if (reason := _lack(archive, folder))]:
            problem = f"In the cache {lacking[0]}; the next call creates it again."
        row = {"name": archive.name, "title": archive.title, "found": found, "splits": splits, "bytes": size}
        row |= {
            "download_mb": archive.approximate_mb,
            "licence": archive.licence,
            "citation": archive.citation,
        }
        row |= {
            "url": archive.url,
            "looked_in": [*places, f"the cache ({cache_folder()})"],
            "problem": problem,
        }
        rows.append(row)
    return rows


def locked(name: str) -> AbstractContextManager[None]:
    """The lock that must be held to write an archive to the cache."""
    return disk.locked(cache_folder() / f"{name}.lock", name)


# The three places ---------------------------------------------------------------


def _given(archive: Archive) -> Path | None:
    """The archive's file in `COURSE_DATA`, if it is there."""
    folder = os.environ.get("COURSE_DATA")
    path = expanded(folder) / archive.file if folder else None
    return path if path is not None and path.is_file() else None


def _place_problem() -> str | None:
    """What is wrong with `COURSE_DATA` or `COURSE_CACHE` itself."""
    if cache_folder().exists() and not cache_folder().is_dir():
        return (
            f"COURSE_CACHE is {cache_folder()}, which is a file; it must be a folder. Correct it or unset it."
        )
    given = os.environ.get("COURSE_DATA")
    if not given or expanded(given).is_dir():
        return None
    what = "is a file" if expanded(given).exists() else "does not exist"
    return f"COURSE_DATA is {given}, which {what}; it must be a folder with the archives. Correct it or unset it."


def _from_given(archive: Archive, source: Path, split: str | None, progress: bool) -> Path:
    """The unpacked copy of an archive in `COURSE_DATA`, unpacked now if it is not yet."""
    try:
        wanted, folder = _plan(archive, source)
        held = _splits(archive, (path for _, path in wanted))
        _check_split(archive, split, held, str(source), "Unset COURSE_DATA to download the whole archive.")
        if not _is_whole(archive, folder):
            with locked(archive.name):
                if not _is_whole(archive, folder):  # another process may just have made it
                    _tell_lacks(archive)
                    _unpack(archive, source, wanted, folder, False, progress)
    except _Damage as damage:
        raise _given_damaged(source, damage) from None
    return folder


def _given_damaged(source: Path, damage: _Damage) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"{source} cannot be used: {damage}. "
        "Replace it with a fresh copy, or unset COURSE_DATA to download it."
    )


def _cached(archive: Archive, split: str | None = None) -> Path | None:
    """A copy in the cache: that of the public archive, else that of a part of it that holds the split."""
    fitting = []
    for folder in _copies(archive):
        marker = _marker(folder)
        if (marker["public"] or split is None or split in marker["splits"]) and _is_whole(archive, folder):
            fitting.append((marker["public"], folder))
    return max(fitting)[1] if fitting else None


def _copies(archive: Archive) -> list[Path]:
    """The folders in the cache that were whole once and checked against the digests of today."""
    pins = _digest(_pins(archive))
    folders = sorted(cache_folder().glob(f"{archive.name}-*"))
    return [folder for folder in folders if (marker := _marker(folder)) and marker["pins"] == pins]


def _is_whole(archive: Archive, folder: Path) -> bool:
    """Whether a copy has its marker and all files."""
    return _marker(folder) is not None and not _lack(archive, folder)


def _tell_lacks(archive: Archive) -> None:
    """Say which copies lack files, before they are made anew."""
    for folder in _copies(archive):
        if lack := _lack(archive, folder):
            say(f"{archive.name}: in the cache {lack}; it is created again")


def _lack(archive: Archive, folder: Path) -> str:
    """What a copy lacks, in words; empty where it is whole."""
    marker = _marker(folder)
    stamp = (folder / MARKER).stat().st_mtime_ns
    if not (lost := marker["files"] - _count(folder, archive.folders, stamp)):
        return ""
    gone = next((path for path in _pins(archive) if split_of(archive.name, path) in marker["splits"]
                 and not (folder / path).exists()), "")  # fmt: skip
    return f"{lost} of {marker['files']} files are missing" + (f", such as those of {gone}" if gone else "")


@functools.cache
def _count(folder: Path, inside: tuple[str, ...], stamp: int) -> int:
    """How many files lie in the folders that were unpacked, counted once in a process for each unpacking."""
    return sum(len(files) for name in inside for _, _, files in os.walk(folder / name))


def _check_split(archive: Archive, split: str | None, held: list[str], source: str, advice: str) -> None:
    if split is not None and split not in held:
        there = " and ".join(held) or "no split"
        raise SplitUnavailable(f"{archive.name}: {source} holds {there}, not {split}. {advice}")


def _marker(folder: Path) -> dict | None:
    """What the marker of an unpacked copy says, or `None` where the copy was never whole or is another version's."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or marker.keys() != MARKED.keys() or marker["format"] != MARKED["format"]:
        return None
    fits = all(isinstance(marker[key], kind) for key, kind in MARKED.items() if isinstance(kind, type))
    return marker if fits else None


def _from_network(archive: Archive, split: str | None, progress: bool) -> Path:
    """Download and unpack; what turns out damaged is removed, and fetched once more from the start."""
    given = os.environ.get("COURSE_DATA")
    what = f"{archive.name} ({split})" if split else archive.name
    what += f" is neither in COURSE_DATA ({given}) nor in the cache" if given else " is not on this machine"
    instead = f"set COURSE_DATA to a folder that holds {archive.file}"
    server = server_of(archive.url, what, instead)
    target = cache_folder() / archive.file
    for last in (False, True):
        if not target.is_file():  # it is there only if a process was killed before it had unpacked it
            if progress:
                size = f"about {archive.approximate_mb} MB"
                say(f"{archive.name}: {size} from {server}, licence: {archive.licence}")
            download_zip(archive.url, target, what, instead, progress)
        try:
            wanted, folder = _plan(archive, target)
            _unpack(archive, target, wanted, folder, True, progress)
        except _Damage as damage:
            target.unlink()
            if last:
                raise ArchiveDamaged(
                    f"{what}, and the file that {server} sent, twice, cannot be used: {damage}. It was removed; "
                    f"try again later, or {instead}."
                ) from None
        else:
            target.unlink()  # the unpacked copy serves from now on
            break
    return folder


# Verifying and unpacking ---------------------------------------------------------------


class _Damage(Exception):
    """What is wrong with a zip file; where it came from decides what the learner can do about it."""


def _contents(archive: Archive, source: Path) -> list[tuple[zipfile.ZipInfo, str]]:
    """The files that the course reads, each with its path below the top folder; every name is checked."""
    try:
        with zipfile.ZipFile(source) as packed:
            members = packed.infolist()
    except Exception as error:  # zipfile has many ways to say that a file is damaged
        raise _Damage(_what_instead(source, error)) from None

    wanted = []
    for member in members:
        path = _below_top(archive, member.filename)
        if member.is_dir() or not path.startswith(archive.folders):
            continue
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _Damage(f"{path} in it is a link where a plain file should be")
        wanted.append((member, path))
    if not wanted:
        raise _Damage(f"it contains nothing in {archive.folders[0]}")
    if len(wanted) > MAX_FILES or sum(member.file_size for member, _ in wanted) > MAX_BYTES:
        raise _Damage("unpacked it would be far larger than this data set")
    return wanted


def _what_instead(source: Path, error: Exception) -> str:
    try:
        with open(source, "rb") as file:
            start = file.read(4)
    except OSError:
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    if start == b"PK\x03\x04":
        return "it is cut short (the table of contents at its end is missing or damaged)"
    return "it is not a zip archive" if start else "it is empty"


def _below_top(archive: Archive, name: str) -> str:
    """The member's path below the top folder; refuses every name that could lead elsewhere, on any system."""
    parts = name.removesuffix("/").split("/")
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise _Damage(f"it contains a path that leads out of its folder ({name!r})")
    if parts[0] + "/" != archive.top_folder:
        raise _Damage(
            f"it is a different archive (its top folder is {parts[0]}, not {archive.top_folder[:-1]})"
        )
    return name[len(archive.top_folder) :]


def _plan(archive: Archive, source: Path) -> tuple[list[tuple[zipfile.ZipInfo, str]], Path]:
    """What to unpack, and where to: a folder named for the contents, so that none overwrites another."""
    wanted = _contents(archive, source)
    identity = _digest([_pins(archive), [(path, member.CRC, member.file_size) for member, path in wanted]])
    return wanted, cache_folder() / f"{archive.name}-{identity[:12]}"


def _unpack(
    archive: Archive,
    source: Path,
    wanted: list[tuple[zipfile.ZipInfo, str]],
    folder: Path,
    public: bool,
    progress: bool,
) -> None:
    """Unpack and verify. Only under the archive's lock."""
    for leftover in cache_folder().glob(f"{disk.PARTIAL}{archive.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with disk.replacing(folder) as partial:
        digests = _extract(archive, source, wanted, partial, progress)
        _check_pins(archive, digests)
        marker = {
            "format": MARKED["format"],
            "public": public,
            "commit": archive.commit,
            "pins": _digest(_pins(archive)),
            "splits": _splits(archive, digests),
            "files": len(wanted),
            "bytes": sum(member.file_size for member, _ in wanted),
        }
        (partial / MARKER).write_text(json.dumps(marker), encoding="utf-8")


def _extract(
    archive: Archive, source: Path, wanted: list[tuple[zipfile.ZipInfo, str]], folder: Path, progress: bool
) -> dict[str, str]:
    """Write the files below `folder`; their SHA-256 digests by path."""
    digests = {}
    bar = progress_bar(f"{archive.name}: unpacking", len(wanted), "files", progress)
    with zipfile.ZipFile(source) as packed, bar:
        for member, path in wanted:
            if path in digests:
                raise _Damage(f"it contains {path} twice")
            target = folder / path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                out = open(target, "wb")
            except OSError as error:
                if error.errno in BAD_NAMES:
                    raise _Damage(f"it contains a name that no file can have ({path[:80]!r})") from None
                raise
            digest = hashlib.sha256()
            with out:
                for block in _blocks(packed, member, path):
                    digest.update(block)
                    out.write(block)
            digests[path] = digest.hexdigest()
            bar.update()
    return digests


def _blocks(packed: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> Iterator[bytes]:
    """What a file of the zip holds. zipfile stops at the size in the table of contents, and compares checksums there."""
    try:
        with packed.open(member) as inside:
            while block := inside.read(CHUNK):
                yield block
    except Exception:  # whatever zipfile raises while it reads, OSError and LZMAError among it, is damage
        raise _Damage(f"it was altered (the checksum of {path} is wrong)") from None


def _check_pins(archive: Archive, digests: dict[str, str]) -> None:
    """Compare with `data/manifests/`: a split that is there must be whole, and be what it was when pinned."""
    pins = _pins(archive)
    found = pin(digests, pins)
    for split in _splits(archive, digests):
        expected = [path for path in pins if split_of(archive.name, path) == split]
        missing = [path for path in expected if path not in found]
        if missing:
            count = f"{len(missing)} of {len(expected)}"
            raise _Damage(f"{count} entries of its {split} split are missing, such as {missing[0]}")
    for path, digest in found.items():
        if digest != pins[path]:
            raise _Damage(f"it was altered ({path} is not the version that the course was written for)")


def pin(digests: dict[str, str], items: Iterable[str]) -> dict[str, str]:
    """One digest for each item, a file or a folder with all that is below it; items without a file are left
    out.

    Args:
        digests: SHA-256 of each file, by path.
        items: paths of files or of folders.

    Returns:
        By item, the first 32 hexadecimal digits of the SHA-256 over its sorted file names and their digests.
    """
    items, parts = set(items), {}
    for path in sorted(digests):
        for item in (path, *_parents(path)):
            if item in items:
                parts.setdefault(item, []).append((path[len(item) :], digests[path]))
    return {item: _digest(files)[:32] for item, files in parts.items()}


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _pins(archive: Archive) -> dict[str, str]:
    return json.loads((MANIFEST.parent / "manifests" / f"{archive.name}.json").read_text(encoding="utf-8"))


def _splits(archive: Archive, paths: Iterable[str]) -> list[str]:
    held = {split_of(archive.name, path) for path in paths}
    return [split for split in SPLITS if split in held]


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
