"""The ledger, the summary with its figures and links, the glossary, the mixed quiz: all drawn from files, and checked."""

import html
import json
import re

import matplotlib
import pytest

from course_lib.chapters.ch10_revision import figures, revision
from course_lib.teaching import glossary, ledger, questions
from course_lib.teaching.course_map import CHAPTERS, FOLDER, written
from course_lib.teaching.ledger import Interval, Result

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ENTRIES = revision.claims_ledger()
TERMS = glossary.load()
DECK = questions.load()
MEASURED = [entry for entry in ENTRIES if entry.result]
PLACED = [entry for entry in MEASURED if entry.place]
ALL_WRITTEN = len(written()) == len(CHAPTERS)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def result(claim="9.9", mean=1.0, low=0.5, high=1.5, verdict="supported", repetitions=4, **more):
    parts = {"statement": "It is so.", "effect": "b minus a", "teacher": "So it is.", "table": {}} | more
    found = None if mean is None else Interval(mean, low, high)
    return Result(claim=claim, interval=found, verdict=verdict, repetitions=repetitions, **parts)


def entry(*arguments, place=None, **options):
    found = result(*arguments, **options)
    return revision.Entry(found.claim, found, place)


# The ledger


def test_the_ledger_holds_every_claim_in_order_with_the_result_of_its_file():
    assert [entry.claim for entry in ENTRIES] == sorted(DECK.claims)
    for entry in ENTRIES:
        if (ledger.FOLDER / f"{entry.claim}.json").is_file():
            found = ledger.read(entry.claim)
            assert entry.result == found and entry.verdict == found.verdict
            missing = "shown" if found.is_demonstration else f"{found.missing} runs are missing"
            assert entry.figure == (str(found.interval) if found.interval else missing)
        else:
            assert entry.result is None and entry.kind == "not measured yet"


def test_a_claim_without_a_result_says_so_and_how_to_get_one(tmp_path):
    (tmp_path / "1.2.json").write_bytes((ledger.FOLDER / "1.2.json").read_bytes())
    found = revision.claims_ledger(results=tmp_path)
    assert [entry.claim for entry in found if entry.result] == ["1.2"]
    text = str(revision.ledger_table(found))
    assert text.count("not measured yet") == len(found) - 1
    assert "python -m course_lib claims --run 7.6" in text


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        *((kind, kind) for kind in ("demonstrated", "supported", "equivalent", "contradicted", "undecided")),
        ("supported when: rain", "supported when"),
    ],
)
def test_the_kind_of_a_verdict_is_told_from_its_condition(verdict, kind):
    assert entry(verdict=verdict).kind == kind and kind in revision.MARKS


def test_a_verdict_of_no_kind_is_one_sentence(tmp_path):
    content = json.loads((ledger.FOLDER / "1.2.json").read_text(encoding="utf-8"))
    (tmp_path / "1.2.json").write_text(json.dumps(content | {"verdict": "perhaps"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"claim 1\.2: verdict is 'perhaps'; it must begin with"):
        revision.claims_ledger(results=tmp_path)


def test_no_effect_is_one_for_a_ratio_and_zero_for_a_difference():
    ratio = entry(mean=1.2, low=0.9, high=1.5, effect="time of b divided by time of a (1 = equal)")
    assert ratio.neutral == 1 and entry().neutral == 0
    assert entry().settled and entry(mean=None, verdict="demonstrated").settled
    assert not entry(verdict="undecided").settled
    neutral = {entry.claim: entry.neutral for entry in MEASURED}
    assert neutral["2.3"] == neutral["6.3"] == 1 and neutral["1.2"] == neutral["7.2"] == 0


def test_the_tables_hold_all_of_it_as_text_and_as_html():
    table = revision.ledger_table(ENTRIES)
    page = table._repr_html_()
    for entry in MEASURED:
        for words in (
            entry.statement,
            entry.verdict,
            entry.figure,
            entry.result.teacher,
            entry.result.effect,
        ):
            assert words in str(table) and html.escape(words) in page
    for entry in PLACED:
        assert entry.place.link in html.unescape(page) and str(entry.place) in str(table)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)


def test_the_drawn_interval_shows_where_it_lies_and_its_colour_whether_it_is_settled():
    def drawn(entry):
        import base64

        data = re.search(r"base64,([\w+/=]+)", revision.interval_picture(entry)).group(1)
        svg = base64.b64decode(data).decode()
        x = re.search(r'd="M([\d.]+) 1V.*d="M([\d.]+) [\d.]+H([\d.]+)".*cx="([\d.]+)"', svg).groups()
        return svg, [float(value) for value in x]

    svg, (none, low, high, mean) = drawn(entry())
    assert none == 8 < low < mean < high == 142 and (low + high) / 2 == pytest.approx(mean, abs=0.1)
    assert revision.COLOURS[0] in svg
    svg, (none, low, high, mean) = drawn(entry(mean=-1, low=-1.5, high=0.5, verdict="undecided"))
    assert low < mean < none < high and revision.COLOURS[5] in svg
    assert revision.interval_picture(entry(mean=None)) == ""
    assert 'alt="interval 1.000 [0.500, 1.500], no effect at 0"' in revision.interval_picture(entry())


# Where it was measured


def notebook(folder, name, *cells):
    content = {"cells": [{"cell_type": kind, "source": [source]} for kind, source in cells]}
    (folder / f"{name}.ipynb").write_text(json.dumps(content), encoding="utf-8")


def test_a_section_that_names_the_claim_comes_first_and_the_closing_section_last(tmp_path):
    loop = 'for claim in ("2.1", "2.2", "2.3"):\n    ledger.read(claim)'
    notebook(tmp_path, "00_start_here", ("markdown", "# All"), ("code", 'ledger.read("2.1")'))
    notebook(
        tmp_path,
        "02_semantic_vs_instance",
        ("markdown", "# Two\n\n## Several\nwords"),
        ("code", loop),
        ("markdown", "### Only one"),
        ("code", 'found = ledger.read(\n    "2.1"\n)\nprint("2.2")'),
        ("markdown", f"## {revision.CLOSING}"),
        ("code", loop + '\nledger.read("2.3")\nledger.read("2.4")'),
        ("code", 'print("2.9")'),
    )
    found = revision.places(tmp_path)
    assert {claim: place.heading for claim, place in found.items()} == {
        "2.1": "Only one",
        "2.2": "Several",
        "2.3": "Several",
        "2.4": revision.CLOSING,
    }
    assert {place.chapter for place in found.values()} == {"02_semantic_vs_instance"}


def test_every_measured_claim_has_a_notebook_that_reads_it():
    missing = [entry.claim for entry in MEASURED if not entry.place]
    assert not (missing and ALL_WRITTEN), f"no notebook but 00 and 10 reads the results of claims {missing}"
    assert len(PLACED) >= 20


@pytest.mark.parametrize("entry", PLACED, ids=[entry.claim for entry in PLACED])
def test_a_measured_claim_links_to_a_section_that_is_there_and_reads_its_result(entry):
    path = FOLDER / f"{entry.place.chapter}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [
        heading
        for cell in cells
        if cell["cell_type"] == "markdown"
        for heading in revision.headings("".join(cell["source"]))
    ]
    assert found.count(entry.place.heading) == 1, "a link needs a heading that is there once"
    read = [
        source
        for heading, source in revision.code_by_section(path)
        if heading == entry.place.heading and "ledger.read(" in source
    ]
    assert any(re.search(rf"[\"']{re.escape(entry.claim)}[\"']", source) for source in read)


def test_a_link_is_the_anchor_that_nbconvert_and_jupyterlab_make():
    place = revision.Place("04_unet_decoder", "Concatenate, add, or do without? 7 × 7")
    assert place.link == "04_unet_decoder.ipynb#Concatenate,-add,-or-do-without?-7-%C3%97-7"
    filters = pytest.importorskip("nbconvert.filters")
    for entry in PLACED:
        anchored = filters.add_anchor(f"<h2>{html.escape(entry.place.heading)}</h2>")
        anchor = entry.place.link.partition("#")[2]
        assert f'id="{html.escape(anchor, quote=False)}"' in anchored


# The summary


def test_each_claim_stands_under_its_line_of_the_summary():
    lines = revision.by_line(ENTRIES)
    assert [entry.claim for _, of in lines for entry in of] == [entry.claim for entry in ENTRIES]
    assert [line for line, _ in lines] == list(revision.SUMMARY[: len(lines)]) and len(lines) >= 7


def test_each_line_of_the_summary_shows_its_figures_and_where_they_were_made():
    table = revision.summary_table(ENTRIES)
    page = table._repr_html_()
    for line, of in revision.by_line(ENTRIES):
        assert html.escape(line.point) in page and line.point in str(table)
        for found in of:
            assert html.escape(found.figure) in page and f"{found.claim}  {found.figure}" in str(table)
            if found.place:
                assert f'href="{html.escape(found.place.link)}"' in page


def test_no_measured_number_stands_in_the_summary_or_in_the_glossary():
    typed = [line.topic + line.point for line in revision.SUMMARY] + [term.means for term in TERMS]
    figures = {f"{entry.result.interval.mean:.3f}" for entry in MEASURED if entry.result.interval}
    assert figures and not figures & set(re.findall(r"\d+\.\d+", " ".join(typed)))


def test_the_scores_are_terms_of_the_glossary_and_shown_with_what_they_are():
    table = revision.score_table()
    for question, names in revision.SCORES:
        assert question in str(table)
        for name in names:
            assert glossary.get(name).term == name
            assert html.escape(glossary.get(name).means) in table._repr_html_()


# The figures


def test_every_claim_has_a_tile_with_the_mark_of_its_verdict():
    figure = figures.draw_verdicts(ENTRIES)
    (axis,) = figure.axes
    words = [text.get_text() for text in axis.texts]
    assert {f"{revision.MARKS[entry.kind]}  {entry.claim}" for entry in ENTRIES} <= set(words)
    topics = [line.topic for line, _ in revision.by_line(ENTRIES)]
    assert topics == [word for word in words if word[0].isalpha()]
    (legend,) = figure.legends
    assert sum(int(text.get_text().rpartition(" ")[2]) for text in legend.get_texts()) == len(ENTRIES)


def test_a_bar_ends_at_the_effect_that_the_runs_could_have_detected():
    rows = [one for entry in MEASURED for one in entry.result.comparisons.values() if not one["ratio"]]
    axis = figures.draw_power(ENTRIES).axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends == pytest.approx([max(one["detectable"], 1e-3) for one in rows])
    assert len(axis.get_yticklabels()) == len(rows)


# The glossary

# A term's word as it stands in a notebook: emphasis taken out, any case, with or without a plural s.
TEXTS = {
    chapter.number: re.sub(
        r"\s+",
        " ",
        re.sub(
            r"[*`]",
            "",
            "\n".join(
                "".join(cell["source"])
                for path in paths
                for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            ),
        ),
    )
    for chapter in CHAPTERS
    if chapter.number != "10" and (paths := chapter.notebooks())
}


@pytest.mark.parametrize("term", TERMS, ids=[term.term for term in TERMS])
def test_a_term_is_in_the_notebook_that_introduces_it(term):
    chapter = next(chapter for chapter in CHAPTERS if chapter.number == term.notebook)
    if chapter.number not in TEXTS:
        pytest.skip(f"{chapter.name} is not written yet")
    words = "|".join(re.escape(name) for name in term.names)
    assert re.search(rf"(?<!\w)(?:{words})s?(?!\w)", TEXTS[chapter.number], re.I), (
        f"{term.term}: not in {chapter.name}"
    )


def test_the_glossary_covers_every_chapter_and_each_confused_term_is_in_it():
    assert len(TERMS) >= 70
    assert {term.notebook for term in TERMS} >= {f"{number:02d}" for number in range(9)}
    for names in glossary.CONFUSED:
        assert [glossary.get(name).term for name in names] == list(names)


def test_looking_up_finds_names_first_then_what_speaks_of_it():
    found = [term.term for term in glossary.find(" iou ")]
    assert found[0] == "IoU" and set(found[1:4]) == {"boundary IoU", "GIoU", "mean IoU"} and "AP" in found[4:]
    assert glossary.find("RPN")[0].term == "region proposal network"
    assert "IoU" in str(glossary.search("iou")) and "<b>IoU</b>" in glossary.search("iou")._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: glossary.find("  "), "text is empty; it must be a word"),
        (lambda: glossary.find("qwerty"), "text is 'qwerty'; no term has this name"),
        (lambda: glossary.get("cross"), "'cross' is not a term; did you mean cross-entropy"),
        (lambda: glossary.get("qwerty"), "'qwerty' is not a term; see table()."),
        (lambda: glossary.compare("IoU"), "names has 1 entries; it must have two or more"),
    ],
)
def test_a_word_that_is_not_there_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_whole_glossary_and_the_confused_terms_are_shown():
    table, confused = glossary.table(), glossary.confused()
    for term in TERMS:
        assert html.escape(term.means) in table._repr_html_() and str(term) in str(table)
    assert confused._repr_html_().count("<details>") == len(glossary.CONFUSED)
    assert "IoU or Dice?" in str(confused)


def anchor(terms):
    return next(term for term in terms if term["term"] == "anchor")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda terms: terms[2].update(term=terms[0]["term"]), "is a name of"),
        (lambda terms: terms.reverse(), "the terms must be sorted"),
        (
            lambda terms: anchor(terms).update(see=["nothing"]),
            "anchor: see is 'nothing'; it must be another term",
        ),
        (
            lambda terms: anchor(terms).update(see=["anchor"]),
            "anchor: see is 'anchor'; it must be another term",
        ),
        (lambda terms: anchor(terms).update(means=" "), "anchor: means is ' '; it must be some text"),
        (
            lambda terms: anchor(terms).update(notebook="13"),
            "anchor: notebook is '13'; it must be one of 00, 01",
        ),
        (lambda terms: anchor(terms).update(also=["IoU"]), "is a name of 'anchor' already"),
    ],
)
def test_each_fault_of_the_file_is_found_and_named(tmp_path, change, message):
    content = json.loads(glossary.FILE.read_text(encoding="utf-8"))
    change(content["terms"])
    path = tmp_path / "glossary.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        glossary.load(path)


def test_a_glossary_that_is_no_json_is_one_sentence(tmp_path):
    (tmp_path / "g.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"g\.json is not JSON"):
        glossary.load(tmp_path / "g.json")


# Quiz and cards out of all chapters


@pytest.mark.parametrize("what", ["quiz", "cards"])
@pytest.mark.parametrize("count", [1, 8, 13, 40])
def test_a_mixed_draw_is_level_over_the_chapters_and_holds_nothing_twice(what, count):
    chapters = getattr(DECK, what)
    drawn = questions.draw(chapters, count, seed=3)
    assert len({entry.id for entry in drawn}) == len(drawn) == count
    per_chapter = [sum(entry.id.startswith(f"{chapter}-") for entry in drawn) for chapter in chapters]
    assert max(per_chapter) - min(per_chapter) <= 1


def test_a_short_chapter_gives_all_it_has_and_the_others_the_rest():
    chapters = {"01": DECK.quiz["01"][:1], "02": DECK.quiz["02"]}
    drawn = [entry.id.partition("-")[0] for entry in questions.draw(chapters, 6)]
    assert drawn.count("01") == 1 and drawn.count("02") == 5


def test_a_seed_draws_the_same_again_and_another_one_others():
    def ids(seed):
        return [entry.id for entry in questions.draw(DECK.quiz, 12, seed)]

    assert ids(1) == ids(1) != ids(2) and set(ids(1)) != set(ids(2))
    assert ids(1) != sorted(ids(1))  # the chapters are mixed, too


def test_a_drawn_question_says_its_chapter_and_is_otherwise_itself():
    (question,) = questions.draw(DECK.quiz, 1)
    whole = next(one for one in DECK.quiz[question.id.partition("-")[0]] if one.id == question.id)
    assert (
        question.question == f"[{question.id.partition('-')[0]}] {whole.question}"
        and question.choices == whole.choices
    )


@pytest.mark.parametrize("count", [0, -1, 10_000, 2.5, True])
def test_a_count_that_cannot_be_drawn_is_one_sentence(count):
    with pytest.raises(
        ValueError, match=rf"count is {re.escape(repr(count))}; it must be a whole number from 1 to \d+"
    ):
        questions.draw(DECK.cards, count)


def test_the_mixed_quiz_and_all_cards_show_themselves_the_same_every_time(monkeypatch):
    import IPython.display

    from course_lib.teaching import mixed_cards, mixed_quiz

    seen = []
    monkeypatch.setattr(IPython.display, "display", lambda what, **kwargs: seen.append(what))
    for _ in range(2):
        mixed_quiz(9, seed=4)
        mixed_cards()
    first, second = (
        [one if isinstance(one, dict) else one.data for one in half] for half in (seen[:4], seen[4:])
    )
    assert first == second
    for question in questions.draw(DECK.quiz, 9, 4):
        assert question.question in first[0]["text/plain"]
    for deck in DECK.cards.values():
        for card in deck:
            assert card.front in first[2]["text/plain"]
