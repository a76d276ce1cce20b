"""The quiz and the flashcards of every chapter, from its file `questions.json`.

In a notebook `quiz("04")` and `cards("04")` show themselves by jupyterquiz and jupytercards, and leave the questions as
plain text for those who read without a kernel; `mixed_quiz()` and `mixed_cards()` draw from all chapters. Nothing is loaded
from the network.

A chapter's file holds:

- `quiz`: questions with an `id`, what they are about (a `claim` or a `section`), and either `choices`, each with `answer`,
  `right` and `because`, or a `number` with `value`, `within` and `because`, and the `wrong` numbers that people give. It
  may have `code` in Python, and a `figure`: its alternative text, while a function of the chapter's
  `question_figures.py`, which `FIGURES` names by the question's id, draws it when it is shown or exported;
- `cards`: an `id`, what they are about, `front`, `back`, and perhaps `result`, the claim whose measured result belongs on
  the back. It is read from `data/results` when the card is shown: no measured number is in the file.
"""

import base64
import hashlib
import html
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from course_lib.teaching import discovery
from course_lib.teaching.tables import fold

CODE_LINES, CODE_WIDTH = 12, 72
"""How long the code of a question may be, and how wide."""


@dataclass(frozen=True)
class Choice:
    """One answer to a question: what it says, whether it is right, and why or why not."""

    answer: str
    right: bool
    because: str


@dataclass(frozen=True)
class Question:
    """A question of a quiz.

    Attributes:
        id: never changes, such as `"04-q2"`.
        about: `"claim 4.1"` or the name of a section.
        question: the question.
        choices: the answers to choose from; for a question that asks for a number, the right one first and then those
            that people give wrongly.
        within: how far from the right number an answer may be; 0 for a question with choices.
        code: Python to read, or empty.
        figure: what is seen in the question's figure, for those who do not see it; empty where it has none.
    """

    id: str
    about: str
    question: str
    choices: tuple[Choice, ...]
    within: float = 0.0
    code: str = ""
    figure: str = ""

    @property
    def is_number(self) -> bool:
        return self.within > 0

    def image(self) -> bytes:
        """The figure as a PNG, about 960 × 380 pixels, the same every time.

        Raises:
            ValueError: if the question has none.
        """
        if not self.figure:
            raise ValueError(f"{self.id}: it has no figure.")
        return _drawn(self.id)


@dataclass(frozen=True)
class Card:
    """A flashcard; `result` is the claim whose result belongs on its back, or empty; of several settings, `setting`."""

    id: str
    about: str
    front: str
    back: str
    result: str = ""
    setting: str = ""


@dataclass(frozen=True)
class Deck:
    """All questions and cards.

    Attributes:
        claims: ids of the claims that are measured.
        quiz: chapter → its questions.
        cards: chapter → its cards.
    """

    claims: tuple[str, ...]
    quiz: dict[str, tuple[Question, ...]] = field(default_factory=dict)
    cards: dict[str, tuple[Card, ...]] = field(default_factory=dict)


def load(files: dict[str, Path] | None = None) -> Deck:
    """Read and check the questions of all chapters.

    Args:
        files: chapter → its file; by default those of the course.

    Raises:
        ValueError: if something in a file is missing, doubled or of the wrong kind; the message names the question.
    """
    claims = tuple(discovery.claims())
    quizzes, decks, seen = {}, {}, set()
    for chapter, path in (discovery.with_file("questions.json") if files is None else files).items():
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name} of chapter {chapter} is not JSON: {error}.") from None
        for entry in [*parts["quiz"], *parts["cards"]]:
            name = entry.get("id")
            if not isinstance(name, str) or not name.startswith(f"{chapter}-"):
                raise ValueError(f"chapter {chapter}: id is {name!r}; it must begin with '{chapter}-'.")
            if name in seen:
                raise ValueError(f"{name}: the id occurs twice; each question and card must have its own.")
            seen.add(name)
        quizzes[chapter] = tuple(_question(entry, claims) for entry in parts["quiz"])
        decks[chapter] = tuple(_card(entry, claims) for entry in parts["cards"])
        functions, wanted = set(_figures(chapter)), {one.id for one in quizzes[chapter] if one.figure}
        if missing := wanted - functions:
            raise ValueError(
                f"{min(missing)}: it has a figure; FIGURES in question_figures.py must have a function for it."
            )
        if missing := functions - wanted:
            raise ValueError(
                f"{min(missing)}: FIGURES in question_figures.py draws it; it must be a question with a 'figure', its "
                "alternative text."
            )
    return Deck(claims, quizzes, decks)


def _figures(chapter: str) -> dict[str, Callable[[], Any]]:
    """Id of a question → the function that draws its figure."""
    module = discovery.with_module("question_figures").get(chapter)
    return import_module(module).FIGURES if module else {}


@cache
def _drawn(name: str) -> bytes:
    import matplotlib.pyplot as plt

    from course_lib import plot

    with plt.rc_context():
        plot.style()
        # It is half as wide as a figure of a notebook, so its letters are smaller.
        plt.rcParams.update({"font.size": 11, "axes.titlesize": 11, "axes.labelsize": 11})
        figure = _figures(name.partition("-")[0])[name]()
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        plt.close(figure)
    return png.getvalue()


def _text(entry: dict[str, Any], key: str, name: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: {key} is {value!r}; it must be some text.")
    return value


def _about(entry: dict[str, Any], claims: tuple[str, ...], name: str) -> str:
    if ("claim" in entry) == ("section" in entry):
        raise ValueError(f"{name}: it must have a claim or a section, one of the two.")
    if "section" in entry:
        return _text(entry, "section", name)
    if entry["claim"] not in claims:
        raise ValueError(f"{name}: there is no claim {entry['claim']!r}; there are {', '.join(claims)}.")
    return f"claim {entry['claim']}"


def _question(entry: dict[str, Any], claims: tuple[str, ...]) -> Question:
    name = entry["id"]
    about, question = _about(entry, claims, name), _text(entry, "question", name)
    if ("choices" in entry) == ("number" in entry):
        raise ValueError(f"{name}: it must have choices or a number, one of the two.")
    if "choices" in entry:
        choices = tuple(
            Choice(_text(c, "answer", name), c.get("right") is True, _text(c, "because", name))
            for c in entry["choices"]
        )
        right, within = sum(choice.right for choice in choices), 0.0
        if right != entry.get("right", 1):
            raise ValueError(
                f"{name}: {right} of its choices are right; {entry.get('right', 1)} should be. If more than one should, "
                "say so with 'right': 2."
            )
    else:
        number = entry["number"]
        within = float(number.get("within", 0))
        if within <= 0:
            raise ValueError(
                f"{name}: within is {number.get('within')!r}; it must be a small positive number."
            )
        choices = (Choice(str(number["value"]), True, _text(number, "because", name)),) + tuple(
            Choice(str(wrong["value"]), False, _text(wrong, "because", name))
            for wrong in entry.get("wrong", [])
        )
        if close := [c for c in choices[1:] if abs(float(c.answer) - number["value"]) <= within]:
            raise ValueError(f"{name}: the wrong number {close[0].answer} lies within the right one.")
    answers = [choice.answer for choice in choices]
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise ValueError(f"{name}: it needs a wrong answer, and no answer twice; it has {answers}.")
    code, figure = (_text(entry, key, name) if key in entry else "" for key in ("code", "figure"))
    lines = code.splitlines()
    if len(lines) > CODE_LINES or max(map(len, lines), default=0) > CODE_WIDTH:
        raise ValueError(
            f"{name}: code has {len(lines)} lines of up to {max(map(len, lines))} letters; it must have at most "
            f"{CODE_LINES} lines of at most {CODE_WIDTH}."
        )
    return Question(name, about, question, choices, within, code, figure)


def _card(entry: dict[str, Any], claims: tuple[str, ...]) -> Card:
    name, result = entry["id"], entry.get("result", "")
    if result and result not in claims:
        raise ValueError(f"{name}: result is {result!r}; there is no such claim.")
    front, back = _text(entry, "front", name), _text(entry, "back", name)
    return Card(name, _about(entry, claims, name), front, back, result, entry.get("setting", ""))


def measured(card: Card) -> str:
    """What was measured of the card's claim, in one short sentence; empty where it belongs to none."""
    if not card.result:
        return ""
    from course_lib.teaching import ledger
    from course_lib.teaching.statistics import numbers

    try:
        found = ledger.read(card.result)
    except FileNotFoundError:
        return f"Claim {card.result} is not measured yet."
    if card.setting:
        one = found.comparisons[card.setting]
        return f"Claim {card.result}, measured: {one['verdict']}; {numbers(one)} ({card.setting})."
    number = f"; {found.interval}" if found.interval else ""
    if len(found.comparisons) > 1:
        number += f" ({found.setting})"
    return f"Claim {card.result}, measured: {found.verdict}{number}."


def back_of(card: Card) -> str:
    """The card's back, with what was measured."""
    return " ".join(part for part in (card.back, measured(card)) if part)


# In a notebook


def quiz(chapter: str) -> None:
    """Show a chapter's quiz in the notebook, such as `quiz("04")`.

    Raises:
        ValueError: if the chapter has none.
    """
    _show_quiz(_of(load().quiz, chapter), f"quiz {chapter}")


def cards(chapter: str) -> None:
    """Show a chapter's flashcards in the notebook, such as `cards("04")`.

    Raises:
        ValueError: if the chapter has none.
    """
    _show_cards(_of(load().cards, chapter), f"cards {chapter}")


def mixed_quiz(count: int = 12, seed: int = 0) -> None:
    """Show a quiz out of all chapters: `count` questions that `seed` draws, as evenly from each chapter as can be.

    Raises:
        ValueError: if there are not so many questions.
    """
    _show_quiz(draw(load().quiz, count, seed), f"mixed quiz {count} {seed}")


def mixed_cards(count: int | None = None, seed: int = 0) -> None:
    """Show flashcards out of all chapters: `count` that `seed` draws, as evenly from each chapter as can be.

    Args:
        count: how many; by default all of them, mixed.
        seed: another one draws others.

    Raises:
        ValueError: if there are not so many cards.
    """
    deck = load().cards
    count = sum(map(len, deck.values())) if count is None else count
    _show_cards(draw(deck, count, seed), f"mixed cards {count} {seed}")


def draw(chapters: dict[str, tuple], count: int, seed: int = 0) -> tuple:
    """Questions or cards out of all chapters, each with its chapter before the question: `[04] Why …`.

    From each chapter come as many as from any other, or one more, as long as it has so many. The order is mixed. The same
    seed draws the same everywhere.

    Args:
        chapters: chapter → its questions or its cards, as in `load().quiz` or `load().cards`.
        count: how many to draw.
        seed: another one draws others.

    Raises:
        ValueError: if `count` is no whole number from 1 to as many as there are.
    """
    most = sum(map(len, chapters.values()))
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
        raise ValueError(
            f"count is {count!r}; it must be a whole number from 1 to {most}, the number that there are."
        )

    def by_chance(text: str) -> bytes:
        return hashlib.sha256(f"{seed} {text}".encode()).digest()

    # Each chapter's first comes before any chapter's second, and so on: cut anywhere, the chapters are level.
    ranked = sorted(
        (place, by_chance(f"chapter {chapter} {place}"), chapter, entry)
        for chapter, entries in chapters.items()
        for place, entry in enumerate(sorted(entries, key=lambda entry: by_chance(entry.id)))
    )
    drawn = sorted(ranked[:count], key=lambda found: by_chance(f"order {found[3].id}"))
    return tuple(_with_chapter(entry, chapter) for _, _, chapter, entry in drawn)


def _with_chapter(entry: Question | Card, chapter: str) -> Question | Card:
    if isinstance(entry, Question):
        return replace(entry, question=f"[{chapter}] {entry.question}")
    return replace(entry, front=f"[{chapter}] {entry.front}")


def _show_quiz(questions: tuple[Question, ...], seed: str) -> None:
    from jupyterquiz.dynamic import display as shown_by

    entries = [_for_jupyterquiz(question) for question in questions]
    pieces = _pieces(shown_by, shown_by.display_quiz, entries, seed, max_width=680)
    _show(pieces, quiz_text(questions), quiz_html(questions))


def _show_cards(deck: tuple[Card, ...], seed: str) -> None:
    from jupytercards import dynamic as shown_by

    entries = [
        {"name": card.id, "front": html.escape(card.front), "back": html.escape(back_of(card))}
        for card in deck
    ]
    pieces = _pieces(shown_by, shown_by.display_flashcards, entries, seed, **CARD_COLOURS)
    _show(pieces, cards_text(deck), cards_html(deck))


def body(question: Question, source: str = "", with_code: bool = True) -> str:
    """A question without its choices as HTML: text, figure, code.

    Args:
        source: the address of the figure's image; without one its alternative text stands in brackets.
        with_code: whether the code is in it.
    """
    parts = [html.escape(question.question, quote=False)]
    if question.figure:
        alt = html.escape(question.figure)
        parts.append(
            f"<br><img src='{source}' alt='{alt}' style='max-width: 100%'>"
            if source
            else f"<br><em data-figure='{question.id}'>[{alt}]</em>"
        )
    if question.code and with_code:
        parts.append(f"<pre><code>{html.escape(question.code, quote=False)}</code></pre>")
    return "".join(parts)


def data_uri(question: Question) -> str:
    """The question's image as an address that holds the image itself; empty where it has no figure."""
    if not question.figure:
        return ""
    return f"data:image/png;base64,{base64.b64encode(question.image()).decode()}"


def quiz_text(questions: tuple[Question, ...]) -> str:
    """A quiz as plain text, for a terminal: the questions, and the answers below them."""
    lines = []
    for place, question in enumerate(questions, start=1):
        lines.append(f"{place}. {question.question}")
        lines += [f"   [{question.figure}]"] if question.figure else []
        lines += [f"       {line}" for line in question.code.splitlines()]
        lines += (
            [] if question.is_number else [f"   - {choice.answer}" for choice in in_fixed_order(question)]
        )
    return "\n".join([*lines, "", *(f"{k}: {_right(q)}" for k, q in enumerate(questions, start=1))])


def quiz_html(questions: tuple[Question, ...]) -> str:
    """A quiz to read without a kernel: each question, its choices, and the answers behind a fold."""
    parts = []
    for question in questions:
        listed = (
            ""
            if question.is_number
            else "".join(f"<li>{html.escape(c.answer)}</li>" for c in in_fixed_order(question))
        )
        reasons = "".join(
            f"<li>{'✓' if c.right else '✗'} {html.escape(c.answer)} {html.escape(c.because)}</li>"
            for c in question.choices
        )
        parts.append(
            f"<li>{body(question)}<ul>{listed}</ul>{fold(f'answer ({question.about})', f'<ul>{reasons}</ul>')}</li>"
        )
    return fold("The questions, to read", f"<ol>{''.join(parts)}</ol>")


def cards_text(deck: tuple[Card, ...]) -> str:
    """Flashcards as plain text, for a terminal."""
    return "\n".join(f"{card.front}\n    {back_of(card)}" for card in deck)


def cards_html(deck: tuple[Card, ...]) -> str:
    """Flashcards to read without a kernel: each question with its answer behind a fold."""
    return fold("The cards, to read", "".join(fold(card.front, html.escape(back_of(card))) for card in deck))


def _of(chapters: dict[str, tuple], chapter: str) -> tuple:
    if chapter not in chapters:
        raise ValueError(f"chapter is {chapter!r}; it must be one of {', '.join(chapters)}.")
    return chapters[chapter]


def _right(question: Question) -> str:
    return " / ".join(choice.answer for choice in question.choices if choice.right)


def in_fixed_order(question: Question) -> list[Choice]:
    """The choices in an order that is the same every time and does not begin with the right one each time."""
    return sorted(
        question.choices, key=lambda choice: hashlib.sha256((question.id + choice.answer).encode()).digest()
    )


def _for_jupyterquiz(question: Question) -> dict[str, Any]:
    # A committed notebook has the alternative text: an image in a script is large and compares badly.
    source = "" if os.environ.get("COURSE_QUIZ_FIGURES") == "0" else data_uri(question)
    asked = {"question": body(question, source, with_code=False)}
    if question.code:
        # Its widest lines fit into the widget at this size.
        asked["code"] = f"<span style='font-size: 13px'>{html.escape(question.code, quote=False)}</span>"
    if not question.is_number:
        answers = [
            {"answer": html.escape(c.answer), "correct": c.right, "feedback": html.escape(c.because)}
            for c in in_fixed_order(question)
        ]
        kind = "multiple_choice" if sum(c.right for c in question.choices) == 1 else "many_choice"
        return {**asked, "type": kind, "answers": answers}
    answers = []
    for choice in question.choices:
        value = float(choice.answer)
        within = question.within if choice.right else min(question.within, 0.005)
        answers.append(
            {
                "type": "range",
                "range": [value - within, value + within],
                "correct": choice.right,
                "feedback": html.escape(choice.because),
            }
        )
    answers.append({"type": "default", "feedback": "That is not right. Work it out again, step by step."})
    return {**asked, "type": "numeric", "answers": answers}


# Both packages can load MathJax from the network where a page has half of it. We write no formulas, so that is taken out.
NET = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-svg.js"
# JupyterLab has half of it: they then replace the page's own MathJax by one without a version, and stop with an error when
# they ask for it. Inside of this they find none, and leave the page's alone.
WITHOUT_MATHJAX = "(function () {{\nvar MathJax;\n{}\n}})();"


# The package's own green and orange are too light to read white letters on.
CARD_COLOURS = {"front_colors": ["#1B4F72"], "back_colors": ["#333333"], "text_colors": ["#FFFFFF"]}


def _pieces(
    module: Any, function: Any, entries: list[dict[str, Any]], seed: str, **options: Any
) -> list[tuple[str, str]]:
    """What `function` would display, as pairs of type and content, the same in every run."""
    displayed = []
    original = module.display
    module.display = displayed.append
    try:
        with _seeded(seed):  # the ids of their elements are random letters
            function(entries, **options)
    finally:
        module.display = original
    pieces = []
    for piece in displayed:
        kind, content = type(piece).__name__, str(piece.data).replace(NET, "data:,")
        pieces.append((kind, WITHOUT_MATHJAX.format(content) if kind == "Javascript" else content))
    return pieces


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Python's random numbers from a seed, and afterwards as they were."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _show(pieces: list[tuple[str, str]], text: str, static: str) -> None:
    from IPython.display import Javascript, display

    page = "".join(content for kind, content in pieces if kind == "HTML")
    if "</div>" not in page:  # jupyterquiz leaves its element open, and what follows would be within it
        page += "</div>"
    display({"text/plain": text, "text/html": page + static}, raw=True)
    for kind, content in pieces:
        if kind == "Javascript":
            display(Javascript(content))
