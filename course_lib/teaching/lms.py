"""The quiz for a learning platform, and as a test on paper.

Moodle XML, GIFT (Moodle and others) and QTI 1.2 (Canvas, Blackboard). Every choice carries its explanation; each chapter
is a category, in QTI a bank. Figures are in the files; GIFT, which cannot hold one, has their alternative text.
"""

import base64
import html
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as etree

from course_lib.files import write_atomically
from course_lib.teaching import questions
from course_lib.teaching.course_map import CHAPTERS
from course_lib.teaching.questions import Question

TOP = "Image segmentation"
MINUTES_A_QUESTION = 3
"""Of a test on paper; half as long again as the quickest careful readers take."""

SPECIAL = r"([~=#{}:\\])"
"""What GIFT takes for a sign of its own."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Image segmentation: test {seed}</title>
<style>
body {{ font: 11pt/1.4 sans-serif; max-width: 17cm; margin: 1cm auto; }}
.anchor-link {{ display: none; }}
img {{ max-width: 15cm; display: block; }}
pre {{ font-size: 10pt; border-left: 2px solid #999; padding-left: 1em; }}
ul {{ list-style: none; padding-left: 1em; }}
p, ul, pre {{ break-inside: avoid; }}
p:has(strong) {{ break-after: avoid; }}
</style>
{body}
</html>
"""

Chapters = dict[str, Sequence[Question]]


def write(path: Path) -> int:
    """Write the quiz of all chapters; returns how many questions it holds.

    Args:
        path: its ending says what is written: `.xml` Moodle XML, `.gift` GIFT, `.zip` a package of QTI 1.2.

    Raises:
        ValueError: if the path ends otherwise.
    """
    writers = {".xml": moodle_xml, ".gift": gift, ".zip": qti}
    if path.suffix not in writers:
        raise ValueError(
            f"--out {path}: it must end in .xml (Moodle), .gift (Moodle and others) or .zip (QTI: Canvas, Blackboard)."
        )
    chapters = questions.load().quiz
    content = writers[path.suffix](chapters)
    write_atomically(path, content)
    return sum(map(len, chapters.values()))


def title(chapter: str) -> str:
    """`04 U-Net's decoder` of chapter 04."""
    names = {found.number: found.short.replace("\n", " ") for found in CHAPTERS}
    return f"{chapter} {names.get(chapter, '')}".strip()


def fraction(question: Question, right: bool) -> float:
    """What choosing an answer gives, in percent: of several right ones each its part, which a wrong one takes away."""
    number = sum(choice.right for choice in question.choices)
    return 100 / number if right else (0 if number == 1 else -100 / number)


def moodle_xml(chapters: Chapters) -> str:
    """The quiz as Moodle XML: a category a chapter, multiple choice and numerical questions with feedback."""
    quiz = etree.Element("quiz")

    def text(parent: etree.Element, tag: str, content: str, **attributes: str) -> etree.Element:
        element = etree.SubElement(parent, tag, attributes)
        etree.SubElement(element, "text").text = content
        return element

    for chapter, listed in chapters.items():
        text(
            etree.SubElement(quiz, "question", type="category"),
            "category",
            f"$course$/{TOP}/{title(chapter)}",
        )
        for question in listed:
            kind = "numerical" if question.is_number else "multichoice"
            element = etree.SubElement(quiz, "question", type=kind)
            text(element, "name", f"{question.id} {question.about}")
            source = f"@@PLUGINFILE@@/{question.id}.png" if question.figure else ""
            asked = text(element, "questiontext", questions.body(question, source), format="html")
            if question.figure:
                file = etree.SubElement(asked, "file", name=f"{question.id}.png", path="/", encoding="base64")
                file.text = base64.b64encode(question.image()).decode()
            etree.SubElement(element, "defaultgrade").text = "1"
            if not question.is_number:
                one = sum(choice.right for choice in question.choices) == 1
                etree.SubElement(element, "single").text = "true" if one else "false"
                etree.SubElement(element, "shuffleanswers").text = "true"
            for choice in question.choices:
                given = f"{fraction(question, choice.right):.7g}"
                content = choice.answer if question.is_number else _html(choice.answer)
                answer = text(
                    element,
                    "answer",
                    content,
                    fraction=given,
                    format="moodle_auto_format" if question.is_number else "html",
                )
                text(answer, "feedback", _html(choice.because), format="html")
                if question.is_number:
                    etree.SubElement(answer, "tolerance").text = f"{_within(question, choice.right):g}"
    etree.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + etree.tostring(quiz, encoding="unicode") + "\n"


def gift(chapters: Chapters) -> str:
    """The quiz in GIFT, a plain text that Moodle and many others import."""

    def escaped(text: str) -> str:
        return re.sub(SPECIAL, r"\\\1", " ".join(text.split()))

    parts = []
    for chapter, listed in chapters.items():
        parts.append(f"$CATEGORY: {TOP}/{title(chapter)}")
        for question in listed:
            lines = []
            for choice in question.choices:
                given, because = fraction(question, choice.right), escaped(choice.because)
                if question.is_number:
                    mark = "=" if choice.right else "=%0%"
                    lines.append(f"{mark}{choice.answer}:{_within(question, choice.right):g} #{because}")
                else:
                    one = abs(given) in (0, 100)
                    mark = ("=" if choice.right else "~") if one else f"~%{given:.5f}%"
                    lines.append(f"{mark}{escaped(choice.answer)} #{because}")
            answers = "\n".join(lines)
            sign = "#" if question.is_number else ""
            asked = escaped(question.question)
            if question.code or question.figure:
                # One line, in which \n stands for a new one: the file's own lines lose their indentation.
                lines = questions.body(question).splitlines()
                asked = "[html]" + r"\n".join(re.sub(SPECIAL, r"\\\1", line) for line in lines)
            parts.append(f"::{escaped(question.id)}::{asked} {{{sign}\n{answers}\n}}")
    return "\n\n".join(parts) + "\n"


def qti(chapters: Chapters) -> bytes:
    """The quiz as a package of QTI 1.2: a zip file with a question bank for each chapter."""
    manifest = etree.Element(
        "manifest", identifier="segmentation-course", xmlns="http://www.imsglobal.org/xsd/imscp_v1p1"
    )
    resources = etree.SubElement(manifest, "resources")
    files = {}
    for chapter, listed in chapters.items():
        name = f"quiz-{chapter}.xml"
        root = etree.Element("questestinterop", xmlns="http://www.imsglobal.org/xsd/ims_qtiasiv1p2")
        bank = etree.SubElement(root, "objectbank", ident=f"course-{chapter}")
        _field(etree.SubElement(bank, "qtimetadata"), "bank_title", f"{TOP}: {title(chapter)}")
        for question in listed:
            bank.append(_qti_item(question))
        etree.indent(root)
        files[name] = etree.tostring(root, encoding="unicode", xml_declaration=True)
        resource = etree.SubElement(
            resources, "resource", identifier=f"quiz-{chapter}", type="imsqti_xmlv1p2", href=name
        )
        etree.SubElement(resource, "file", href=name)
        for question in listed:
            if question.figure:
                image = f"images/{question.id}.png"
                files[image] = question.image()
                resource = etree.SubElement(
                    resources, "resource", identifier=f"image-{question.id}", type="webcontent", href=image
                )
                etree.SubElement(resource, "file", href=image)
    etree.indent(manifest)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in {
            "imsmanifest.xml": etree.tostring(manifest, encoding="unicode"),
            **files,
        }.items():
            # A fixed date: the same quiz is the same file.
            package.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def _qti_item(question: Question) -> etree.Element:
    right = [choice.right for choice in question.choices]
    one = sum(right) == 1
    kind = (
        "numerical_question" if question.is_number else f"multiple_{'choice' if one else 'answers'}_question"
    )
    item = etree.Element("item", ident=question.id, title=f"{question.id} {question.about}")
    _field(etree.SubElement(etree.SubElement(item, "itemmetadata"), "qtimetadata"), "question_type", kind)
    shown = etree.SubElement(item, "presentation")
    # The sign for the package's own folder, as Canvas reads it.
    _material(shown, questions.body(question, f"%24IMS-CC-FILEBASE%24/images/{question.id}.png"))
    processing = etree.SubElement(item, "resprocessing")
    etree.SubElement(
        etree.SubElement(processing, "outcomes"), "decvar", maxvalue="100", minvalue="0", varname="SCORE"
    )
    if question.is_number:
        field = etree.SubElement(shown, "response_str", ident="answer", rcardinality="Single")
        etree.SubElement(
            etree.SubElement(field, "render_fib", fibtype="Decimal"), "response_label", ident="number"
        )
    else:
        field = etree.SubElement(
            shown, "response_lid", ident="answer", rcardinality="Single" if one else "Multiple"
        )
        listed = etree.SubElement(field, "render_choice", shuffle="Yes")
        for number, choice in enumerate(question.choices):
            _material(etree.SubElement(listed, "response_label", ident=f"c{number}"), _html(choice.answer))

    def condition(going_on: bool) -> tuple[etree.Element, etree.Element]:
        found = etree.SubElement(processing, "respcondition", {"continue": "Yes" if going_on else "No"})
        return found, etree.SubElement(found, "conditionvar")

    for number, choice in enumerate(question.choices):  # what is said of each answer
        found, when = condition(True)
        if question.is_number:
            _between(when, float(choice.answer), _within(question, choice.right))
        else:
            etree.SubElement(when, "varequal", respident="answer").text = f"c{number}"
        etree.SubElement(found, "displayfeedback", feedbacktype="Response", linkrefid=f"c{number}_fb")
    found, when = condition(False)
    if question.is_number:
        _between(when, float(question.choices[0].answer), question.within)
    else:
        every = when if one else etree.SubElement(when, "and")
        for number, is_right in enumerate(right):
            if is_right or not one:
                place = every if is_right else etree.SubElement(every, "not")
                etree.SubElement(place, "varequal", respident="answer").text = f"c{number}"
    etree.SubElement(found, "setvar", action="Set", varname="SCORE").text = "100"
    for number, choice in enumerate(question.choices):
        _material(
            etree.SubElement(etree.SubElement(item, "itemfeedback", ident=f"c{number}_fb"), "flow_mat"),
            _html(choice.because),
        )
    return item


def _between(when: etree.Element, value: float, within: float) -> None:
    both = etree.SubElement(when, "and")
    for tag, bound in (("vargte", value - within), ("varlte", value + within)):
        etree.SubElement(both, tag, respident="answer").text = f"{bound:.10g}"


def _field(parent: etree.Element, label: str, entry: str) -> None:
    field = etree.SubElement(parent, "qtimetadatafield")
    etree.SubElement(field, "fieldlabel").text = label
    etree.SubElement(field, "fieldentry").text = entry


def _material(parent: etree.Element, content: str) -> None:
    etree.SubElement(etree.SubElement(parent, "material"), "mattext", texttype="text/html").text = content


def _html(text: str) -> str:
    return html.escape(text, quote=False)


def _within(question: Question, right: bool) -> float:
    """How near an answer must be; a wrong number is met exactly, so that it never hides the right one."""
    return question.within if right else min(question.within, 0.005)


def exam(folder: Path, count: int = 30, seed: int = 0) -> tuple[Path, Path, Path]:
    """Write a mixed test on paper: `test.html` to print, `test.md`, and `marking.md` with the answers, the points and what
    earns them. The figures are in both forms of the test.

    Args:
        folder: where they go; it is made.
        count: questions; 30 are 90 minutes.
        seed: another one draws others.

    Raises:
        ValueError: if there are not so many questions.
    """
    from nbconvert.filters import markdown2html

    drawn = questions.draw(questions.load().quiz, count, seed)
    points = [
        1 if question.is_number or sum(c.right for c in question.choices) == 1 else 2 for question in drawn
    ]
    head = f"{count} questions, {count * MINUTES_A_QUESTION} minutes, {sum(points)} points"
    test = [f"# Image segmentation: a test\n\n{head}. Test {seed}.\n\nName: ______________________"]
    marking = [
        f"# Marking scheme of test {seed}\n\n{head}. One point for the right choice or number. Where several choices "
        "are right: two points for all of them and no other, one point if one is missing or one too many. A number counts "
        "within the tolerance; a right way with a slip at the end is worth half."
    ]
    for place, (question, worth) in enumerate(zip(drawn, points, strict=True), start=1):
        choices = questions.in_fixed_order(question)
        letters = [chr(ord("a") + number) for number in range(len(choices))]
        listed = (
            "Answer: ____________"
            if question.is_number
            else "\n".join(f"- ( ) {letter}. {c.answer}" for letter, c in zip(letters, choices, strict=True))
        )
        asked = f"**{place}.** {question.question} ({worth} P.)"
        asked += f"\n\n![{question.figure}][{question.id}]" if question.figure else ""
        asked += f"\n\n```python\n{question.code}\n```" if question.code else ""
        test.append(f"{asked}\n\n{listed}")
        if question.is_number:
            key = f"{question.choices[0].answer} (± {question.within:g}): {question.choices[0].because}"
            wrong = [f"{c.answer}: {c.because}" for c in question.choices[1:]]
        else:
            named = list(zip(letters, choices, strict=True))
            key = " ".join(f"{letter}: {c.because}" for letter, c in named if c.right)
            wrong = [f"{letter}: {c.because}" for letter, c in named if not c.right]
        marking.append(
            f"**{place}.** {worth} P., {question.id}. {key}\n\n" + "\n".join(f"- not {w}" for w in wrong)
        )
    # At the end of the file, where they are not in the way of a reader of the Markdown.
    test += [f"[{question.id}]: {questions.data_uri(question)}" for question in drawn if question.figure]
    written = "\n\n".join(test) + "\n"
    contents = {
        "test.html": PAGE.format(seed=seed, body=markdown2html(written)),
        "test.md": written,
        "marking.md": "\n\n".join(marking) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return tuple(folder / name for name in contents)
