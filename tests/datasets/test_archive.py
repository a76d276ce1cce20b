"""Finding, downloading, verifying and unpacking archives, against a server on this machine.

`pytest -s tests/datasets/test_archive.py -k messages` prints what the learner reads in each failure.
"""

import errno
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest
from PIL import Image

from course_lib.datasets import archive, download, real
from course_lib.datasets.archive import ArchiveDamaged, DataError, DataUnavailable, SplitUnavailable

PROJECT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOP = f"stack-{COMMIT}/"
FILE = "membranes.zip"
FOLDER = "data/membrane/train/"


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def train_and_val() -> dict[str, bytes]:
    """A small archive in the layout of the membranes: slices 0 and 1 are train, 20 and 21 are val."""
    files = {"README.md": b"not read by the course"}
    for number in (0, 1, 20, 21):
        files[f"{FOLDER}image/{number}.png"] = png(number)
        files[f"{FOLDER}label/{number}.png"] = png(100 + number)
    return files


def zipped(files: dict[str, bytes], top: str = TOP) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(top + name, content)
    return file.getvalue()


def flipped(body: bytes) -> bytes:
    """One bit of one picture flipped: its checksum no longer fits, the rest of the zip does."""
    position = body.index(png(20)[40:60])
    return body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]


class Server:
    """A server: `manner(handler, server)` answers, a test sets it; `requests` lists the ranges asked for."""

    def __init__(self):
        self.body, self.tag, self.requests = b"", '"first"', []
        self.manner = polite
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append(self.headers.get("Range"))
                outer.path = self.path
                self.close_connection = True
                outer.manner(self, outer)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that hangs up is part of the tests
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def answer(handler, status: int, headers: dict, body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def polite(handler, server, sent: int | None = None) -> None:
    """Knows ranges, `If-Range` and lengths; hangs up after `sent` bytes."""
    asked, known = handler.headers.get("Range"), handler.headers.get("If-Range")
    headers = {"ETag": server.tag, "Content-Type": "application/zip"}
    if asked and known in (None, server.tag):
        start, size = int(asked.removeprefix("bytes=").rstrip("-")), len(server.body)
        if start >= size:
            return answer(handler, 416, {"Content-Range": f"bytes */{size}", "Content-Length": 0}, b"")
        headers |= {"Content-Range": f"bytes {start}-{size - 1}/{size}", "Content-Length": size - start}
        return answer(handler, 206, headers, server.body[start:][:sent])
    return answer(handler, 200, headers | {"Content-Length": len(server.body)}, server.body[:sent])


def hanging_up(sent: int):
    """Every answer ends after `sent` bytes."""
    return lambda handler, server: polite(handler, server, sent)


def without_ranges(handler, server, sent: int | None = None) -> None:
    answer(handler, 200, {"Content-Length": len(server.body)}, server.body[:sent])


def without_length(handler, server) -> None:
    """As old servers do: the end of the connection is the end of the file."""
    answer(handler, 200, {"Connection": "close"}, server.body)


def in_chunks(handler, server, sent: int | None = None) -> None:
    """As the public archive does: chunked, no length, no ranges; cut off if `sent` is given."""
    body = server.body[:sent]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:700], body[700:]) if part)
    answer(handler, 200, {"Transfer-Encoding": "chunked"}, chunks + (b"" if sent else b"0\r\n\r\n"))


def refusing(status: int):
    return lambda handler, server: answer(handler, status, {"Content-Length": 0}, b"")


def in_turn(*manners):
    """Another manner for each request, the last one for all that follow."""
    left = list(manners)
    return lambda handler, server: (left.pop(0) if len(left) > 1 else left[0])(handler, server)


class World:
    """A cache, a folder of archives, a server, and a manifest with one small archive in it."""

    def __init__(self, folder: Path, server: Server, monkeypatch):
        self.folder, self.server, self.monkeypatch = folder, server, monkeypatch
        self.cache, self.given, self.manifest = folder / "cache", folder / "given", folder / "archives.json"
        self.given.mkdir()
        (folder / "manifests").mkdir()
        self.files = train_and_val()
        entry = {
            "title": "a stack",
            "file": FILE,
            "repository": "someone/stack",
            "commit": COMMIT,
            "folders": [f"{FOLDER}image/", f"{FOLDER}label/"],
            "pinned": "",
            "approximate_mb": 1,
            "licence": "free",
            "citation": "nobody",
        }
        self.manifest.write_text(json.dumps({"membranes": entry}))
        digests = {name: sha256(content).hexdigest() for name, content in self.files.items()}
        pins = archive.pin(digests, [name for name in digests if name.startswith(FOLDER)])
        (folder / "manifests" / "membranes.json").write_text(json.dumps(pins))
        server.body = zipped(self.files)
        monkeypatch.setattr(archive, "MANIFEST", self.manifest)
        monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setattr(download, "TIMEOUT", 0.3)
        monkeypatch.setenv("COURSE_CACHE", str(self.cache))
        monkeypatch.setenv("COURSE_MIRROR", server.address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("COURSE_DATA", raising=False)

    def give(self, body: bytes) -> None:
        """Put an archive into `COURSE_DATA`."""
        (self.given / FILE).write_bytes(body)
        self.monkeypatch.setenv("COURSE_DATA", str(self.given))

    def go_offline(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.monkeypatch.setenv("COURSE_MIRROR", f"http://127.0.0.1:{free.getsockname()[1]}")

    def cached(self) -> set[str]:
        """What lies in the cache, locks left out."""
        return (
            {path.name for path in self.cache.glob("*") if path.suffix != ".lock"}
            if self.cache.is_dir()
            else set()
        )

    def run(self, code: str) -> subprocess.Popen:
        """Another process that has the same cache, server and manifest."""
        start = f"""
            import sys, time
            from pathlib import Path
            from course_lib.datasets import archive, download
            archive.MANIFEST = Path({str(self.manifest)!r})
        """
        code = textwrap.dedent(start) + textwrap.dedent(code)
        return subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)

    def is_whole(self, folder: Path) -> bool:
        expected = {name: content for name, content in self.files.items() if name.startswith(FOLDER)}
        found = {
            str(path.relative_to(folder).as_posix()): path.read_bytes() for path in folder.rglob("*.png")
        }
        return found == expected and (folder / archive.MARKER).is_file()


@pytest.fixture
def world(tmp_path, monkeypatch):
    server = Server()
    yield World(tmp_path, server, monkeypatch)
    server.close()


def full_disk(monkeypatch, module, room: int) -> None:
    """Files that the module opens for writing take `room` bytes together, then the disk is full."""
    left = [room]

    class Full(io.FileIO):
        def write(self, data):
            if len(data) > left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= len(data)
            return super().write(data)

    def opening(path, mode="r", **kwargs):
        return Full(path, mode.replace("b", "")) if mode in ("wb", "ab") else open(path, mode, **kwargs)

    monkeypatch.setattr(module, "open", opening, raising=False)


# What goes well ------------------------------------------------------------


def test_downloads_verifies_and_unpacks_only_what_the_course_reads(world, capfd):
    folder = archive.ensure("membranes")
    assert world.is_whole(folder)
    assert not (folder / "README.md").exists()
    assert world.server.path == f"/someone/stack/archive/{COMMIT}.zip"
    assert world.cached() == {folder.name}, "neither the zip nor a part of it stays"
    assert "membranes: about 1 MB from 127.0.0.1" in capfd.readouterr().err


def test_says_nothing_where_no_progress_is_wanted(world, capfd):
    archive.ensure("membranes", progress=False)
    assert capfd.readouterr() == ("", "")


def test_second_call_works_offline_and_asks_nobody(world):
    first = archive.ensure("membranes")
    world.go_offline()
    assert archive.ensure("membranes", "val") == first
    assert world.server.requests == [None]


def test_given_archives_come_first_and_stay_as_they_are(world):
    world.give(zipped(world.files))
    before = (world.given / FILE).stat()
    folder = archive.ensure("membranes")
    assert world.is_whole(folder) and world.server.requests == []
    assert (world.given / FILE).stat().st_mtime_ns == before.st_mtime_ns
    world.monkeypatch.delenv("COURSE_DATA")
    world.go_offline()
    assert archive.ensure("membranes") == folder, "what was unpacked once serves on without the folder"


def test_a_part_of_the_archive_never_hides_the_whole(world):
    train = {name: content for name, content in world.files.items() if "/2" not in name}
    world.give(zipped(train))
    part = archive.ensure("membranes", "train")
    with pytest.raises(SplitUnavailable):
        archive.ensure("membranes", "val")
    world.monkeypatch.delenv("COURSE_DATA")
    whole = archive.ensure("membranes", "val")
    assert whole != part and world.is_whole(whole)
    assert archive.ensure("membranes", "train") == whole, "of two copies the public one is taken"


def test_a_split_that_the_public_archive_lacks_is_not_downloaded_for_again_and_again(world):
    for _ in range(2):
        with pytest.raises(SplitUnavailable, match="the public archive holds train and val, not test"):
            archive.ensure("membranes", "test")
    assert world.server.requests == [None]


def test_the_same_contents_packed_anew_are_not_unpacked_again(world):
    world.give(zipped(world.files))
    first = archive.ensure("membranes")
    world.give(zipped(dict(reversed(world.files.items()))))
    (world.given / FILE).touch()
    second = archive.ensure("membranes")
    world.give(zipped({**world.files, "README.md": b"another text, which the course does not read"}))
    assert archive.ensure("membranes") == first
    assert world.is_whole(second)


def cut_off(manner):
    """The first answer ends in the middle of the file."""
    return in_turn(lambda *at: manner(*at, sent=1000), manner)


@pytest.mark.parametrize(
    "manner",
    [
        without_ranges,
        without_length,
        in_chunks,
        cut_off(polite),
        cut_off(without_ranges),
        cut_off(in_chunks),
        in_turn(
            lambda handler, server: answer(handler, 200, {"Connection": "close"}, server.body[:1000]),
            without_length,
        ),
    ],
)
def test_servers_of_all_manners(world, manner):
    world.server.manner = manner
    assert world.is_whole(archive.ensure("membranes"))


def test_a_damaged_zip_in_the_cache_is_removed_and_fetched_again(world):
    world.cache.mkdir()
    (world.cache / FILE).write_bytes(flipped(world.server.body))
    folder = archive.ensure("membranes")
    assert world.is_whole(folder) and world.cached() == {folder.name}


def test_a_busy_server_is_asked_again(world):
    world.server.manner = in_turn(refusing(503), refusing(429), polite)
    assert world.is_whole(archive.ensure("membranes"))


def test_an_unpacked_copy_without_its_marker_is_made_anew(world):
    folder = archive.ensure("membranes")
    (folder / archive.MARKER).unlink()
    next(folder.rglob("*.png")).unlink()
    assert archive.ensure("membranes") == folder
    assert world.is_whole(folder)


@pytest.mark.parametrize("source", ["network", "COURSE_DATA"])
def test_a_half_emptied_copy_is_made_anew_and_never_used(world, source, capfd):
    """Cleaners of temporary folders remove old files; the sets would be smaller without a word."""
    if source == "COURSE_DATA":
        world.give(zipped(world.files))
    folder = archive.ensure("membranes")
    (folder / FOLDER / "image" / "20.png").unlink()
    archive._count.cache_clear()  # as in another process
    row = archive.status()[0]
    if source == "network":
        assert row["found"] == "absent" and "1 of 8 files are missing, such as those of" in row["problem"]
    capfd.readouterr()
    assert [sample.name for sample in real.membranes("val")] == ["20", "21"]
    assert world.is_whole(folder) and capfd.readouterr().err.count("20.png; it is created again") == 1

    shutil.rmtree(folder / FOLDER / "image")
    archive._count.cache_clear()
    world.monkeypatch.delenv("COURSE_DATA", raising=False)
    world.go_offline()
    with pytest.raises(DataUnavailable, match="cannot be reached"):
        real.membranes("train")
    assert "4 of 8 files are missing" in capfd.readouterr().err


@pytest.mark.parametrize(
    "marker",
    [
        '{"commit": "x"}',
        '"x"',
        "5",
        "{}",
        "[]",
        "null",
        "",
        "\xff",
        '{"public": 1, "pins": 2, "splits": 3, "bytes": 4}',
    ],
)
def test_a_marker_of_another_version_is_none(world, marker):
    folder = archive.ensure("membranes")
    (folder / archive.MARKER).write_text(marker, encoding="latin-1")
    assert archive.status()[0]["found"] == "absent"
    assert archive.ensure("membranes") == folder and world.is_whole(folder)


def test_a_marker_that_lacks_or_changes_a_single_key_is_none(world):
    folder = archive.ensure("membranes")
    whole = json.loads((folder / archive.MARKER).read_text())
    for key in whole:
        for changed in ({k: v for k, v in whole.items() if k != key}, whole | {key: None}):
            (folder / archive.MARKER).write_text(json.dumps(changed))
            assert archive._marker(folder) is None, (key, changed)


def test_a_zip_that_is_damaged_in_any_way_leaves_the_cache(world):
    """Some damage surfaces as OSError or LZMAError; the file stayed, and every later call failed."""
    good, bad = (
        world.server.body,
        [with_method(world, zipfile.ZIP_LZMA), with_method(world, zipfile.ZIP_BZIP2)],
    )
    for body in (*bad, moved_table(world)):
        shutil.rmtree(world.cache, ignore_errors=True)
        world.server.body = body
        world.server.manner = in_turn(without_ranges, lambda handler, server: answer(handler, 200, {}, good))
        assert world.is_whole(archive.ensure("membranes"))
    assert len(world.cached()) == 1


def test_every_flipped_bit_is_one_error_or_no_harm(world):
    """The table of contents, the headers and the end record, bit by bit; a sample of them in each run of the tests."""
    body = zipped(world.files)
    table = body.index(b"PK\x01\x02")
    rng = np.random.default_rng(0)
    for position in {*rng.integers(table, len(body), 120), *range(len(body) - 22, len(body)), *range(30)}:
        changed = bytearray(body)
        changed[position] ^= 1 << int(rng.integers(8))
        world.give(bytes(changed))
        try:
            folder = archive.ensure("membranes", progress=False)
        except ArchiveDamaged as error:
            assert "[Errno" not in str(error)
        else:
            assert world.is_whole(folder)
        shutil.rmtree(world.cache, ignore_errors=True)
        archive._count.cache_clear()


def test_course_data_that_is_no_folder_is_told(world, capfd):
    archive.ensure("membranes")
    for place, words in ((world.folder / "nowhere", "does not exist"), (world.manifest, "is a file")):
        world.monkeypatch.setenv("COURSE_DATA", str(place))
        capfd.readouterr()
        archive.ensure("membranes")
        assert f"COURSE_DATA is {place}, which {words}; it must be a folder" in capfd.readouterr().err
        row = archive.status()[0]
        assert words in row["problem"] and row["looked_in"] == [
            f"COURSE_DATA ({place})",
            f"the cache ({world.cache})",
        ]


def test_a_place_for_the_cache_that_is_none_is_told(world):
    world.monkeypatch.setenv("COURSE_CACHE", str(world.manifest))
    assert "which is a file; it must be a folder" in archive.status()[0]["problem"]
    with pytest.raises(
        archive.DataError, match="cannot be written .*Set COURSE_CACHE to a folder of your own"
    ):
        archive.ensure("membranes")
    world.monkeypatch.setenv("COURSE_CACHE", "~nobody-of-that-name/x")  # a name like any other
    assert archive.status()[0]["found"] == "absent"


def test_a_copy_that_was_checked_against_older_digests_is_not_used(world):
    archive.ensure("membranes")
    path = world.manifest.parent / "manifests" / "membranes.json"
    pins = json.loads(path.read_text())
    pins.pop(f"{FOLDER}image/0.png")
    path.write_text(json.dumps(pins))
    assert archive.status()[0]["found"] == "absent"


def test_killed_while_unpacking_leaves_nothing_in_the_way(world):
    world.give(zipped(world.files))
    process = world.run("""
        blocks = archive._blocks
        def stuck(packed, member, path):
            yield from blocks(packed, member, path)
            if path.endswith("label/1.png"):
                print("unpacking", flush=True)
                time.sleep(60)
        archive._blocks = stuck
        archive.ensure("membranes")
    """)
    assert process.stdout.readline() == "unpacking\n"
    process.kill()
    process.wait()
    (left,) = world.cached()
    assert left.startswith("partial-") and list((world.cache / left).rglob("*.png"))
    assert archive.status()[0]["found"] == "COURSE_DATA"
    folder = archive.ensure("membranes")
    assert world.is_whole(folder) and world.cached() == {folder.name}


def test_two_processes_share_one_download(world):
    def slow(handler, server):
        time.sleep(0.5)
        polite(handler, server)

    world.server.manner = slow
    both = [world.run("print(archive.ensure('membranes'))") for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert told[0] == told[1] and world.is_whole(Path(told[0].strip()))
    assert world.server.requests == [None]


def test_status_says_what_is_where(world):
    (row,) = archive.status()
    assert (row["found"], row["splits"], row["bytes"], row["problem"]) == ("absent", [], 0, None)
    assert row["licence"] == "free" and row["url"].endswith(f"{COMMIT}.zip")
    archive.ensure("membranes")
    (row,) = archive.status()
    unpacked = sum(len(content) for name, content in world.files.items() if name.startswith(FOLDER))
    assert (row["found"], row["splits"], row["bytes"]) == ("cache", ["train", "val"], unpacked)
    body = zipped(world.files)
    world.give(body)
    (row,) = archive.status()
    assert (row["found"], row["splits"], row["bytes"]) == ("COURSE_DATA", ["train", "val"], len(body))
    world.give(body[:1000])
    (row,) = archive.status()
    assert row["splits"] == [] and "cut short" in row["problem"]


def test_the_public_address_is_pinned_by_commit(monkeypatch):
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    known = archive.archives()
    assert list(known) == ["nuclei", "membranes", "camvid"]
    for entry in known.values():
        assert len(entry.commit) == 40
        assert entry.url == f"https://github.com/{entry.repository}/archive/{entry.commit}.zip"


@pytest.mark.parametrize(
    "name",
    [
        f"{TOP}../../outside.png",
        f"{TOP}{FOLDER}image/../../../../../outside.png",
        "/outside.png",
        "C:/outside.png",
        f"{TOP}{FOLDER}image\\..\\..\\outside.png",
        f"{TOP}{FOLDER}image//0.png",
        f"{TOP}{FOLDER}image/./0.png",
        "../outside.png",
    ],
)
def test_no_name_leads_out_of_the_folder(world, name):
    world.give(
        zipped({TOP + inner: content for inner, content in world.files.items()} | {name: b"x"}, top="")
    )
    with pytest.raises(ArchiveDamaged, match="leads out of its folder"):
        archive.ensure("membranes")
    assert world.cached() == set() and not list(world.folder.rglob("outside*"))


# What goes wrong ------------------------------------------------------------
# Each function brings one failure about; the table below says what must come of it.


def given(change):
    """A changed archive in COURSE_DATA."""

    def bring_about(world):
        world.give(change(world))
        return archive.ensure("membranes")

    return bring_about


def served(manner, change=lambda world: world.server.body):
    """A server of this manner, or one that has a changed archive."""

    def bring_about(world):
        world.server.body, world.server.manner = change(world), manner
        return archive.ensure("membranes")

    return bring_about


def with_link(world) -> bytes:
    file = io.BytesIO(zipped(world.files))
    with zipfile.ZipFile(file, "a") as packed:
        link = zipfile.ZipInfo(f"{TOP}{FOLDER}image/2.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        packed.writestr(link, "../../../../../secret")
    return file.getvalue()


def with_method(world, method: int) -> bytes:
    """An archive packed in another way, one of its files damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, content in world.files.items():
            packed.writestr(TOP + name, content)
        offset = packed.getinfo(f"{TOP}{FOLDER}image/0.png").header_offset
    body = bytearray(file.getvalue())
    start = offset + 30 + len(f"{TOP}{FOLDER}image/0.png")
    body[start + 12 : start + 80] = bytes(68)
    return bytes(body)


def moved_table(world) -> bytes:
    """The end record says that the table of contents begins elsewhere: `zipfile` seeks before the file's start."""
    body = bytearray(zipped(world.files))
    body[-4] ^= 1  # the offset's high byte
    return bytes(body)


def odd_names(*names: str):
    return lambda world: zipped({**world.files, **{f"{FOLDER}image/{name}": b"x" for name in names}})


def bomb(world) -> bytes:
    world.monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    return zipped({**world.files, f"{FOLDER}image/2.png": bytes(2_000_000)})


def bomb_of_files(world) -> bytes:
    world.monkeypatch.setattr(archive, "MAX_FILES", 50)
    return zipped({**world.files, **{f"{FOLDER}image/{number}.png": b"" for number in range(30, 80)}})


def without(*names):
    return lambda world: zipped({name: content for name, content in world.files.items() if name not in names})


def missing_split(world):
    world.give(zipped(world.files))
    return archive.ensure("membranes", "test")


def missing_split_in_public(world):
    return archive.ensure("membranes", "test")


def full_while_downloading(world):
    full_disk(world.monkeypatch, download, 1000)
    world.server.manner = polite
    return archive.ensure("membranes")


def full_while_unpacking(world):
    world.give(zipped(world.files))
    full_disk(world.monkeypatch, archive, 5000)
    return archive.ensure("membranes")


def unwritable_cache(world):
    world.cache.write_text("a file where the cache should be")
    world.give(zipped(world.files))
    return archive.ensure("membranes")


def no_network(world):
    world.go_offline()
    return archive.ensure("membranes", "val")


def no_names(world):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    world.monkeypatch.delenv("COURSE_MIRROR")
    world.monkeypatch.setattr(socket, "getaddrinfo", unknown)
    world.monkeypatch.setenv("COURSE_DATA", str(world.given))
    return archive.ensure("membranes")


def silent(handler, server) -> None:
    time.sleep(1)


def stopping(handler, server) -> None:
    polite(handler, server, 1000 if handler.headers.get("Range") is None else 0)
    time.sleep(1)


def login_page(handler, server) -> None:
    page = b"<html><form>Your name and room number, please</form></html>"
    answer(handler, 200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": len(page)}, page)


def bad_address(world):
    world.monkeypatch.setenv("COURSE_MIRROR", "http://[bad")
    return archive.ensure("membranes")


def redirecting(address: str):
    return lambda handler, server: answer(
        handler, 302, {"Location": address, "Content-Length": 0, "Connection": "close"}, b""
    )


def stating(headers: dict):
    return lambda handler, server: answer(handler, 200, headers, b"")


def red(handler) -> None:
    handler.wfile.write(b"HTTP/1.1 404 \x1b[31mred\r\nContent-Length: 0\r\n\r\n")


def endless(world):
    world.monkeypatch.setattr(download, "MAX_BYTES", 1000)
    world.server.manner = in_chunks
    return archive.ensure("membranes")


def lost_from_cache(world):
    world.give(zipped(world.files))
    train = real.membranes("train")
    (archive.ensure("membranes") / FOLDER / "label" / "0.png").unlink()
    return train[0]


def mistyped_mirror(world):
    world.monkeypatch.setenv("COURSE_MIRROR", "mirror.example")
    return archive.ensure("membranes")


def unknown_split(world):
    return real.membranes("validation")


def unknown_archive(world):
    return archive.ensure("mebranes")


OTHER_TOP = "unet-master/"
FAILURES = {
    "truncated, in COURSE_DATA": (ArchiveDamaged, "cut short", given(lambda w: zipped(w.files)[:-500])),
    "bit flipped, in COURSE_DATA": (ArchiveDamaged, "checksum", given(lambda w: flipped(zipped(w.files)))),
    "altered and zipped anew": (
        ArchiveDamaged,
        "not the version that the course was written for",
        given(lambda w: zipped({**w.files, f"{FOLDER}label/20.png": png(7)})),
    ),
    "one file missing": (
        ArchiveDamaged,
        "1 of 4 entries of its val",
        given(without(f"{FOLDER}label/20.png")),
    ),
    "another archive": (ArchiveDamaged, "different archive", given(lambda w: zipped(w.files, OTHER_TOP))),
    "not a zip": (ArchiveDamaged, "not a zip archive", given(lambda w: b"<html>not found</html>")),
    "empty file": (ArchiveDamaged, "empty", given(lambda w: b"")),
    "empty zip": (ArchiveDamaged, "contains nothing", given(lambda w: zipped({"README.md": b""}))),
    "a name that leads outside": (
        ArchiveDamaged,
        "leads out of its folder",
        given(lambda w: zipped({**w.files, "../../outside.png": b"x"})),
    ),
    "a damaged LZMA member": (
        ArchiveDamaged,
        "the checksum of .* is wrong",
        given(lambda w: with_method(w, zipfile.ZIP_LZMA)),
    ),
    "a damaged bzip2 member": (
        ArchiveDamaged,
        "the checksum of .* is wrong",
        given(lambda w: with_method(w, zipfile.ZIP_BZIP2)),
    ),
    "the table of contents elsewhere": (ArchiveDamaged, "checksum|damaged", given(moved_table)),
    "a file and a folder of one name": (
        ArchiveDamaged,
        "a name that no file can have",
        given(odd_names("30.png/x.png", "30.png")),
    ),
    "a file below a file": (
        ArchiveDamaged,
        "a name that no file can have",
        given(odd_names("30.png", "30.png/x.png")),
    ),
    "a name of 300 letters": (ArchiveDamaged, "a name that no file can have", given(odd_names("x" * 300))),
    "3000 folders deep": (
        ArchiveDamaged,
        "a name that no file can have",
        given(odd_names("a/" * 3000 + "x")),
    ),
    "an address that is none": (DataUnavailable, "is not a web address", bad_address),
    "a redirection to an address that is none": (
        DataUnavailable,
        "4 times in a row",
        served(redirecting("http://[bad")),
    ),
    "a redirection to a file": (
        DataUnavailable,
        "4 times in a row",
        served(redirecting("file:///etc/passwd")),
    ),
    "a redirection to itself": (DataUnavailable, "from one address to the next", served(redirecting("/"))),
    "a length that is no number": (
        DataUnavailable,
        "4 times in a row",
        served(stating({"Content-Length": "many"})),
    ),
    "an answer that is no HTTP": (
        DataUnavailable,
        "the connection dropped",
        served(lambda h, s: h.wfile.write(b"hello\r\n")),
    ),
    "nothing": (DataUnavailable, "4 times in a row", served(stating({"Content-Length": 0}))),
    "an escape sequence": (DataUnavailable, r"404 \[31mred", served(lambda h, s: red(h))),
    "a symbolic link": (ArchiveDamaged, "link", given(with_link)),
    "a zip bomb": (ArchiveDamaged, "far larger", given(bomb)),
    "a bomb of many files": (ArchiveDamaged, "far larger", given(bomb_of_files)),
    "missing split, in COURSE_DATA": (SplitUnavailable, "holds train and val, not test", missing_split),
    "missing split, in the public archive": (
        SplitUnavailable,
        "holds train and val, not",
        missing_split_in_public,
    ),
    "disk full while downloading": (DataError, "is full", full_while_downloading),
    "disk full while unpacking": (DataError, "is full", full_while_unpacking),
    "cache not writable": (DataError, "cannot be written", unwritable_cache),
    "no network: refused": (DataUnavailable, "connect to a network, or set COURSE_DATA", no_network),
    "no network: no name service": (DataUnavailable, "github.com cannot be reached", no_names),
    "no answer in time": (DataUnavailable, "4 times in a row .nothing came for", served(silent)),
    "answer stops half-way": (DataUnavailable, "nothing came for", served(stopping)),
    "connection drops every time": (DataUnavailable, "4 times in a row", served(hanging_up(0))),
    "COURSE_MIRROR mistyped": (DataUnavailable, "COURSE_MIRROR", mistyped_mirror),
    "HTTP 404": (DataUnavailable, "404 Not Found", served(refusing(404))),
    "HTTP 500": (DataUnavailable, "500 Internal Server Error", served(refusing(500))),
    "a login page instead": (ArchiveDamaged, "did not send a zip archive", served(login_page)),
    "truncated on the server": (ArchiveDamaged, "cut short", served(polite, lambda w: w.server.body[:-500])),
    "bit flipped on the server": (
        ArchiveDamaged,
        "checksum",
        served(polite, lambda w: flipped(w.server.body)),
    ),
    "another archive on the server": (
        ArchiveDamaged,
        "different archive",
        served(polite, lambda w: zipped(w.files, OTHER_TOP)),
    ),
    "a download without end": (ArchiveDamaged, "far more", endless),
    "a file lost from the cache": (ArchiveDamaged, "Delete the folder", lost_from_cache),
    "unknown split": (ValueError, "it must be one of 'train', 'val', 'test'", unknown_split),
    "unknown archive": (ValueError, "it must be one of membranes", unknown_archive),
}
KEPT = {}  # what may stay in the cache: all else must be gone


@pytest.mark.parametrize("failure", FAILURES)
def test_messages(world, failure):
    """A sentence or two: what happened, what to do. Nothing half-written stays, nothing given is lost."""
    kind, pattern, bring_about = FAILURES[failure]
    with pytest.raises(kind, match=pattern) as caught:
        bring_about(world)
    message = str(caught.value)
    shown = message.replace(str(world.folder), "…").replace(
        world.server.address.removeprefix("http://"), "server"
    )
    print(f"\n{failure} | {caught.type.__name__} | {shown}")

    assert caught.type is kind
    assert "\n" not in message and message.endswith(".") and message.count(". ") <= 2
    assert "[Errno" not in message and "Traceback" not in message
    assert caught.value.__cause__ is None and (
        caught.value.__suppress_context__ or not caught.value.__context__
    )
    left = world.cached()
    copies = {name for name in left if (world.cache / name / archive.MARKER).is_file()}
    assert left - copies == KEPT.get(failure, set())
    if bring_about.__qualname__.startswith("given"):
        assert (world.given / FILE).is_file(), "what the learner gave is never removed"
        assert not copies


def test_offline_fails_at_once(world):
    waits = SimpleNamespace(sleep=lambda seconds: pytest.fail("waited although nobody was ever reached"))
    world.monkeypatch.setattr(pooch.core, "time", waits)
    with pytest.raises(DataUnavailable):
        no_network(world)


def test_a_failure_does_not_stand_in_the_way_of_the_next_call(world):
    full_disk(world.monkeypatch, archive, 5000)
    with pytest.raises(DataError):
        archive.ensure("membranes")
    world.monkeypatch.delattr(archive, "open")
    assert world.is_whole(archive.ensure("membranes"))
    assert world.server.requests == [None], "the zip that had come whole is not fetched again"
