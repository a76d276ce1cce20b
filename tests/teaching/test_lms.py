"""The quiz for learning platforms: read back, and by a parser of GIFT that others wrote."""

import base64
import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree as etree

import pytest

from course_lib.teaching import lms, questions

CHAPTERS = questions.load().quiz
ALL = [question for listed in CHAPTERS.values() for question in listed]
PARSER = "gift-pegjs@1.0.2"
KEPT = Path(__file__).resolve().parents[2] / "build" / PARSER.replace("@", "-")


@pytest.fixture
def gift_parser():
    """The folder of an independent parser of GIFT; npm gets it the first time."""
    if not (node := shutil.which("node")) or not (npm := shutil.which("npm")):
        pytest.skip("no Node.js here")
    if not (KEPT / "package" / "pegjs-gift.js").is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        if subprocess.run([npm, "pack", PARSER, "--silent"], cwd=KEPT, capture_output=True).returncode:
            pytest.skip(f"npm cannot get {PARSER} here")
        with tarfile.open(next(KEPT.glob("*.tgz"))) as archive:
            archive.extractall(KEPT, filter="data")
    return node, KEPT / "package" / "pegjs-gift.js"


@pytest.mark.slow
def test_another_s_parser_reads_the_gift_file_as_we_meant_it(gift_parser, tmp_path):
    node, parser = gift_parser
    assert lms.write(tmp_path / "quiz.gift") == len(ALL)
    script = (
        f"const text = require('fs').readFileSync({json.dumps(str(tmp_path / 'quiz.gift'))}, 'utf8');"
        f"console.log(JSON.stringify(require({json.dumps(str(parser))}).parse(text)))"
    )
    said = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True).stdout
    read = [entry for entry in json.loads(said) if entry["type"] != "Category"]
    assert [entry["title"] for entry in read] == [question.id for question in ALL]
    for entry, question in zip(read, ALL, strict=True):
        if question.code or question.figure:
            assert entry["stem"] == {"format": "html", "text": questions.body(question)}
        else:
            assert entry["stem"]["text"] == " ".join(question.question.split())
        if question.is_number:
            assert entry["type"] == "Numerical"
            assert [choice["text"]["number"] for choice in entry["choices"]] == [
                float(choice.answer) for choice in question.choices
            ]
            assert entry["choices"][0]["text"]["range"] == pytest.approx(question.within)
        else:
            assert entry["type"] == "MC"
            assert [choice["text"]["text"] for choice in entry["choices"]] == [
                c.answer for c in question.choices
            ]
            assert [choice["feedback"]["text"] for choice in entry["choices"]] == [
                " ".join(c.because.split()) for c in question.choices
            ]
            if sum(c.right for c in question.choices) == 1:
                assert [choice["isCorrect"] for choice in entry["choices"]] == [
                    c.right for c in question.choices
                ]


def test_moodle_s_file_gives_each_question_its_points_and_feedback(tmp_path):
    assert lms.write(tmp_path / "quiz.xml") == len(ALL)
    read = etree.parse(tmp_path / "quiz.xml").getroot().findall("question")
    assert sum(entry.get("type") == "category" for entry in read) == len(CHAPTERS)
    read = [entry for entry in read if entry.get("type") != "category"]
    for entry, question in zip(read, ALL, strict=True):
        assert entry.get("type") == ("numerical" if question.is_number else "multichoice")
        given = [float(answer.get("fraction")) for answer in entry.findall("answer")]
        assert sum(points for points in given if points > 0) == pytest.approx(100, abs=1e-3)
        assert [points > 0 for points in given] == [choice.right for choice in question.choices]
        assert all(answer.findtext("feedback/text") for answer in entry.findall("answer"))
        assert (entry.findtext("single") == "false") == (sum(c.right for c in question.choices) > 1)
        files = {
            file.get("name"): base64.b64decode(file.text) for file in entry.iterfind("questiontext/file")
        }
        named = re.findall(r"src='@@PLUGINFILE@@/([^']+)'", entry.findtext("questiontext/text"))
        assert list(files) == named and list(files.values()) == (
            [question.image()] if question.figure else []
        )


def test_the_package_for_canvas_names_its_files_and_scores_the_right_choices(tmp_path):
    assert lms.write(tmp_path / "quiz.zip") == len(ALL)
    with zipfile.ZipFile(tmp_path / "quiz.zip") as package:
        manifest = etree.fromstring(package.read("imsmanifest.xml"))
        named = {element.get("href") for element in manifest.iter() if element.tag.endswith("}file")}
        assert named == set(package.namelist()) - {"imsmanifest.xml"}
        items = [
            item
            for name in sorted(name for name in named if name.endswith(".xml"))
            for item in etree.fromstring(package.read(name)).iter()
            if item.tag.endswith("}item")
        ]
        for question in ALL:
            if question.figure:
                assert package.read(f"images/{question.id}.png") == question.image()
    assert [item.get("ident") for item in items] == [question.id for question in ALL]
    for item, question in zip(items, ALL, strict=True):
        images = re.findall(
            r"src='%24IMS-CC-FILEBASE%24/([^']+)'", item.findtext("{*}presentation//{*}mattext")
        )
        assert images == ([f"images/{question.id}.png"] if question.figure else []) and set(images) <= named
        last = item.findall(".//{*}respcondition")[-1]
        assert last.findtext("{*}setvar") == "100"
        if question.is_number:
            low, high = (float(last.find(f".//{{*}}{tag}").text) for tag in ("vargte", "varlte"))
            assert low <= float(question.choices[0].answer) <= high
            continue
        negated = {element.text for element in last.findall(".//{*}not/{*}varequal")}
        wanted = {element.text for element in last.findall(".//{*}varequal")} - negated
        assert wanted == {f"c{number}" for number, choice in enumerate(question.choices) if choice.right}


def test_a_test_of_ninety_minutes_and_its_marking_scheme(tmp_path):
    page, test, marking = (path.read_text(encoding="utf-8") for path in lms.exam(tmp_path / "exam", seed=3))
    assert "30 questions, 90 minutes" in test
    for question in questions.draw(CHAPTERS, 30, 3):
        assert question.question in test and question.id in marking
        assert question.choices[0].because in marking and question.choices[0].because not in test
        assert question.code in test and questions.data_uri(question) in test
    assert page.count("<img ") == sum(bool(question.figure) for question in questions.draw(CHAPTERS, 30, 3))
    assert lms.exam(tmp_path / "again", seed=3)[1].read_text(encoding="utf-8") == test
    assert lms.exam(tmp_path / "other", seed=4)[1].read_text(encoding="utf-8") != test


def test_an_ending_that_no_platform_knows_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.xml .*\.gift .*\.zip"):
        lms.write(tmp_path / "quiz.csv")
    assert not list(tmp_path.iterdir())
