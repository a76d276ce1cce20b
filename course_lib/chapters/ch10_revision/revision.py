"""What the course found, on one page: the ledger of all claims, and a summary with a measured number for each line.

Nothing is typed twice. What a claim says, its number and its verdict come from its file in `data/results`; where it was
measured is read from the notebooks. Only the seven lines of the summary are here, in the course's own words, each with the
claims that support it.

Tables are shown as HTML, with the same as plain text for those who read without a browser.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from course_lib.plot import COLOURS
from course_lib.teaching import course_map, glossary, ledger, questions, statistics
from course_lib.teaching.ledger import Result
from course_lib.teaching.tables import Table, html_table

MARKS = {
    "demonstrated": "✓",
    "supported": "●",
    "supported when": "◐",
    "equivalent": "=",
    "contradicted": "○",
    "undecided": "?",
    "not measured yet": "–",
}
"""The kinds of verdict, each with its mark."""


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
    """A claim in the ledger.

    Attributes:
        claim: its id, such as `"3.2"`.
        result: what was measured; `None` where it is not yet.
        place: where; `None` where no notebook shows it yet.
    """

    claim: str
    result: Result | None
    place: Place | None

    @property
    def kind(self) -> str:
        """The kind of verdict, a key of `MARKS`; the whole verdict has its condition, too."""
        if self.result is None:
            return "not measured yet"
        return kind_of(self.result.verdict)

    @property
    def statement(self) -> str:
        return self.result.statement if self.result else f"Claim {self.claim}"

    @property
    def verdict(self) -> str:
        return self.result.verdict if self.result else "not measured yet"

    @property
    def figure(self) -> str:
        """Mean and 95 % interval, `shown` for a demonstration, how many runs are missing, or how to measure."""
        if self.result is None:
            return f"measure it: python -m course_lib claims --run {self.claim}"
        if self.result.is_demonstration:
            return "shown"
        if self.result.interval:
            return str(self.result.interval)
        return statistics.missing_runs(self.result.missing)

    @property
    def effect(self) -> str:
        """What `figure` is the number of, with its setting where there are several."""
        if self.result is None:
            return ""
        setting = f" ({self.result.setting})" if len(self.result.comparisons) > 1 else ""
        return f"{self.result.effect}{setting}"

    @property
    def neutral(self) -> float:
        """What the effect would be if there were none: 1 for a ratio, mostly 0 for a difference."""
        return self.result.null if self.result else 0.0

    @property
    def settled(self) -> bool:
        """Whether the claim is decided: by a demonstration, or by a verdict other than undecided."""
        return self.kind not in ("undecided", "not measured yet")


def kind_of(verdict: str) -> str:
    """The kind of a verdict, a key of `MARKS`: the longest one that it begins with; empty if there is none."""
    return max((kind for kind in MARKS if verdict.startswith(kind)), key=len, default="")


def claims_ledger(results: Path | None = None, notebooks: Path | None = None) -> tuple[Entry, ...]:
    """All claims in the order of their ids, with what was measured of them and where.

    Args:
        results: the folder of result files; by default `data/results`.
        notebooks: the folder of notebooks; by default the course's.

    Raises:
        ValueError: if a result's verdict is of none of the kinds in `MARKS`.
    """
    where, entries = places(notebooks), []
    for claim in sorted(questions.load().claims):
        try:
            result = ledger.read(claim, results)
        except FileNotFoundError:
            result = None
        if result and not kind_of(result.verdict):
            raise ValueError(
                f"claim {claim}: verdict is {result.verdict!r}; it must begin with {', '.join(MARKS)}."
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
    notebooks = [
        (chapter, path)
        for chapter in course_map.CHAPTERS
        if chapter.number not in ALL_CLAIMS
        for path in chapter.notebooks(folder)
    ]
    for chapter, path in notebooks:
        for heading, source in code_by_section(path):
            if "ledger.read(" not in source:
                continue
            by_name = set(re.findall(r"ledger\.read\(\s*[\"'](\d\.\d)[\"']", source))
            for claim in by_name | set(re.findall(r"[\"'](\d\.\d)[\"']", source)):
                rank = (heading == CLOSING, claim not in by_name, chapter.number)
                if claim not in found or rank < found[claim][0]:
                    found[claim] = (rank, Place(path.stem, heading))
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


# The summary


class Line(NamedTuple):
    """A line of the summary: a topic, and what a textbook says of it in a sentence."""

    topic: str
    point: str


SUMMARY = (
    Line(
        "Detection or segmentation",
        "A detector predicts a bounding box for each object; segmentation predicts a class for each pixel.",
    ),
    Line(
        "Semantic or instance",
        "Semantic segmentation predicts the class of a pixel; instance segmentation also which object it belongs to.",
    ),
    Line("U-Net", "An encoder, a decoder, and skip connections between them; it learns from few images."),
    Line("Encoder and decoder", "The encoder collects features, the decoder brings back the detail."),
    Line("U-Net or FCN", "U-Net locates objects better; FCN is the general-purpose network."),
    Line("Mask R-CNN", "Detection and a mask for each object in one network, at a price."),
    Line(
        "Metrics and losses",
        "IoU, Dice, cross-entropy, focal loss: which one is right depends on the task and on the data.",
    ),
    Line("Pretrained encoders", "Weights from other images replace many labelled images of one's own."),
)
"""The topics; the first digit of a claim's id is the number of its line."""


def by_line(entries: Sequence[Entry]) -> list[tuple[Line, list[Entry]]]:
    """The lines of the summary that have claims, each with its claims in order."""
    groups = [
        (line, [entry for entry in entries if entry.claim[0] == str(number)])
        for number, line in enumerate(SUMMARY, start=1)
    ]
    return [(line, of) for line, of in groups if of]


SCORES = (
    ("How much of the area is right?", ("IoU", "Dice")),
    ("Does the outline fit?", ("NSD", "boundary F1", "boundary IoU", "ASSD")),
    ("Could one stray region do harm?", ("Hausdorff distance", "HD95")),
    ("Is each object found, complete and separate?", ("AP", "panoptic quality")),
    ("Are neighbours separated?", ("Rand score",)),
    ("Is every class found, including the rare ones?", ("mean IoU", "balanced accuracy")),
    ("Which classes does the network confuse?", ("confusion matrix",)),
)
"""Which score answers which question; the glossary says what each is."""


# As tables


def ledger_table(entries: Sequence[Entry]) -> Table:
    """The ledger, to show: each claim with its verdict, its drawn figure and its numbers, a teacher's words, and where."""
    rows, text = [], []
    for entry in entries:
        teacher = entry.result.teacher if entry.result else ""
        rows.append(
            (
                f"<b>{entry.claim}</b>",
                html.escape(entry.statement),
                f"{MARKS[entry.kind]} {html.escape(entry.verdict)}",
                f"{interval_picture(entry)}{html.escape(entry.figure)}<br><small>{html.escape(entry.effect)}</small>",
                html.escape(teacher),
                _anchor(entry.place),
            )
        )
        text += [
            f"{entry.claim}  {entry.statement}",
            f"     {MARKS[entry.kind]} {entry.verdict}. {teacher}".rstrip(),
        ]
        text += [f"     {entry.effect}: {entry.figure}" if entry.effect else f"     {entry.figure}"]
        text += [f"     {entry.place}" if entry.place else "     no notebook shows it yet", ""]
    columns = {
        "claim": 5,
        "textbook claim": 17,
        "verdict": 16,
        "measured": 25,
        "a teacher would say": 25,
        "where": 12,
    }
    return Table("\n".join(text).rstrip(), html_table(columns, rows))


def summary_table(entries: Sequence[Entry]) -> Table:
    """The summary, to show: for each line its claims, with verdict, number and a link to the section that measured it."""
    rows, text = [], []
    for line, of_line in by_line(entries):
        text += [line.topic, f"    {line.point}"]
        first = f"<b>{html.escape(line.topic)}</b><br>{html.escape(line.point)}"
        for entry in of_line:
            rows.append(
                (
                    first,
                    f"{entry.claim} {html.escape(entry.statement)}<br>"
                    f"<b>{MARKS[entry.kind]} {html.escape(entry.verdict)}</b>",
                    f"{interval_picture(entry)}{html.escape(entry.figure)}<br>{html.escape(entry.effect)}",
                    _anchor(entry.place),
                )
            )
            text.append(f"    {MARKS[entry.kind]} {entry.claim}  {entry.figure}  {entry.verdict}")
            text.append(f"           {entry.statement}")
            text += [f"           {entry.effect}"] if entry.effect else []
            text += [f"           {entry.place}"] if entry.place else []
            first = ""  # the line is said once, before its first claim
        text.append("")
    columns = {"summary": 24, "claim and verdict": 28, "measured": 33, "where": 15}
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
        return "no notebook shows it yet"
    words = f"{place.chapter.partition('_')[0]}, {place.heading}"
    return f'<a href="{html.escape(place.link)}">{html.escape(words)}</a>'


def interval_picture(entry: Entry, width: int = 150, height: int = 20) -> str:
    """A claim's interval as a small drawing, an `<img>` that needs no other file; empty where there is none.

    The dashed line is "no effect". Each image has its own scale, for effects have different units. The interval is blue
    where the claim is decided, orange where it is not.
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
