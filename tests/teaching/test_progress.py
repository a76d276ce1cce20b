"""The learner's own record: kept, shown, and never in the way."""

import json

import pytest

from course_lib.teaching import check, guess, progress


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "mine" / "progress.json"))
    return tmp_path / "mine" / "progress.json"


def test_checks_are_written_down_and_a_solved_one_stays_solved(path):
    assert repr(progress.show()) == progress.EMPTY

    def not_begun(a, b):
        raise NotImplementedError

    check("01.2", not_begun)
    assert not path.exists()
    check("01.2", lambda a, b: 3)
    check.box_iou(lambda a, b: 4)
    assert progress.load()["exercises"] == {"01.2": {"right": False, "tries": 2}}
    assert "01  ○✗" in repr(progress.show()) and "0 of" in repr(progress.show())
    progress.exercise("01.2", True)
    check("01.2", lambda a, b: 3)
    assert progress.load()["exercises"]["01.2"] == {"right": True, "tries": 3}
    assert "✓" in progress.show()._repr_html_()


def test_the_first_guess_counts(path, capsys):
    for answer in (40, 100):
        guess("How many?", low=0, high=100, answer=answer).reveal(100)
    assert progress.load()["guesses"] == {"How many?": 0.4}
    assert "1 guess, on average 40% right" in repr(progress.show())


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", '{"exercises": [], "guesses": {"a": "b"}}', '{"exercises": {"01.1": {"right": 1}}}'],
)
def test_a_damaged_record_counts_as_empty_and_is_written_anew(path, content):
    path.parent.mkdir()
    path.write_text(content)
    assert progress.load() == {"exercises": {}, "guesses": {}}
    progress.exercise("01.1", True)
    assert json.loads(path.read_text())["exercises"] == {"01.1": {"right": True, "tries": 1}}


def test_where_nothing_can_be_kept_checks_still_answer(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in ("", str(tmp_path / "file" / "progress.json")):
        monkeypatch.setenv("COURSE_PROGRESS", place)
        assert check("01.2", lambda a, b: 3).state == "wrong"
        assert progress.load()["exercises"] == {}
