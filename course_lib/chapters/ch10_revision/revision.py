"""What the course found, on one page: the ledger of all claims, and the notes' summary with a measured figure to each line.

Nothing is typed in twice. What a claim says, its figure and its verdict come from its file in `data/results`; where it was
measured is read off the notebooks. Here stand only the seven lines of the summary, in the course's own words, and which
claims bear each of them.

Tables are shown as HTML, and leave the same as plain text for those who read without a browser.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from scipy import stats

from course_lib.plot import COLOURS
from course_lib.teaching import course_map, glossary, ledger, questions
from course_lib.teaching.ledger import Result
from course_lib.teaching.tables import Table, html_table

MARKS = {"holds": "●", "holds when": "◐", "not seen here": "○", "not measured yet": "–"}
"""The kinds of verdict, each with its mark: full, half, empty, none."""


class Place(NamedTuple):
    """Where a claim's result is read and shown: the notebook's name without its ending, and the section's heading."""

    chapter: str
    heading: str

    @property
    def link(self) -> str:
        """Relative to the notebooks' folder, as JupyterLab and nbconvert name a heading."""
        anchor = quote(self.heading.replace(" ", "-"), safe="?/:@!$&'()*+,;=")
        return f"{self.chapter}.ipynb#{anchor}"

    def __str__(self) -> str:
        return f"{self.chapter}, “{self.heading}”"


@dataclass(frozen=True)
class Entry:
    """A claim of the notes in the ledger.

    Attributes:
        claim: its id, such as `"3.2"`.
        result: what was measured; `None` where it is not yet.
        place: where; `None` where no notebook reads it yet.
    """

    claim: str
    result: Result | None
    place: Place | None

    @property
    def kind(self) -> str:
        """The kind of verdict, a key of `MARKS`; the whole verdict has its condition, too."""
        if self.result is None:
            return "not measured yet"
        return next(
            kind for kind in ("holds when", "holds", "not seen here") if self.result.verdict.startswith(kind)
        )

    @property
    def statement(self) -> str:
        return self.result.statement if self.result else f"Claim {self.claim}"

    @property
    def verdict(self) -> str:
        return self.result.verdict if self.result else "not measured yet"

    @property
    def figure(self) -> str:
        """Mean and 95 % interval, `shown` for a demonstration, or how to measure what is not."""
        if self.result is None:
            return f"measure it: python -m course_lib claims --run {self.claim}"
        return str(self.result.interval) if self.result.interval else "shown"

    @property
    def neutral(self) -> float:
        """What the effect would be if there were none: 1 for a ratio, which says so in words, as `(1: as long)`, else 0."""
        return 1.0 if self.result and "(1:" in self.result.effect else 0.0

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out the value that means no effect; a demonstration settles itself."""
        if self.result is None:
            return False
        found = self.result.interval
        return found is None or not found.low <= self.neutral <= found.high


def claims_ledger(results: Path | None = None, notebooks: Path | None = None) -> tuple[Entry, ...]:
    """All claims of the notes in the order of their ids, with what was measured of them and where.

    Args:
        results: the folder of result files; by default `data/results`.
        notebooks: the folder of notebooks; by default the course's.

    Raises:
        ValueError: if a result's verdict is none of the three.
    """
    where, entries = places(notebooks), []
    for claim in sorted(questions.load().claims):
        try:
            result = ledger.read(claim, results)
        except FileNotFoundError:
            result = None
        if result and not result.verdict.startswith(("holds", "not seen here")):
            raise ValueError(
                f"claim {claim}: the verdict is {result.verdict!r}; it has to begin with 'holds' or 'not seen here'."
            )
        entries.append(Entry(claim, result, where.get(claim)))
    return tuple(entries)


# Where a claim was measured

CLOSING = "What textbooks claim and what we measured"
"""The section that ends a notebook with all of its claims: the place of those only that have none of their own."""
# The first notebook and the last one go through all claims: they are no place of any.
ALL_CLAIMS = {"00", "10"}


def places(folder: Path | None = None) -> dict[str, Place]:
    """For each claim the section that reads its result, found in the notebooks themselves.

    A section that reads one claim by its name comes before one that goes through several, and both before the section that
    ends a notebook.

    Args:
        folder: where the notebooks lie; by default the course's. One that is not there yet is left out.
    """
    folder, found = folder or course_map.FOLDER, {}
    for chapter in course_map.CHAPTERS:
        path = folder / f"{chapter.name}.ipynb"
        if chapter.number in ALL_CLAIMS or not path.is_file():
            continue
        for heading, source in code_by_section(path):
            if "ledger.read(" not in source:
                continue
            by_name = set(re.findall(r"ledger\.read\(\s*[\"'](\d\.\d)[\"']", source))
            for claim in by_name | set(re.findall(r"[\"'](\d\.\d)[\"']", source)):
                rank = (heading == CLOSING, claim not in by_name, chapter.number)
                if claim not in found or rank < found[claim][0]:
                    found[claim] = (rank, Place(chapter.name, heading))
    return {claim: place for claim, (_, place) in sorted(found.items())}


def code_by_section(path: Path) -> Iterable[tuple[str, str]]:
    """Each code cell of a notebook, as the nearest heading above it and its source."""
    heading = ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield heading, source
        elif cell["cell_type"] == "markdown":
            heading = ([heading] + headings(source))[-1]


def headings(markdown: str) -> list[str]:
    """The headings of a markdown cell, without their marks."""
    return re.findall(r"^#{1,6}\s+(.+?)\s*$", markdown, re.M)


# How sure


def runs_to_settle(result: Result, neutral: float = 0.0, most: int = 100_000) -> int | None:
    """About how many repetitions it would take for the interval to leave out `neutral`, were mean and scatter to stay.

    Something to plan the next experiment by, before it is run; to go on until the interval suits is no experiment.

    Args:
        result: of an experiment with repetitions.
        neutral: the effect that means none.
        most: where to give up.

    Returns:
        The number of repetitions, at least 3; `None` if even `most` would not do.

    Raises:
        ValueError: if the result is a demonstration, which has no interval.
    """
    if result.interval is None:
        raise ValueError(f"claim {result.claim} is a demonstration; it has no interval to be settled.")
    effect = abs(result.interval.mean - neutral)
    half = (result.interval.high - result.interval.low) / 2
    scatter = half * result.repetitions**0.5 / stats.t.ppf(0.975, result.repetitions - 1)

    def settles(runs: int) -> bool:
        return effect > stats.t.ppf(0.975, runs - 1) * scatter / runs**0.5

    if not settles(most):
        return None
    low, high = 2, most  # 2 is never asked: an interval needs 3
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high


# The summary of the notes


class Line(NamedTuple):
    """A line of the notes' summary table: topic, what it says, and the claims whose results bear it or do not."""

    topic: str
    point: str
    claims: tuple[str, ...]


SUMMARY = (
    Line(
        "Detection or segmentation",
        "A detector draws a box round each object; segmentation gives each pixel a class.",
        ("1.1", "1.2"),
    ),
    Line(
        "Semantic or instance",
        "Semantic segmentation names the class of a pixel; instance segmentation also says of which object it is.",
        ("2.1", "2.2"),
    ),
    Line("U-Net", "An encoder, a decoder, and skip connections from the one to the other.", ("3.1", "3.2")),
    Line(
        "Encoder and decoder",
        "On the way down features are collected, on the way up the detail comes back.",
        ("4.1", "4.2", "4.3"),
    ),
    Line("U-Net or FCN", "U-Net says better where things are; FCN is the all-purpose net.", ("5.2", "5.3")),
    Line("Mask R-CNN", "Detection and a mask for each object in one net, at a price.", ("6.1", "6.2", "6.3")),
    Line(
        "Metrics and losses",
        "IoU, Dice, cross-entropy, focal loss: which one is right depends on the task and on the data.",
        ("7.2", "7.3", "7.4", "7.5", "7.6"),
    ),
)
"""The seven topics of the notes, one for each first digit of a claim's id."""


SCORES = (
    ("How much of the area is right?", ("IoU", "Dice")),
    ("Does the outline fit?", ("boundary F1", "boundary IoU", "ASSD")),
    ("Could one stray piece do harm?", ("Hausdorff distance", "HD95")),
    ("Is each object found, whole and by itself?", ("AP", "panoptic quality")),
    ("Are neighbours kept apart?", ("Rand score",)),
    ("Is every class found, the rare ones too?", ("mean IoU", "balanced accuracy")),
    ("Which classes does the net take for which?", ("confusion matrix",)),
)
"""Which score answers which question; what each is stands in the glossary."""


# As tables


def ledger_table(entries: Sequence[Entry]) -> Table:
    """The ledger, to show: each claim with its verdict, its drawn figure and its numbers, a teacher's words, and where."""
    rows, text = [], []
    for entry in entries:
        teacher = entry.result.teacher if entry.result else ""
        effect = entry.result.effect if entry.result else ""
        rows.append(
            (
                f"<b>{entry.claim}</b>",
                html.escape(entry.statement),
                f"{MARKS[entry.kind]} {html.escape(entry.verdict)}",
                f"{interval_picture(entry)}{html.escape(entry.figure)}<br><small>{html.escape(effect)}</small>",
                html.escape(teacher),
                _anchor(entry.place),
            )
        )
        text += [
            f"{entry.claim}  {entry.statement}",
            f"     {MARKS[entry.kind]} {entry.verdict}. {teacher}".rstrip(),
        ]
        text += [f"     {effect}: {entry.figure}" if effect else f"     {entry.figure}"]
        text += [f"     {entry.place}" if entry.place else "     no notebook reads it yet", ""]
    columns = {
        "claim": 5,
        "the notes say": 17,
        "verdict": 16,
        "measured": 25,
        "a teacher would say": 25,
        "where": 12,
    }
    return Table("\n".join(text).rstrip(), html_table(columns, rows))


def summary_table(entries: Sequence[Entry]) -> Table:
    """The notes' summary, to show: to each line its claims, with verdict, figure and a link to the section that made it."""
    by_claim, rows, text = {entry.claim: entry for entry in entries}, [], []
    for line in SUMMARY:
        text += [line.topic, f"    {line.point}"]
        first = f"<b>{html.escape(line.topic)}</b><br>{html.escape(line.point)}"
        for entry in (by_claim[claim] for claim in line.claims):
            effect = entry.result.effect if entry.result else ""
            rows.append(
                (
                    first,
                    f"{entry.claim} {html.escape(entry.statement)}<br>"
                    f"<b>{MARKS[entry.kind]} {html.escape(entry.verdict)}</b>",
                    f"{interval_picture(entry)}{html.escape(entry.figure)}<br>{html.escape(effect)}",
                    _anchor(entry.place),
                )
            )
            text.append(f"    {MARKS[entry.kind]} {entry.claim}  {entry.figure}  {entry.verdict}")
            text.append(f"           {entry.statement}")
            text += [f"           {effect}"] if effect else []
            text += [f"           {entry.place}"] if entry.place else []
            first = ""  # the line is said once, before its first claim
        text.append("")
    columns = {
        "the notes' summary": 24,
        "claim and verdict": 28,
        "measured": 33,
        "the section that made it": 15,
    }
    return Table("\n".join(text).rstrip(), html_table(columns, rows))


def score_table() -> Table:
    """Which score when: questions, the scores that answer them, and what each is, from the glossary."""
    rows, text = [], []
    for question, names in SCORES:
        text.append(question)
        for place, term in enumerate(map(glossary.get, names)):
            first = f"<b>{html.escape(question)}</b>" if place == 0 else ""
            link = f'<a href="{glossary.CHAPTER_OF[term.notebook]}.ipynb">{term.notebook}</a>'
            rows.append((first, f"<b>{html.escape(term.term)}</b>", html.escape(term.means), link))
            text.append(f"    {term}")
    return Table(
        "\n".join(text),
        html_table({"what do you ask?": 20, "score": 14, "what it is": 57, "treated in": 9}, rows),
    )


def _anchor(place: Place | None) -> str:
    if place is None:
        return "no notebook reads it yet"
    words = f"{place.chapter[:2]}, {place.heading}"
    return f'<a href="{html.escape(place.link)}">{html.escape(words)}</a>'


def interval_picture(entry: Entry, width: int = 150, height: int = 20) -> str:
    """A claim's interval as a small picture, an `<img>` that needs no other file; empty where there is none.

    The dashed line is "no effect". Each picture has its own scale, for effects have different units. The interval is blue
    where it leaves the line out, orange where it does not.
    """
    found = entry.result.interval if entry.result else None
    if found is None:
        return ""
    low, high = min(entry.neutral, found.low), max(entry.neutral, found.high)
    x = {
        name: round(8 + (width - 16) * (value - low) / ((high - low) or 1), 1)
        for name, value in {
            "none": entry.neutral,
            "low": found.low,
            "mean": found.mean,
            "high": found.high,
        }.items()
    }
    colour, middle = COLOURS[0] if entry.settled else COLOURS[5], height / 2
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<path d="M{x["none"]} 1V{height - 1}" stroke="#888" stroke-width="2" stroke-dasharray="3 2"/>'
        f'<path d="M{x["low"]} {middle}H{x["high"]}" stroke="{colour}" stroke-width="4"/>'
        f'<circle cx="{x["mean"]}" cy="{middle}" r="5.5" fill="{colour}"/></svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    words = f"interval {found}, no effect at {entry.neutral:g}"
    return f'<img alt="{words}" width="{width}" height="{height}" src="data:image/svg+xml;base64,{data}"><br>'
