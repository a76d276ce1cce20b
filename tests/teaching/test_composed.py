"""Lectures composed from a chapter's cells, and the rules they keep."""

import re
from itertools import product

import nbformat
import pytest

from course_lib.teaching import discovery, ledger
from course_lib.teaching.slides import SlidesError, composed, of_chapter, page

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
LONG = f"Result: 7 (How {'very ' * 15}long is it?)\n"
NOTES = "\n@notes\nSay it.\n"


@pytest.fixture
def compose(tmp_path):
    """From the text of a `slides.md` to its deck; the notebook has the cells `plot`, `print`, `bare` and `guess`."""
    new = nbformat.v4
    picture = new.new_output("display_data", {"image/png": IMAGE})
    cells = [
        new.new_code_cell("a = 1\nif a:\n    b = 2\n    c = 3", id="plot", outputs=[picture, picture]),
        new.new_markdown_cell("Figure: a square.", id="words"),
        new.new_code_cell(
            "print(1)", id="print", outputs=[new.new_output("stream", text="one\ntwo\nthree\n")]
        ),
        new.new_code_cell("pass", id="bare"),
        new.new_code_cell("q", id="guess", outputs=[new.new_output("stream", text=LONG)]),
    ]
    notebook = tmp_path / "03_test.ipynb"
    nbformat.write(new.new_notebook(cells=cells), notebook)

    def deck(text):
        path = tmp_path / "slides.md"
        path.write_text(text, encoding="utf-8")
        return composed.read(path, [notebook])

    return deck


def test_a_deck_fetches_what_its_slides_name(compose):
    deck = compose(
        f"# One\n@title\nBy us{NOTES}---\n# Two *means* two\n$x^2$ grows.\n"
        f"@figure plot 2 | a dot\n@code plot 3-4\n@output print 2{NOTES}"
    )
    assert deck.title == "One" and composed.problems(deck) == []
    first, second = deck.slides
    assert first.layout == "talk title-slide" and first.begins
    assert [block.kind for block in second.blocks] == ["text", "image", "code", "output"]
    text, image, code, output = (block.html for block in second.blocks)
    assert second.title == "Two <em>means</em> two" and "<math" in text and 'alt="a dot"' in image
    assert code.count("\n") == 1 and "    " not in code and output == "<pre>two</pre>"
    assert "Say it." in second.notes[0] and 'class="slide talk"' in page(deck)


def test_verdicts_come_from_the_results(compose):
    (one,), (two,) = (
        slide.blocks for slide in compose(f"# A\n@verdict 7.3{NOTES}---\n# B\n@verdict 7.1 7.3{NOTES}").slides
    )
    lines = ledger.short_lines(ledger.read("7.3"))
    assert one.kind == "output" and one.html == f"<pre>{chr(10).join(lines)}</pre>"
    assert two.html == f"<pre>7.1  demonstrated\n{lines[0]}</pre>"


@pytest.mark.parametrize("claim", discovery.claims())
def test_the_verdict_of_each_claim_fits_a_slide(claim):
    result = ledger.read(claim)
    first, *others = ledger.short_lines(result)
    assert max(map(len, [first, *others])) <= composed.MOST_COLUMNS
    assert first.startswith(f"{claim}  {result.verdict.split()[0]}")
    assert len(others) == (len(result.comparisons) if len(result.comparisons) > 1 else 0)


def test_short_verdicts_in_words():
    one = {"mean": 0.1, "low": -0.02, "high": 0.2, "ratio": False, "verdict": "supported"}
    settings = {"cells": one, "streets": one | {"ratio": True, "verdict": "undecided"}}

    def lines(verdict, comparisons, **more):
        return ledger.short_lines(ledger.Result("9.9", "", "", None, verdict, "", 5, {}, comparisons, **more))

    assert lines("supported", {"": one}) == ["9.9  supported  +0.100 [-0.020, +0.200]"]
    assert lines("supported when: cells", settings) == [
        "9.9  supported in 1 of 2 settings",
        "     +0.100 [-0.020, +0.200]  cells: supported",
        "     0.100 [-0.020, 0.200]  streets: undecided",
    ]
    assert lines("undecided", {}, missing=1, reason="long") == ["9.9  undecided: 1 run missing"]
    assert lines("undecided", {}, reason="not learned (cells)") == ["9.9  undecided: not learned"]


def test_a_long_question_after_its_result_is_wrapped(compose):
    deck = compose(f"# A\n@output guess{NOTES}")
    assert composed.problems(deck) == []
    assert deck.slides[0].blocks[0].html.count("\n  ") == 1


@pytest.mark.parametrize("controls", ["threshold threshold", "boxes b_x b_y"])
def test_a_widget_becomes_frames_that_need_no_kernel(compose, controls, monkeypatch):
    monkeypatch.setattr(composed, "FRAMES", {1: 6, 2: 4})
    html = page(compose(f"# Widget\n@widget {controls}{NOTES}"))
    lasts = [int(last) for last in re.findall(r'type="range" min="0" max="(\d+)"', html)]
    places = [
        tuple(map(int, at.split()))
        for at in re.findall(r'<img src="data:image/webp[^>]*data-at="([^"]+)"', html)
    ]
    assert places == list(product(*(range(last + 1) for last in lasts)))
    assert len(lasts) == len(controls.split()) - 1 and html.count(" hidden>") == len(places) - 1
    assert 1 < lasts[0] < composed.FRAMES[len(lasts)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("No heading", "does not begin with '# '"),
        ("# A\n@figure nowhere", "names no cell"),
        ("# A\n@figure bare", "has 0 of what @figure asks for"),
        ("# A\n@figure plot 3", "has 2 of what @figure asks for"),
        ("# A\n@code plot 3-9", "there are no lines 3-9; there are 4"),
        ("# A\n@code plot b", "names no lines"),
        ("# A\n@verdict 1.9", "claim 1.9 has no result yet"),
        ("# A\n@verdict", "@verdict names no claim"),
        ("# A\n@sing plot", "there is no command @sing"),
        ("# A\n@widget threshold nothing", "no such widget or control"),
        ("# A\n@widget nothing nothing", "no such widget or control"),
        ("# A\n@widget threshold", "names 0 controls; name one, or two"),
        ("# A\n![x](y.png)", "fetch an image with @figure"),
    ],
)
def test_what_is_not_there_is_named_with_its_slide(compose, text, message):
    with pytest.raises(SlidesError, match=message):
        compose(text)


@pytest.mark.parametrize(
    "text, message",
    [
        (f"# A\n{'word ' * 41}{NOTES}", "slide 1 has 41 words; at most 40"),
        (f"# A\nb{NOTES}---\n# A\nc{NOTES}", "slide 2 has the title of the one before"),
        ("# A\nb", "slide 1 has no notes"),
    ],
)
def test_the_rules_of_a_lecture(compose, text, message):
    assert [problem for problem in composed.problems(compose(text)) if message in problem]


def test_nine_lines_of_code_are_too_many(compose, monkeypatch):
    monkeypatch.setattr(composed, "MOST_LINES", 3)
    assert "4 lines of code; at most 3" in composed.problems(compose(f"# A\n@code plot{NOTES}"))[0]


@pytest.mark.parametrize("chapter", composed.sources())
@pytest.mark.slow
def test_a_chapter_s_lecture_keeps_the_rules(chapter):
    deck = composed.read(composed.sources()[chapter])
    assert composed.problems(deck) == []
    assert 20 <= len(deck.slides) <= 30
    assert "title-slide" in deck.slides[0].layout and "references-slide" in deck.slides[-1].layout
    assert sum("divider-slide" in slide.layout for slide in deck.slides) >= 2


def test_a_chapter_without_a_lecture_is_its_notebook(tmp_path):
    cell = nbformat.v4.new_markdown_cell("# Title", metadata={"slideshow": {"slide_type": "slide"}})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "99_none.ipynb")
    assert of_chapter(tmp_path / "99_none.ipynb").slides[0].layout == ""
