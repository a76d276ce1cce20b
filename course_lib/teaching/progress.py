"""What one learner has done, in a file of their own: `progress.show()` in notebooks 00 and 10.

`check` writes down each exercise that it looked at, and a guess that is revealed its score. The file stays on this
machine. `COURSE_PROGRESS` names another file; empty, nothing is kept.
"""

import html
import json
import os
from pathlib import Path
from typing import Any

from course_lib.files import write_json

EMPTY = "Nothing is recorded yet: solve an exercise, or guess before a result is shown."


def file() -> Path | None:
    """Where the progress is kept, or `None` where it is not."""
    named = os.environ.get("COURSE_PROGRESS")
    if named is not None:
        return Path(named) if named.strip() else None
    return Path.home() / ".segmentation-course" / "progress.json"


def load() -> dict[str, dict[str, Any]]:
    """What is recorded: `{"exercises": {number: {"right": bool, "tries": int}}, "guesses": {question: score}}`.

    A file that is missing or damaged counts as empty.
    """
    found: Any = None
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
    except (AttributeError, OSError, ValueError):
        pass
    kept = found if isinstance(found, dict) else {}
    exercises = {
        number: entry
        for number, entry in _mapping(kept.get("exercises")).items()
        if isinstance(entry, dict)
        and isinstance(entry.get("right"), bool)
        and isinstance(entry.get("tries"), int)
    }
    guesses = {
        question: score
        for question, score in _mapping(kept.get("guesses")).items()
        if isinstance(score, (int, float)) and 0 <= score <= 1
    }
    return {"exercises": exercises, "guesses": guesses}


def exercise(number: str, right: bool) -> None:
    """Write down that a check looked at an exercise; once right, it stays right."""
    kept = load()
    before = kept["exercises"].get(number, {"right": False, "tries": 0})
    if not before["right"]:
        kept["exercises"][number] = {"right": right, "tries": before["tries"] + 1}
        _save(kept)


def guess(question: str, score: float) -> None:
    """Write down how good a guess was, from 0 to 1. The first one counts: the next time the result is known."""
    kept = load()
    if question not in kept["guesses"]:
        kept["guesses"][question] = round(float(score), 3)
        _save(kept)


class Progress:
    """The progress as a table; shows itself as the last line of a cell."""

    def __init__(self) -> None:
        from course_lib.teaching.checker import exercises

        kept = load()
        self._rows = []
        for chapter in sorted({each.number.partition(".")[0] for each in exercises()}):
            numbers = [each.number for each in exercises(chapter)]
            entries = [kept["exercises"].get(number) for number in numbers]
            marks = "".join("○" if entry is None else "✓" if entry["right"] else "✗" for entry in entries)
            if any(entries):
                solved = sum(bool(entry and entry["right"]) for entry in entries)
                tries = sum(entry["tries"] for entry in entries if entry)
                self._rows.append((chapter, marks, f"{solved} of {len(numbers)} solved", f"{tries} tries"))
        scores = list(kept["guesses"].values())
        self._guesses = (
            f"{len(scores)} guess{'es' * (len(scores) > 1)}, on average {sum(scores) / len(scores):.0%} right."
            if scores
            else ""
        )

    def __repr__(self) -> str:
        lines = ["  ".join(row) for row in self._rows] + [self._guesses] * bool(self._guesses)
        return "\n".join(lines) or EMPTY

    def _repr_html_(self) -> str:
        if not self._rows:
            return f"<p>{html.escape(repr(self))}</p>"
        cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in self._rows)
        return f"<table><tr><th>chapter</th><th>exercises</th><th></th><th></th></tr>{cells}</table><p>{self._guesses}</p>"


def show() -> Progress:
    """Your progress: each chapter's exercises (✓ solved, ✗ tried, ○ open), and how good your guesses were."""
    return Progress()


def _mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _save(kept: dict) -> None:
    path = file()
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)
    except OSError:
        pass  # a disk that is full or read-only is no reason to refuse an answer
