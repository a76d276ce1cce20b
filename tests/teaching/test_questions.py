"""The quiz, the flashcards and the Anki deck: one file, checked, shown without the net, opened and counted."""

import ast
import hashlib
import importlib.util
import json
import re
import sqlite3
import struct
import zipfile
from pathlib import Path

import pytest

from course_lib.__main__ import main
from course_lib.teaching import anki, discovery, ledger, questions
from course_lib.teaching.course_map import CHAPTERS as COURSE

PROJECT = Path(__file__).resolve().parents[2]
DECK = questions.load()
CHAPTERS = [*(f"{number:02d}" for number in range(1, 10)), "09b", "09c", "12", "A"]
QUESTIONS = [question for chapter in DECK.quiz.values() for question in chapter]
CARDS = [card for chapter in DECK.cards.values() for card in chapter]


def test_each_chapter_has_its_quiz_and_its_cards():
    assert list(DECK.quiz) == list(DECK.cards) == CHAPTERS
    for chapter in CHAPTERS:
        asked = DECK.quiz[chapter]
        assert len(asked) == 15 and sum(bool(one.code or one.figure) for one in asked) >= 7, chapter
        # The parts of chapter 9 and the appendix are half as long as a chapter.
        assert (8 if chapter < "09" else 4) <= len(DECK.cards[chapter]) <= 14, chapter
    assert set(CHAPTERS) <= {chapter.number for chapter in COURSE}


@pytest.mark.parametrize("question", QUESTIONS, ids=[question.id for question in QUESTIONS])
def test_a_question_has_one_right_answer_and_a_reason_for_each(question):
    assert sum(choice.right for choice in question.choices) == 1
    assert any(not choice.right for choice in question.choices)
    assert all(choice.because.strip() for choice in question.choices)


SHOWING = [question for question in QUESTIONS if question.figure]


@pytest.mark.parametrize("question", SHOWING, ids=[question.id for question in SHOWING])
def test_a_figure_is_small_and_the_same_every_time(question):
    import matplotlib.pyplot as plt

    image = question.image()
    questions._drawn.cache_clear()
    assert question.image() == image and not plt.get_fignums()
    width, height = struct.unpack(">2I", image[16:24])
    assert 800 <= width <= 1200 and 250 <= height <= 640 and len(image) < 200_000


def test_a_question_without_a_figure_has_no_image():
    with pytest.raises(ValueError, match="01-q1: it has no figure"):
        DECK.quiz["01"][0].image()


def test_the_code_of_a_question_is_python():
    shown = [question for question in QUESTIONS if question.code]
    assert shown and all(ast.parse(question.code).body for question in shown)


def test_every_claim_has_a_question_or_a_card_and_every_measured_claim_is_known():
    asked = {entry.about for entry in [*QUESTIONS, *CARDS]}
    assert {f"claim {claim}" for claim in DECK.claims} <= asked
    assert set(discovery.claims()) <= set(DECK.claims)


def test_no_measured_number_is_typed_into_the_file():
    """A card shows a result by its claim; the number itself stands in data/results alone."""
    typed = " ".join(f"{card.front} {card.back}" for card in CARDS)
    for path in ledger.FOLDER.glob("[0-9].[0-9].json"):
        found = ledger.read(path.stem)
        if found.interval:
            assert f"{found.interval.mean:.3f}" not in re.findall(r"\d\.\d{3}\b", typed)


def test_a_card_with_a_claim_shows_its_result():
    card = next(card for card in CARDS if card.result == "4.1")
    found = ledger.read("4.1")
    assert found.verdict in questions.back_of(card) and str(found.interval) in questions.back_of(card)
    of_some = next(card for card in CARDS if card.result == "8.1")
    assert f"{ledger.read('8.1').interval} (fine-tuned on 32 images)." in questions.back_of(of_some)
    of_one = next(card for card in CARDS if card.setting)
    chosen = ledger.read(of_one.result).comparisons[of_one.setting]
    assert f"{chosen['mean']:+.3f}" in questions.back_of(of_one) and of_one.setting in questions.back_of(
        of_one
    )
    unmeasured = questions.Card("x", "claim 9.9", "front", "back", "9.9")
    assert questions.back_of(unmeasured) == "back Claim 9.9 is not measured yet."


# Faults in the file


def faulty(tmp_path, change):
    content = json.loads(discovery.with_file("questions.json")["01"].read_text(encoding="utf-8"))
    change(content["quiz"], content["cards"])
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return {"01": path}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda quiz, cards: quiz[0]["choices"][1].update(right=True),
            "01-q1: 2 of its choices are right; 1 should be",
        ),
        (
            lambda quiz, cards: quiz[0]["choices"][0].update(right=False),
            "01-q1: 0 of its choices are right; 1 should be",
        ),
        (
            lambda quiz, cards: quiz[0]["choices"][2].update(because=" "),
            "01-q1: because is ' '; it must be some text",
        ),
        (lambda quiz, cards: quiz[0].update(claim="9.9"), "01-q1: there is no claim '9.9'"),
        (lambda quiz, cards: quiz[0].update(section="x"), "01-q1: it must have a claim or a section"),
        (lambda quiz, cards: quiz[0].pop("choices"), "01-q1: it must have choices or a number"),
        (lambda quiz, cards: quiz[1].update(id="01-q1"), "01-q1: the id occurs twice"),
        (lambda quiz, cards: quiz[1].update(id="q1"), "id is 'q1'; it must begin with '01-'"),
        (
            lambda quiz, cards: quiz[1]["number"].pop("within"),
            "01-q2: within is None; it must be a small positive number",
        ),
        (
            lambda quiz, cards: quiz[1]["wrong"][0].update(value=0.3331),
            "01-q2: the wrong number 0.3331 lies within",
        ),
        (lambda quiz, cards: quiz[1].pop("wrong"), "01-q2: it needs a wrong answer"),
        (lambda quiz, cards: quiz[0].update(code=" "), "01-q1: code is ' '; it must be some text"),
        (
            lambda quiz, cards: quiz[0].update(code="a = 1\n" * 13),
            "01-q1: code has 13 lines of up to 5 letters; it must have at most 12 lines of at most 72",
        ),
        (lambda quiz, cards: quiz[0].update(code="#" * 73), "01-q1: code has 1 lines of up to 73 letters"),
        (lambda quiz, cards: quiz[0].update(figure=2), "01-q1: figure is 2; it must be some text"),
        (
            lambda quiz, cards: quiz[0].update(figure="Two boxes."),
            "01-q1: it has a figure; FIGURES in question_figures.py must have a function for it",
        ),
        (
            lambda quiz, cards: [entry.pop("figure", 0) for entry in quiz],
            "FIGURES in question_figures.py draws it; it must be a question with a 'figure'",
        ),
        (lambda quiz, cards: cards[0].pop("back"), "01-c1: back is None; it must be some text"),
        (lambda quiz, cards: cards[0].update(result="7.9"), "01-c1: result is '7.9'; there is no such claim"),
        (lambda quiz, cards: cards[1].update(id="01-q1"), "01-q1: the id occurs twice"),
    ],
)
def test_each_fault_is_found_and_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        questions.load(faulty(tmp_path, change))


def test_two_right_answers_can_be_asked_for(tmp_path):
    def two(quiz, cards):
        quiz[0]["choices"][1]["right"] = True
        quiz[0]["right"] = 2

    question = questions.load(faulty(tmp_path, two)).quiz["01"][0]
    assert sum(choice.right for choice in question.choices) == 2
    assert questions._for_jupyterquiz(question)["type"] == "many_choice"


def test_a_file_that_is_no_json_and_an_unknown_chapter_are_one_sentence(tmp_path):
    (tmp_path / "q.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"q\.json of chapter 01 is not JSON"):
        questions.load({"01": tmp_path / "q.json"})
    with pytest.raises(ValueError, match="chapter is '13'; it must be one of 01, 02"):
        questions.quiz("13")


# In a notebook


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in a list, and a net that cannot be reached."""
    import socket

    import IPython.display

    def no_net(*args, **kwargs):
        raise AssertionError("the net was asked")

    monkeypatch.setattr(socket, "create_connection", no_net)
    monkeypatch.setattr(socket.socket, "connect", no_net)
    seen = []
    monkeypatch.setattr(IPython.display, "display", lambda what, **kwargs: seen.append(what))
    return seen


@pytest.mark.parametrize("show", [questions.quiz, questions.cards], ids=["quiz", "cards"])
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_it_shows_itself_the_same_every_time_and_loads_nothing(show, chapter, shown):
    show(chapter)
    first = [what if isinstance(what, dict) else what.data for what in shown]
    show(chapter)
    second = [what if isinstance(what, dict) else what.data for what in shown[len(first) :]]
    assert first == second and len(first) == 2
    bundle, script = first
    page = bundle["text/html"]
    assert not re.search(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=", page)
    assert not re.search(r"\bimport\(|@import|url\(", page)
    # What is left of addresses are names of formats, which are never fetched, and notes on who wrote it.
    addresses = set(re.findall(r"https?://[^\s\"'<>)`]+", page + script))
    assert all(
        re.match(r"https?://(www\.w3\.org|schema\.org|github\.com|stackoverflow\.com)", one)
        for one in addresses
    )
    assert "fetch(" not in script and "XMLHttpRequest" not in script


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_question_and_card_can_be_read_without_a_kernel(chapter, shown):
    import html

    def escaped(text):
        return html.escape(text, quote=False)

    questions.quiz(chapter)
    questions.cards(chapter)
    quiz, cards = (what for what in shown if isinstance(what, dict))
    static_quiz = quiz["text/html"][quiz["text/html"].index("The questions, to read") :]
    static_cards = cards["text/html"][cards["text/html"].index("The cards, to read") :]
    for question in DECK.quiz[chapter]:
        assert escaped(question.question) in static_quiz and question.question in quiz["text/plain"]
        assert escaped(question.code) in static_quiz and question.figure in quiz["text/plain"]
        assert html.escape(question.figure) in static_quiz
        assert all(line in quiz["text/plain"] for line in question.code.splitlines())
        assert all(html.escape(choice.because) in static_quiz for choice in question.choices)
    for card in DECK.cards[chapter]:
        for text in (card.front, questions.back_of(card)):
            assert html.escape(text) in static_cards and text in cards["text/plain"]


def test_a_figure_is_in_the_live_quiz_and_its_words_in_a_committed_one(shown, monkeypatch):
    image = questions.data_uri(SHOWING[0])
    chapter = SHOWING[0].id.partition("-")[0]
    questions.quiz(chapter)
    live = shown[1].data
    assert image.startswith("data:image/png;base64,") and image in live
    monkeypatch.setenv("COURSE_QUIZ_FIGURES", "0")
    questions.quiz(chapter)
    assert not [what for what in (shown[2]["text/html"], shown[3].data) if "base64" in what]
    assert f"<em data-figure='{SHOWING[0].id}'>[" in shown[3].data and len(shown[3].data) < 100_000

    spec = importlib.util.spec_from_file_location("docs_build", PROJECT / "docs" / "build.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    assert site.with_figures(shown[3].data) == live  # the site has the figures again


def test_showing_a_quiz_leaves_the_random_numbers_as_they_were(shown):
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    questions.quiz("01")
    assert random.random() == expected


def test_a_right_number_is_inside_its_range_and_wrong_ones_are_not(shown):
    for question in QUESTIONS:
        if question.is_number:
            entry = questions._for_jupyterquiz(question)
            right = [answer for answer in entry["answers"] if answer.get("correct")]
            assert (
                len(right) == 1
                and right[0]["range"][0] <= float(question.choices[0].answer) < right[0]["range"][1]
            )
            for choice in question.choices[1:]:
                value = float(choice.answer)
                first = next(
                    a for a in entry["answers"] if "range" in a and a["range"][0] <= value < a["range"][1]
                )
                assert not first["correct"] and first["feedback"]


def test_the_right_choice_is_not_always_the_first():
    places = [
        [choice.right for choice in questions.in_fixed_order(question)].index(True)
        for question in QUESTIONS
        if not question.is_number
    ]
    assert len(set(places)) >= 3


@pytest.mark.parametrize("pick", [max, min], ids=["longest", "shortest"])
def test_the_length_of_an_answer_does_not_give_it_away(pick):
    """Who always takes the longest choice, or the shortest, is right hardly more often than by chance."""
    for listed, margin in [(QUESTIONS, 0.1), *((chapter, 0.3) for chapter in DECK.quiz.values())]:
        asked = [question.choices for question in listed if not question.is_number]
        right = 0
        for choices in asked:
            lengths = [len(choice.answer) for choice in choices]
            picked = [c for c, length in zip(choices, lengths, strict=True) if length == pick(lengths)]
            right += sum(choice.right for choice in picked) / len(picked)
        chance = sum(1 / len(choices) for choices in asked)
        assert right < chance + margin * len(asked), listed[0].id


# Anki


def opened(path, tmp_path):
    """What a deck holds: notes as fields, and its decks' names."""
    with zipfile.ZipFile(path) as package:
        assert {"collection.anki2", "media"} <= set(package.namelist())
        (tmp_path / "collection.anki2").write_bytes(package.read("collection.anki2"))
    with sqlite3.connect(tmp_path / "collection.anki2") as collection:
        notes = collection.execute("SELECT guid, flds FROM notes").fetchall()
        cards = collection.execute("SELECT count(*) FROM cards").fetchone()[0]
        decks = json.loads(collection.execute("SELECT decks FROM col").fetchone()[0])
    collection.close()
    return (
        {guid: fields.split("\x1f") for guid, fields in notes},
        cards,
        {deck["name"] for deck in decks.values()},
    )


def test_the_deck_opens_and_holds_every_card(tmp_path, capsys):
    path = tmp_path / "new" / "cards.apkg"
    assert main(["cards", "--out", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["cards"] == len(CARDS)
    notes, cards, decks = opened(path, tmp_path)
    assert len(notes) == cards == len(CARDS)
    assert set(notes) == {f"segmentation-course-{card.id}" for card in CARDS}
    assert len([name for name in decks if name.startswith("Image segmentation::")]) == len(CHAPTERS)
    front, back, measured, about = notes["segmentation-course-01-c4"]
    assert (
        front == "How much of its bounding box does a disc fill?"
        and ledger.read("1.2").verdict.split("'")[0] in measured
    )
    assert about == "01-c4, claim 1.2" and max(len(fields[1]) for fields in notes.values()) <= 200


def test_the_deck_is_the_same_file_every_time(tmp_path):
    digests = set()
    for name in ("a", "b"):
        anki.write(tmp_path / f"{name}.apkg")
        digests.add(hashlib.sha256((tmp_path / f"{name}.apkg").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_another_ending_is_one_sentence(tmp_path, capsys):
    assert main(["cards", "--out", str(tmp_path / "cards.zip")]) == 1
    assert "Anki opens files that end in .apkg" in capsys.readouterr().err


def test_the_command_says_what_it_does(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["cards", "--help"])
    assert stopped.value.code == 0 and "Anki" in capsys.readouterr().out
