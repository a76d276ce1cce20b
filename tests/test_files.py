"""What a disk refuses, in words; and all of a file or nothing of it."""

import os

import pytest

from course_lib import files


def refused(call, *arguments) -> str:
    with pytest.raises(OSError) as stop:
        call(*arguments)
    return files.in_words(stop.value)


def test_what_the_system_refuses_is_a_sentence_with_the_name_that_was_given(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for path, said in (
        ("file/x.json", "there is a file where a folder is needed; choose another path."),
        ("folder", "there is a folder where a file is needed; choose another path."),
        ("x" * 300, "give a shorter name."),
    ):
        sentence = refused(files.write_atomically, tmp_path / path, "new")
        assert sentence.startswith(str(tmp_path / path.split("/")[0])) and sentence.endswith(said)
    with pytest.raises(OSError) as stop, files.replacing(tmp_path / "x.json") as unfinished:
        unfinished.mkdir()
        try:
            unfinished.write_text("new")
        finally:
            unfinished.rmdir()
    assert files.in_words(stop.value).startswith(f"{tmp_path / 'x.json'}: Is a directory; ")
    assert files.in_words(OSError("in words already")) == "in words already"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine" and not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("name", ["a.b.c.json", "x." + "y" * 245 + ".png", "." + "x" * 254])
def test_any_name_that_a_disk_takes(tmp_path, name):
    files.write_atomically(tmp_path / name, "new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_written_through_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "link.csv").symlink_to(precious)
    os.link(precious, tmp_path / "hard.csv")
    for name in ("link.csv", "hard.csv"):
        files.write_atomically(tmp_path / name, "new")
        assert precious.read_text() == "mine" and (tmp_path / name).read_text() == "new"
        assert not (tmp_path / name).is_symlink()


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path):
    files.check_writable(tmp_path / "not" / "yet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    assert "file/below: Not a directory" in refused(files.check_writable, tmp_path / "file" / "below")
