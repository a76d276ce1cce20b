"""The flashcards as a deck for Anki, the same file from the same cards."""

import hashlib
import html
import io
import zipfile
from pathlib import Path

from course_lib.files import write_atomically
from course_lib.teaching import questions
from course_lib.teaching.course_map import CHAPTERS

NAME = "Image segmentation"
# Ids and times are part of the file: fixed ones make it the same every time, and by its id Anki knows a card again. (It
# takes over a changed text where one chooses to update notes always, for the time stays the same, too.)
MODEL_ID, TIMESTAMP = 1_735_689_601, 1_735_689_600.0
STYLE = """.card { font-family: sans-serif; font-size: 20px; text-align: center; }
.measured { font-size: 16px; }
.about { color: #767676; font-size: 14px; }"""


def write(path: Path) -> int:
    """Write the deck of all cards, a sub-deck for each chapter; returns how many cards it holds.

    Args:
        path: where to, usually with the ending `.apkg`; an existing file is replaced.

    Raises:
        ValueError: if the path has another ending, which Anki would not open.
    """
    if path.suffix != ".apkg":
        raise ValueError(f"--out {path}: Anki opens files that end in .apkg.")
    import genanki

    model = genanki.Model(
        MODEL_ID,
        f"{NAME} card",
        fields=[{"name": name} for name in ("Front", "Back", "Measured", "About")],
        templates=[
            {
                "name": "Card",
                "qfmt": "{{Front}}",
                "afmt": '{{FrontSide}}<hr id="answer">{{Back}}'
                '<p class="measured">{{Measured}}</p><p class="about">{{About}}</p>',
            }
        ],
        css=STYLE,
    )
    titles = {chapter.number: chapter.short.replace("\n", " ") for chapter in CHAPTERS}
    decks, count = [], 0
    for chapter, cards in questions.load().cards.items():
        deck = genanki.Deck(
            _number(f"deck {chapter}"), f"{NAME}::{chapter} {titles[chapter].replace(':', '')}"
        )
        for card in cards:
            fields = [
                html.escape(text)
                for text in (card.front, card.back, questions.measured(card), f"{card.id}, {card.about}")
            ]
            tags = [f"chapter-{chapter}", card.about.replace(" ", "-")]
            deck.add_note(genanki.Note(model, fields, guid=f"segmentation-course-{card.id}", tags=tags))
        decks.append(deck)
        count += len(cards)
    buffer = io.BytesIO()
    genanki.Package(decks).write_to_file(buffer, timestamp=TIMESTAMP)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _without_times(buffer.getvalue()))
    return count


def _number(text: str) -> int:
    """A whole number for a name, the same everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _without_times(package: bytes) -> bytes:
    """The same archive, its entries' times fixed."""
    fixed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(package)) as old,
        zipfile.ZipFile(fixed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            plain = zipfile.ZipInfo(entry.filename, date_time=(1980, 1, 1, 0, 0, 0))
            plain.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(plain, old.read(entry))
    return fixed.getvalue()
