"""A notebook becomes slides: what goes where, formulas, images, notes, and what is refused."""

import base64
import functools
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from PIL import Image

from course_lib.__main__ import main
from course_lib.teaching import slides

CHAPTERS = slides.chapters()
chapter = functools.cache(slides.read)


def cell(source, slide_type=None, outputs=None, tags=(), **more):
    """A markdown cell, or a code cell where `outputs` is given."""
    made = new_markdown_cell(source) if outputs is None else new_code_cell(source, outputs=list(outputs))
    if slide_type is not None:
        made["metadata"]["slideshow"] = {"slide_type": slide_type}
    if tags:
        made["metadata"]["tags"] = list(tags)
    made.update(more)
    return made


def printed(text):
    return new_output("stream", name="stdout", text=text)


def png(width=30, height=20):
    """An image as a notebook holds it."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(buffer, "PNG")
    return new_output(
        "display_data",
        data={
            "image/png": base64.b64encode(buffer.getvalue()).decode() + "\n",
            "text/plain": "<Figure size 30x20>",
        },
    )


@pytest.fixture
def deck_of(tmp_path):
    """The slides of a notebook with these cells."""

    def make(*cells):
        path = tmp_path / "one.ipynb"
        nbformat.write(new_notebook(cells=list(cells)), path)
        return slides.read(path)

    return make


def kinds(slide):
    return [(block.kind, block.step) for block in slide.blocks]


# What goes where


def test_slide_types_say_what_is_a_slide_and_what_appears_with_which_key(deck_of):
    deck = deck_of(
        cell("# The chapter\n\nwords\n\nmore", "slide"),
        cell(
            "1 + 1", "fragment", [new_output("execute_result", data={"text/plain": "2"}, execution_count=1)]
        ),
        cell("with it", "-"),
        cell("left out", "skip"),
        cell("then this", "fragment"),
        cell("## A part", "subslide"),
        cell("goes on", "subslide"),
        cell("## Next section\n\nwords", "slide"),
    )
    first, part, on, section = deck.slides
    assert deck.title == "The chapter" and deck.warnings == []
    assert kinds(first) == [("text", 0), ("text", 0), ("code", 1), ("output", 1), ("text", 1), ("text", 2)]
    assert first.cells == [1, 2, 3, 5] and "left out" not in slides.page(deck)
    assert [slide.title for slide in deck.slides] == ["The chapter", "A part", "A part", "Next section"]
    assert [slide.continued for slide in deck.slides] == [False, False, True, False]
    assert [slide.begins for slide in deck.slides] == [True, False, False, True]
    assert [slide.section for slide in deck.slides] == ["The chapter"] * 3 + ["Next section"]
    assert part.blocks == [] and kinds(on) == [("text", 0)] and section.cells == [8]


def test_a_cell_without_a_slide_type_goes_on_the_slide_before(deck_of):
    (slide,) = deck_of(cell("# One", "slide"), cell("two"), cell("three", "")).slides
    assert slide.cells == [1, 2, 3] and kinds(slide) == [("text", 0), ("text", 0)]


def test_the_first_cell_begins_a_slide_whatever_its_type(deck_of):
    deck = deck_of(
        cell("for the speaker", "notes"), cell("# One\n\nwords", "fragment"), cell("## Two", "slide")
    )
    assert [slide.cells for slide in deck.slides] == [[2], [3]]
    assert [slide.title for slide in deck.slides] == ["One", "Two"] and len(deck.slides[0].notes) == 1


def test_an_empty_cell_makes_no_slide(deck_of):
    deck = deck_of(cell("# One", "slide"), cell("  \n", "slide"), cell("", "subslide", []))
    assert len(deck.slides) == 1


def test_notes_are_the_speakers_and_belong_to_the_slide_before(deck_of):
    deck = deck_of(
        cell("# One", "slide"),
        cell("<details><summary>For the lecturer:</summary>\n\nask $x^2$.\n</details>", "notes"),
        cell("## Two", "slide"),
    )
    assert (
        len(deck.slides[0].notes) == 1 and "<math" in deck.slides[0].notes[0] and deck.slides[1].notes == []
    )
    page = BeautifulSoup(slides.page(deck), "html.parser")
    assert (
        "ask" in page.select_one(".slide .notes").text and "ask" not in page.select_one(".slide .body").text
    )


def test_code_that_is_tagged_is_kept_for_a_key(deck_of):
    deck = deck_of(
        cell("# One", "slide"), cell("plot(secret)", "fragment", [printed("shown")], [slides.HIDE_CODE])
    )
    (slide,) = deck.slides
    assert kinds(slide) == [("output", 1)] and "secret" in slide.sources[0]


# Outputs


def test_an_image_lies_in_the_page_with_its_size_and_the_text_that_stands_for_it(deck_of):
    deck = deck_of(
        cell("plot()", "slide", [png()]),
        cell('Figure: a *dark* "square",\nalone.\n\nAnd this is said.', "fragment"),
        cell("plot()", "slide", [png(), png(8, 9)]),
        cell("*Figure: two squares.*", "fragment"),
    )
    image = BeautifulSoup(deck.slides[0].blocks[1].html, "html.parser").img
    assert (image["width"], image["height"], image["alt"]) == ("30", "20", 'a *dark* "square", alone.')
    assert Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size == (30, 20)
    assert [block.html for block in deck.slides[0].blocks if block.kind == "text"] == [
        "<p>And this is said.</p>"
    ]
    assert kinds(deck.slides[1]) == [("code", 0), ("image", 0), ("image", 0)]
    assert all('alt="two squares."' in block.html for block in deck.slides[1].blocks[1:])
    assert deck.warnings == []


def test_an_image_is_as_large_as_the_notebook_asks(deck_of):
    sharp = png(60, 40)
    sharp["metadata"] = {"image/png": {"width": 30, "height": 20}}
    (slide,) = deck_of(cell("plot()", "slide", [sharp]), cell("Figure (drawn): a square.", "fragment")).slides
    assert slide.blocks[1].html.endswith(' width="30" height="20" alt="a square.">')


def test_the_words_for_an_image_may_lie_in_the_metadata_of_its_cell(deck_of):
    plot = cell("plot()", "slide", [png()])
    plot["metadata"]["alt"] = "one square."
    deck = deck_of(plot, cell("Figure: this is about something else.", "fragment"))
    assert 'alt="one square."' in deck.slides[0].blocks[1].html and deck.warnings == []


def test_an_image_without_words_is_a_warning(deck_of):
    deck = deck_of(cell("plot()", "slide", [png()]), cell("No figure text.", "slide"))
    assert deck.warnings == ["one.ipynb, cell 1: an image without a text 'Figure: …' after it."]
    assert 'alt="image made by code cell 1"' in deck.slides[0].blocks[1].html


def test_text_is_shown_with_its_colours_and_without_what_was_overwritten(deck_of):
    error = new_output(
        "error", ename="ValueError", evalue="no", traceback=["\x1b[0;31mValueError\x1b[0m: <no>"]
    )
    deck = deck_of(
        cell("run()", "slide", [printed("10 %\r50 %\rdone & dusted\r\nnext\n"), error, printed("  \n")])
    )
    code, first, second = deck.slides[0].blocks
    assert BeautifulSoup(first.html, "html.parser").text == "done & dusted\nnext"
    assert 'class="ansi-red-fg"' in second.html and "&lt;no&gt;" in second.html


def test_what_needs_a_kernel_is_shown_in_its_still_form(deck_of):
    quiz = {"text/html": "<div onclick='x()'>quiz</div>", "text/plain": "1. A question?\n   - yes"}
    script = {"application/javascript": "alert(1)", "text/plain": "<IPython.core.display.Javascript object>"}
    slider = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
        "text/plain": "IntSlider(value=3)",
    }
    frame = {"text/html": "<iframe src='x'></iframe>", "text/plain": "<IPython.lib.display.IFrame at 0x7f>"}
    outputs = [new_output("display_data", data=data) for data in (quiz, script, slider, frame)]
    (slide,) = deck_of(cell("quiz()", "slide", outputs)).slides
    assert kinds(slide) == [("code", 0), ("output", 0)] and "1. A question?" in slide.blocks[1].html


def table_of(rows, more=""):
    """An output with a table, and the form of it that needs no HTML."""
    body = "".join(f"<tr><td>{number}</td><td>{'word ' * 40}</td></tr>" for number in range(rows))
    source = (
        f"<table><thead><tr><th>number</th><th>words</th></tr></thead><tbody>{more}{body}</tbody></table>"
    )
    return new_output("display_data", data={"text/html": source, "text/plain": "the plain form"})


def test_a_table_is_shown_as_a_table_without_anything_that_runs(deck_of):
    attack = "<tr><td onclick='x()' style='color: red'>a<script>x()</script><img src='http://x.y/z'><form>f</form></td></tr>"
    link = "<tr><td><a href='04_unet_decoder.ipynb#The-whole-U'>to 04</a></td></tr>"
    (slide,) = deck_of(cell("table()", "slide", [table_of(2, attack + link)])).slides
    assert kinds(slide) == [("code", 0), ("table", 0)]
    table = BeautifulSoup(slide.blocks[1].html, "html.parser")
    assert [cell.text for cell in table.find_all("td")][0] == "a" and not table.find_all(
        ["script", "img", "form"]
    )
    assert table.td.attrs == {} and table.a["href"] == "04_unet_decoder.html"


def test_a_long_table_goes_on_over_the_next_slides_with_its_head(deck_of):
    deck = deck_of(
        cell("## All of them", "slide"),
        cell("table()", "fragment", [table_of(40)]),
        cell("And then.", "fragment"),
    )
    assert len(deck.slides) > 3 and all(
        "<th>number</th>" in slide.blocks[-1].html for slide in deck.slides[:-1]
    )
    assert [slide.continued for slide in deck.slides] == [False] + [True] * (len(deck.slides) - 1)
    cells = [
        cell.text
        for slide in deck.slides
        for cell in BeautifulSoup(slides._section(slide), "html.parser").select("td")
    ]
    assert cells[::2] == [str(number) for number in range(40)]
    assert kinds(deck.slides[-1])[-1] == ("text", 1)


def test_a_drawing_and_a_raw_cell(deck_of):
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 200"><script>1</script></svg>'
    raw = new_raw_cell("<b>as it is</b>", metadata={"slideshow": {"slide_type": "-"}})
    (slide,) = deck_of(
        cell("draw()", "slide", [new_output("display_data", data={"image/svg+xml": drawing})]), raw
    ).slides
    assert 'width="320" height="200"' in slide.blocks[1].html and "<script" not in slide.blocks[1].html
    assert slide.blocks[2].html == "<pre>&lt;b&gt;as it is&lt;/b&gt;</pre>"


# Markdown


def test_markdown_is_cut_into_its_parts(deck_of):
    (slide,) = deck_of(
        cell("# T\n\nwords\n\n- a\n- b\n\n| h |\n|---|\n| c |\n\n```python\nx = 1\n```", "slide")
    ).slides
    assert [BeautifulSoup(block.html, "html.parser").contents[0].name for block in slide.blocks][:3] == [
        "p",
        "ul",
        "table",
    ]
    assert "x" in slide.blocks[3].html and {block.kind for block in slide.blocks} == {"text"}


def test_links_between_chapters_lead_to_their_slides(deck_of):
    (slide,) = deck_of(
        cell("[on](04_unet_decoder.ipynb), [far](https://example.com/a), [file](../data/x.json)", "slide")
    ).slides
    links = [a["href"] for a in BeautifulSoup(slide.blocks[0].html, "html.parser").find_all("a")]
    assert links == ["04_unet_decoder.html", "https://example.com/a"]
    assert "file" in slide.blocks[0].html


def test_an_image_attached_to_markdown_is_taken_in_and_one_elsewhere_refused(deck_of):
    attached = {"a.png": {"image/png": base64.b64encode(b"x").decode()}}
    (slide,) = deck_of(cell("![a](attachment:a.png)", "slide", attachments=attached)).slides
    assert "data:image/png;base64,eA==" in slide.blocks[0].html
    for address in ("https://example.com/a.png", "missing.png"):
        with pytest.raises(
            slides.SlidesError, match=r"one\.ipynb, cell 1: the image '.*' is not in the file"
        ):
            deck_of(cell(f"![a]({address})", "slide"))
    with pytest.raises(slides.SlidesError, match="cell 1: .*missing attachment: b.png"):
        deck_of(cell("![a](attachment:b.png)", "slide"))


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_in_a_notebook_becomes_a_script(deck_of):
    image = png()
    deck = deck_of(
        cell(
            f"# T {HOSTILE}\n\n{HOSTILE}\n\n`{HOSTILE}` $x</math>{HOSTILE}$ [a](javascript:alert(1))", "slide"
        ),
        cell(f'"""{HOSTILE}"""', "fragment", [printed(HOSTILE), image]),
        cell(f'Figure: "{HOSTILE}', "fragment"),
        cell("hidden()" + HOSTILE, "fragment", [], [slides.HIDE_CODE]),
        cell(HOSTILE, "notes"),
    )
    parser = Tags()
    page = slides.page(deck)
    parser.feed(page)
    assert [tag for tag, _ in parser.found].count("script") == 1 and page.count("</script>") == 1
    assert not [attrs for _, attrs in parser.found if {"onerror", "onclick", "onload"} & set(attrs)]
    assert "javascript:" not in page.partition("<script>")[0]
    assert sum(tag == "img" for tag, _ in parser.found) == 1


def test_plain_tags_are_tags_and_others_are_text(deck_of):
    source = "H<sub>2</sub>O <b onclick='x'>b</b> a < b <!-- unseen -->\n\n<details><summary>Q</summary>A</details>"
    (slide,) = deck_of(cell(source, "slide")).slides
    first, second = (BeautifulSoup(block.html, "html.parser") for block in slide.blocks)
    assert first.sub.text == "2" and first.b is None and "a < b" in first.text and "unseen" not in first.text
    assert second.summary.text == "Q"


# Formulas


@pytest.mark.parametrize(
    "tex",
    [
        r"\frac{s}{\sqrt n}",
        r"r \leftarrow r + (k - 1) \cdot j",
        r"\text{IoU} = \frac{TP}{TP + FP}",
        r"\begin{cases} a & b \\ c & d\end{cases}",
    ],
)
def test_a_formula_becomes_mathml(tex):
    made = slides.formula(tex, "block")
    assert (
        made.startswith("<math ")
        and 'display="block"' in made
        and "\\" not in re.sub(r'aria-label="[^"]*"', "", made)
    )
    assert BeautifulSoup(made, "html.parser").math["aria-label"] == tex


def test_plus_or_minus_is_an_operator():
    assert "<mo>±</mo>" in slides.formula(r"m \pm s")


@pytest.mark.parametrize("tex", [r"\nosuchcommand{a}", r"\frac{a}{b", r"\text{<b>}", "a & b", r"\left( a"])
def test_a_formula_that_cannot_be_set_is_said_and_shown_as_tex(tex, deck_of):
    with pytest.raises(ValueError, match="the formula .* cannot be set"):
        slides.formula(tex)
    deck = deck_of(cell(f"words ${tex}$", "slide"))
    assert len(deck.warnings) == 1 and deck.warnings[0].startswith("one.ipynb, cell 1: the formula")
    assert BeautifulSoup(deck.slides[0].blocks[0].html, "html.parser").code.text == tex


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem.partition("_")[0])
def test_every_formula_and_image_of_a_chapter_is_shown_as_it_should_be(path):
    deck = chapter(path)
    assert deck.warnings == []
    blocks = [block for slide in deck.slides for block in slide.blocks]
    words = BeautifulSoup("".join(block.html for block in blocks if block.kind == "text"), "html.parser")
    dollars = sum("".join(cell["source"]).count("$") for cell in nbformat.read(path, 4)["cells"])
    assert bool(words.find_all("math")) == bool(dollars)
    for part in words.select("pre, code, math"):
        part.decompose()
    assert not re.search(r"\$[^$\s][^$]*\$|\\[a-z]+\b", words.text)
    images = [block.html for block in blocks if block.kind == "image"]
    assert images and all(html.startswith('<img src="data:image/') for html in images)
    assert all(re.search(r' alt="[^"]{20,}">$', html) for html in images)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem.partition("_")[0])
def test_every_chapter_has_notes_for_the_lecturer(path):
    noted = [slide for slide in chapter(path).slides if slide.notes]
    assert len(noted) >= 3
    assert all("For the lecturer:" in note for slide in noted for note in slide.notes)


# The file


def test_the_page_forbids_itself_the_network_and_every_script_but_its_own(deck_of, tmp_path):
    deck = deck_of(cell("# T\n\nwords", "slide"))
    target = tmp_path / "new" / "one.html"
    slides.write(deck, target)
    page = target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["one.html"]
    soup = BeautifulSoup(page, "html.parser")
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    digest = base64.b64encode(hashlib.sha256(soup.script.string.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|url\(|@import", page)


def test_the_same_notebook_gives_the_same_file(deck_of):
    cells = [
        cell("# T\n\nwords $x$", "slide"),
        cell("plot()", "fragment", [png()]),
        cell("Figure: f.", "fragment"),
    ]
    assert slides.page(deck_of(*cells)) == slides.page(deck_of(*cells))


# What is refused


def test_a_notebook_without_slide_types_is_refused(deck_of):
    with pytest.raises(
        slides.SlidesError, match=r"one\.ipynb: no cell has a slide type; choose them in JupyterLab"
    ):
        deck_of(cell("# One"), cell("1", None, []))


def test_an_unknown_slide_type_is_refused(deck_of):
    with pytest.raises(
        slides.SlidesError, match=r"cell 2: there is no slide type 'sub-slide'; choose from slide, subsl"
    ):
        deck_of(cell("# One", "slide"), cell("two", "sub-slide"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(content, tmp_path):
    path = tmp_path / "no.ipynb"
    path.write_text(content)
    with pytest.raises(slides.SlidesError, match=r"no\.ipynb: not a notebook that can be read"):
        slides.read(path)


def with_image(data, width=None, mime="image/png"):
    made = new_output("display_data", data={mime: data})
    made["metadata"] = {mime: {"width": width}} if width is not None else {}
    return cell("draw()", "-", [made])


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}"></svg>'


@pytest.mark.parametrize(
    "odd",
    [
        with_image(base64.b64encode(b"no image").decode()),
        with_image("%%%"),
        with_image(SVG.format(0, 0), mime="image/svg+xml"),
        with_image(SVG.format(0, 9), 40, mime="image/svg+xml"),
        with_image(SVG.format("9" * 400, 9), mime="image/svg+xml"),
    ],
)
def test_an_image_that_cannot_be_read_is_one_sentence(odd, deck_of):
    with pytest.raises(
        slides.SlidesError,
        match=r"^one\.ipynb, cell 2: the image in its output cannot be read .*run the cell again\.$",
    ) as error:
        deck_of(cell("# One", "slide"), odd)
    assert "0x" not in str(error.value)


def test_an_image_that_is_a_folder_is_named(deck_of):
    with pytest.raises(slides.SlidesError, match=r"one\.ipynb, cell 1: .*: Is a directory"):
        deck_of(cell("# One\n![x](.)", "slide"))


def test_half_a_letter_is_shown_as_a_question_mark(tmp_path):
    path = tmp_path / "one.ipynb"
    nbformat.write(new_notebook(cells=[cell("# One", "slide"), cell("a letter", "-")]), path)
    path.write_text(
        path.read_text(encoding="utf-8").replace("a letter", "half \\ud800 one"), encoding="utf-8"
    )
    slides.write(slides.read(path), tmp_path / "one.html")
    assert "half ? one" in (tmp_path / "one.html").read_text(encoding="utf-8")


def test_slides_take_the_place_of_no_notebook(tmp_path, capsys, monkeypatch):
    """A notebook may have any ending, and lie where its slides would go."""
    monkeypatch.chdir(tmp_path)
    nbformat.write(new_notebook(cells=[cell("# One", "slide")]), tmp_path / "one.html")
    before = (tmp_path / "one.html").read_bytes()
    (tmp_path / "linked").symlink_to(tmp_path)
    for out in (".", "linked", str(tmp_path)):
        assert main(["slides", "one.html", "--out", out]) == 1
        assert "one.html would be overwritten by its slides" in capsys.readouterr().err
    assert (tmp_path / "one.html").read_bytes() == before
    (tmp_path / "b").mkdir()
    for name in ("one.ipynb", "b/One.ipynb"):
        (tmp_path / name).write_bytes(before)
    assert main(["slides", "one.ipynb", "b/One.ipynb", "--out", "out"]) == 1
    assert "two notebooks are called 'one'" in capsys.readouterr().err


def test_a_printed_deck_is_not_written_through_a_link(tmp_path, monkeypatch):
    browser = tmp_path / "chromium"
    browser.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "[target] = [word[15:] for word in sys.argv if word.startswith('--print-to-pdf=')]\n"
        "open(target, 'w').write('printed')\n"
    )
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "thesis.pdf").write_text("mine")
    (tmp_path / "one.pdf").symlink_to(tmp_path / "thesis.pdf")
    (tmp_path / "one.html").write_text("<p>one</p>")
    assert slides.print_pdf(tmp_path / "one.html").read_text() == "printed"
    assert (tmp_path / "thesis.pdf").read_text() == "mine"


@pytest.mark.parametrize("width", ['1" x', -3, 0, [], "nan", 1e300, True, None])
def test_a_width_that_is_none_is_passed_over(width, deck_of):
    """Only a number can be one; the image keeps its own."""
    deck = deck_of(cell("# One", "slide"), with_image(png()["data"]["image/png"], width))
    block = deck.slides[0].blocks[-1]
    assert block.kind == "image" and re.search(r'width="(30|1)" height="(20|1)" alt="[^"]*">$', block.html)
    deck = deck_of(cell("# One", "slide"), with_image(SVG.format(".", "-"), mime="image/svg+xml"))
    assert 'width="800" height="450"' in deck.slides[0].blocks[-1].html


@pytest.mark.parametrize(
    "metadata",
    [
        {"slideshow": []},
        {"slideshow": None},
        {"slideshow": "slide"},
        {"tags": None},
        {"tags": []},
        {"slideshow": {"slide_type": None}},
    ],
)
def test_odd_metadata_of_a_cell_are_none(metadata, tmp_path):
    deck = read_changed({"metadata": metadata}, tmp_path / "one.ipynb")
    assert kinds(deck.slides[0]) == [("code", 0), ("output", 0)]


def read_changed(change, path):
    """The slides of a notebook whose second cell was changed by hand, as no program would."""
    nbformat.write(new_notebook(cells=[cell("# One", "slide"), cell("1", "-", [printed("2")])]), path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"][1].update(change)
    path.write_text(json.dumps(content), encoding="utf-8")
    return slides.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": [{"output_type": "stream", "name": "stdout", "text": None}]},
        {"outputs": [{"output_type": "display_data", "data": {"text/plain": 5}, "metadata": {}}]},
        {"outputs": [{"output_type": "display_data", "data": {"text/html": [1]}, "metadata": {}}]},
        {"outputs": [{"output_type": "error"}]},
        {"outputs": [3]},
    ],
)
def test_outputs_that_no_notebook_has_are_one_sentence(change, tmp_path):
    with pytest.raises(
        slides.SlidesError, match=r"one\.ipynb(, a cell|, cell 2: its outputs|: not a notebook)"
    ):
        read_changed(change, tmp_path / "one.ipynb")


def test_a_table_with_images_that_lead_nowhere_loses_them(deck_of):
    table = (
        "<table><tr><td><img><img src='x.png'><img src='data:image/png;base64,AAAA'>text</td></tr></table>"
    )
    deck = deck_of(
        cell("# One", "slide"), cell("t", "-", [new_output("display_data", data={"text/html": table})])
    )
    assert deck.slides[0].blocks[-1].html.count("<img") == 1


def test_chapters_are_named_by_number_or_path(tmp_path):
    assert [path.name[:2] for path in CHAPTERS] == sorted(path.name[:2] for path in CHAPTERS) and CHAPTERS
    (three,) = slides.chapters(["03"])
    assert slides.chapters([three, "03_unet_encoder", "03"]) == [three]
    both = slides.chapters(["06"])
    assert [path.name[:3] for path in both] == ["06_", "06b"] and slides.chapters(["06b"]) == both[1:]
    other = tmp_path / three.name
    other.write_text("{}")
    with pytest.raises(slides.SlidesError, match="two notebooks are called '03_unet_encoder'"):
        slides.chapters(["03", other])
    with pytest.raises(
        slides.SlidesError, match="there is no notebook '77'; give a path or a chapter: 00, 01"
    ):
        slides.chapters(["77"])


# The command


@pytest.mark.slow
def test_the_command_writes_a_file_for_each_notebook(tmp_path, capsys):
    assert main(["slides", "03", "--out", str(tmp_path), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    (written,) = json.loads(last)["written"]
    target = tmp_path / "03_unet_encoder.html"
    assert written == {"slides": str(target), "count": written["count"], "warnings": []}
    assert lines == [f"{target}: {written['count']} slides"] and target.stat().st_size > 100_000


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path, capsys):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[cell("# One", "slide")]), good)
    nbformat.write(new_notebook(cells=[cell("# One")]), bad)
    for names, words in (
        ([str(good), str(bad)], "no cell has a slide type"),
        (["77"], "there is no notebook '77'"),
    ):
        assert main(["slides", *names, "--out", str(tmp_path / "out")]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("course_lib slides: ") and words in captured.err and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_without_the_lab_extra_one_sentence_says_what_is_missing(monkeypatch, deck_of):
    monkeypatch.setitem(sys.modules, "nbconvert.filters.markdown_mistune", None)
    with pytest.raises(
        slides.SlidesError, match=r"slides need nbconvert.*not installed; `make lab` installs"
    ):
        deck_of(cell("# One", "slide"))


def test_importing_the_slides_loads_no_backend_and_no_converter():
    code = "import sys, course_lib.teaching.slides; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not loaded & {"keras", "tensorflow", "jax", "nbconvert", "bs4"}
