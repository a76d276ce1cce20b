"""What grading writes: tables for people, Moodle and Canvas, and a page of feedback for each hand-in."""

import csv
import html
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from course_lib.teaching.grading.judging import Verdict

MARKS = {"right": "✓", "wrong": "✗", "open": "○", "missing": "○", "stopped": "✗"}
STATES = {
    "right": "right",
    "wrong": "not right",
    "open": "not written yet",
    "missing": "not found in the notebook",
    "stopped": "stopped before it was judged",
}
USUAL = set("numpy np math itertools functools collections scipy matplotlib typing keras".split())
"""Modules that nobody has to look at because a hand-in imports them."""


@dataclass
class HandIn:
    """What came of one notebook: its verdicts, or why it was not graded."""

    name: str
    chapter: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    problem: str = ""
    imports: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def maximum(self) -> float:
        return sum(verdict.maximum for verdict in self.verdicts)


def line_of(hand_in: HandIn) -> str:
    if hand_in.problem:
        return f"{printable(hand_in.name)}: not graded, {hand_in.problem}"
    marks = "  ".join(f"{verdict.number} {MARKS[verdict.state]}" for verdict in hand_in.verdicts)
    return f"{printable(hand_in.name)}: {marks}  ({hand_in.points:g} of {hand_in.maximum:g})"


def printable(name: str) -> str:
    """A file's name without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def file_name(name: str, taken: set[str]) -> str:
    """A file name of our own for a hand-in: plain letters, and none twice, on any disk."""
    plain = base = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:80] or "hand-in"
    count = 1
    while plain.lower() in taken:
        count += 1
        plain = f"{base}-{count}"
    taken.add(plain.lower())
    return plain


def student_of(name: str) -> dict[str, str]:
    """Who handed in, as far as the file's name says: Moodle's and Canvas's bulk downloads put numbers into it."""
    if found := re.search(r"(?:^|/)([^/]+?)_(\d+)_assignsubmission_", name):
        return {"student": found[1], "moodle": f"Participant {found[2]}", "canvas": ""}
    if found := re.match(r"(?:.*/)?([^/_]+)_(?:LATE_)?(\d+)_\d+_", name):
        return {"student": found[1], "moodle": "", "canvas": found[2]}
    return {"student": name.split("/")[0] if "/" in name else name, "moodle": "", "canvas": ""}


def tables(graded: list[HandIn]) -> dict[str, str]:
    """File name → text of the tables: one for people, Moodle's grading worksheet, Canvas's gradebook."""
    numbers = sorted({verdict.number for hand_in in graded for verdict in hand_in.verdicts})
    grades = [["submission", "chapter", "points", "of", *numbers, "problem"]]
    moodle = [["Identifier", "Full name", "Grade", "Maximum grade", "Feedback comments"]]
    students: dict[tuple, dict[str, HandIn]] = {}
    for hand_in in graded:
        states = {verdict.number: verdict.state for verdict in hand_in.verdicts}
        row = [hand_in.name, hand_in.chapter, hand_in.points, hand_in.maximum]
        grades.append([*row, *(states.get(number, "") for number in numbers), hand_in.problem])
        who = student_of(hand_in.name)
        words = hand_in.problem or " ".join(
            f"{v.number} {STATES[v.state]}: {v.text}" for v in hand_in.verdicts
        )
        grade_or_none = "" if hand_in.problem else hand_in.points
        moodle.append([who["moodle"], who["student"], grade_or_none, hand_in.maximum, words])
        if not hand_in.problem:
            students.setdefault((who["student"], who["canvas"]), {})[hand_in.chapter] = hand_in
    chapters = sorted({chapter for done in students.values() for chapter in done})
    most = {
        chapter: max(d[chapter].maximum for d in students.values() if chapter in d) for chapter in chapters
    }
    canvas = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(f"Chapter {c}" for c in chapters)],
        ["    Points Possible", "", "", "", "", *(most[chapter] for chapter in chapters)],
    ]
    for (student, number), done in students.items():
        points = [done[chapter].points if chapter in done else "" for chapter in chapters]
        login = "" if number else student
        canvas.append([student, number, "", login, "", *points])
    return {"grades.csv": as_csv(grades), "moodle.csv": as_csv(moodle), "canvas.csv": as_csv(canvas)}


def as_csv(rows: Iterable[list]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file)
    for row in rows:
        writer.writerow([harmless(one) if isinstance(one, str) else f"{one:g}" for one in row])
    return file.getvalue()


def harmless(text: str) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")  # a file's name may hold what no encoding can
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in tuple("\t\r\n") else text


def feedback(hand_in: HandIn) -> str:
    """A page for the student: each exercise, its points, and what the check said."""

    def shown(text: str) -> str:
        return html.escape(text.encode("utf-8", "replace").decode("utf-8"))

    colours = {"right": "#00734f", "open": "#555", "missing": "#555"}
    parts = []
    for verdict in hand_in.verdicts:
        colour = colours.get(verdict.state, "#a03c00")
        parts.append(
            f'<h2 style="color: {colour}">{MARKS[verdict.state]} {verdict.number} {shown(verdict.name)}: '
            f"{STATES[verdict.state]}, {verdict.points:g} of {verdict.maximum:g}</h2><p>{shown(verdict.text)}</p>"
        )
    unusual = sorted(name for name in hand_in.imports if name.partition(".")[0] not in USUAL | {"course_lib"})
    unusual += sorted(n for n in hand_in.imports if re.match(r"course_lib\.(ops|losses|metrics|chapters)", n))
    if unusual:
        parts.append(f"<p>For the teacher: the notebook imports {shown(', '.join(unusual))}.</p>")
    body = f"<p>Not graded: {shown(hand_in.problem)}.</p>" if hand_in.problem else "\n".join(parts)
    title = f"{shown(hand_in.name)}: {hand_in.points:g} of {hand_in.maximum:g} points"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        '<body style="max-width: 44em; margin: 2em auto; font-family: sans-serif; line-height: 1.5">\n'
        f"<h1>{title}</h1>\n{body}\n</body></html>\n"
    )
