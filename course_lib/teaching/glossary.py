"""The words of the field as this course uses them, from one file: `data/study/glossary.json`.

    from course_lib.teaching import glossary
    glossary.search("iou")            # the terms that are called so, then those that speak of it
    glossary.compare("IoU", "Dice")   # two that are easily confused, side by side
    glossary.table()                  # all of them, by letter

The file holds a list `terms`, sorted: `term`, `means` (what it is), `notebook` (the number of the one that
treats it, which need not be the first to name it),
`see` (other terms), and where there are any `also` (other names) and `forms` (the word as it stands in sentences, for
searching). A measured number stands in no entry: those are in `data/results`.
"""

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from course_lib import resources
from course_lib.teaching.course_map import CHAPTERS
from course_lib.teaching.tables import Table, fold, html_table

FILE = resources.DATA / "study" / "glossary.json"
CONFUSED = (
    ("IoU", "Dice"),
    ("semantic segmentation", "instance segmentation"),
    ("loss", "metric"),
    ("precision", "recall"),
    ("softmax", "sigmoid"),
    ("stride", "receptive field"),
    ("same padding", "valid padding"),
    ("transposed convolution", "bilinear interpolation"),
    ("anchor", "proposal", "RoI"),
    ("RoI Align", "RoI Pool"),
    ("boundary IoU", "boundary F1"),
    ("Hausdorff distance", "HD95", "ASSD"),
    ("weighted cross-entropy", "focal loss"),
    ("FCN", "U-Net"),
    ("over-segmentation", "under-segmentation"),
    ("thing", "stuff"),
)
"""Terms that are easily confused."""

CHAPTER_OF = {chapter.number: chapter.name for chapter in CHAPTERS}


@dataclass(frozen=True)
class Term:
    """A word of the field.

    Attributes:
        term: the word.
        means: what it is, in a sentence.
        notebook: the number of the notebook that treats it, such as `"03"`.
        see: other terms that explain it or differ from it.
        also: other names of the same thing.
        forms: how the word stands in sentences; not shown, but found.
    """

    term: str
    means: str
    notebook: str
    see: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.term, *self.also, *self.forms)

    def __str__(self) -> str:
        also = f" ({', '.join(self.also)})" if self.also else ""
        see = f" See: {', '.join(self.see)}." if self.see else ""
        return f"{self.term}{also}: {self.means}{see} [{self.notebook}]"


def load(path: Path | None = None) -> tuple[Term, ...]:
    """Read and check the glossary; the terms in its order.

    Raises:
        ValueError: if a term is there twice, out of order, incomplete, or sees one that is not there; the message names it.
    """
    path = path or FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}.") from None
    terms = tuple(_term(entry) for entry in content["terms"])
    taken: dict[str, str] = {}
    for term in terms:
        for name in map(str.casefold, term.names):
            if name in taken:
                raise ValueError(
                    f"{term.term}: {name!r} is a name of {taken[name]!r} already; it must belong to one term."
                )
            taken[name] = term.term
    for before, after in zip(terms, terms[1:], strict=False):
        if before.term.casefold() > after.term.casefold():
            raise ValueError(f"{after.term}: it comes after {before.term!r}; the terms must be sorted.")
    known = {term.term for term in terms}
    for term in terms:
        if missing := [name for name in term.see if name not in known or name == term.term]:
            raise ValueError(f"{term.term}: see is {missing[0]!r}; it must be another term.")
    return terms


def _term(entry: dict[str, Any]) -> Term:
    name = entry.get("term")
    for key in ("term", "means"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ValueError(f"{name}: {key} is {entry.get(key)!r}; it must be some text.")
    if entry.get("notebook") not in CHAPTER_OF:
        raise ValueError(
            f"{name}: notebook is {entry.get('notebook')!r}; it must be one of {', '.join(CHAPTER_OF)}."
        )
    lists = {key: tuple(entry.get(key, ())) for key in ("see", "also", "forms")}
    return Term(name, entry["means"], entry["notebook"], **lists)


def search(text: str) -> Table:
    """The terms that a text leads to, as a table: those called so, then those whose names hold it, then what speaks of it.

    Args:
        text: a word or a part of one, in any case.

    Raises:
        ValueError: if it is empty, or nothing speaks of it.
    """
    return _shown(find(text))


def find(text: str) -> tuple[Term, ...]:
    """The terms themselves, as `search` shows them."""
    wanted = text.strip().casefold()
    if not wanted:
        raise ValueError("text is empty; it must be a word, or show all with table().")
    ranked = []
    for term in load():
        names = [name.casefold() for name in term.names]
        if wanted in names:
            ranked.append((0, term))
        elif any(wanted in name for name in names):
            ranked.append((1, term))
        elif wanted in term.means.casefold():
            ranked.append((2, term))
    if not ranked:
        raise ValueError(f"text is {text!r}; no term has this name or mentions it. table() shows all.")
    return tuple(term for _, term in sorted(ranked, key=lambda pair: pair[0]))


def get(name: str) -> Term:
    """The term with this name, one of its other names, or the word in another form.

    Raises:
        ValueError: if there is none; the message names those that come near.
    """
    terms = load()
    for term in terms:
        if name.casefold() in map(str.casefold, term.names):
            return term
    near = [term.term for term in terms if any(name.casefold() in other.casefold() for other in term.names)]
    raise ValueError(
        f"{name!r} is not a term; {'did you mean ' + ', '.join(near) + '?' if near else 'see table().'}"
    )


def compare(*names: str) -> Table:
    """Terms that are easily confused, one below the other.

    Raises:
        ValueError: for fewer than two names, or one that is no term.
    """
    if len(names) < 2:
        raise ValueError(f"names has {len(names)} entries; it must have two or more.")
    return _shown([get(name) for name in names])


def confused() -> Table:
    """The terms of `CONFUSED`, each set behind a question: say the difference first, then open it."""
    pages, lines = [], []
    for names in CONFUSED:
        shown, question = compare(*names), " or ".join(names) + "?"
        pages.append(fold(question, shown.page))
        lines += [question, *(f"    {line}" for line in shown.text.splitlines())]
    return Table("\n".join(lines), "".join(pages))


def table() -> Table:
    """All terms, under their first letters."""
    parts, lines = [], []
    for letter, group in groupby(load(), key=lambda term: _letter(term.term)):
        shown = _shown(group)
        parts.append(f"<h4>{letter}</h4>{shown.page}")
        lines += [f"-- {letter} --", shown.text]
    return Table("\n".join(lines), "".join(parts))


def _letter(name: str) -> str:
    return name[0].upper() if name[0].isalpha() else "0–9"


def _shown(terms: Iterable[Term]) -> Table:
    terms, rows = list(terms), []
    for term in terms:
        also = f"<br><small>{html.escape(', '.join(term.also))}</small>" if term.also else ""
        see = f" <small>See: {html.escape(', '.join(term.see))}.</small>" if term.see else ""
        link = f'<a href="{CHAPTER_OF[term.notebook]}.ipynb">{term.notebook}</a>'
        rows.append((f"<b>{html.escape(term.term)}</b>{also}", html.escape(term.means) + see, link))
    return Table(
        "\n".join(map(str, terms)), html_table({"term": 19, "what it is": 72, "treated in": 9}, rows)
    )
