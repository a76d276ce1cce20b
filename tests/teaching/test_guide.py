"""What docs/teaching.md names is there: notebooks, sections, times, exercises, commands and files."""

import functools
import json
import re
from pathlib import Path

from course_lib import __main__ as command_line
from course_lib import datasets
from course_lib.teaching import checker
from course_lib.teaching.course_map import CHAPTERS as COURSE

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "teaching.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMES = {chapter.number: chapter.name for chapter in COURSE} | {
    path.name.partition("_")[0]: path.stem for chapter in COURSE for path in chapter.notebooks()
}
# What the lecturer's commands make.
MADE = ("slides/", "feedback/")


@functools.cache
def cells(number, folder="notebooks"):
    """The markdown cells of a chapter's notebook; nothing where it is not written yet."""
    path = PROJECT / folder / f"{NAMES[number]}.ipynb"
    if not path.is_file():
        return []
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


@functools.cache
def headings(number):
    """A notebook's headings without the numbers that some have."""
    found = re.findall(r"^#{2,4} (?:\d+\. )?(.+)$", "\n".join(cells(number)), re.M)
    return {heading.strip() for heading in found}


def blocks(text):
    """The lines of the page's code blocks, those that go on joined."""
    return re.sub(r" *\\\n *", " ", "\n".join(re.findall(r"^ {4}(.*)$", text, re.M))).splitlines()


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) >= 8
    missing = [
        link
        for link in links
        if not link.startswith("https://") and not (PAGE.parent / link.partition("#")[0]).exists()
    ]
    assert missing == []


def test_every_section_is_a_heading_of_its_notebook():
    named = re.findall(r"`(\d\d[a-z]?|[A-Z])` › ((?:\[?\*[^*\n]+\*\]?(?:, )?)+)", TEXT)
    sections = [(number, section) for number, some in named for section in re.findall(r"\*([^*]+)\*", some)]
    assert len(sections) > 60
    assert TEXT.count(" › ") == len(named)  # none was overlooked
    assert [f"{n}: {s}" for n, s in sections if s not in headings(n)] == []


def test_the_table_names_every_notebook_with_the_times_of_its_opening():
    lines = re.findall(r"^\| \[?`(?:\d\d[a-z]?|[A-Z])_\w+`.*\|$", TEXT, re.M)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    rows = [(re.search(r"(?:\d\d[a-z]?|[A-Z])_\w+", first)[0], *times) for first, *times in rows]
    assert [name for name, *_ in rows] == sorted(NAMES.values())
    for name, reading, running, exercises in rows:
        number = name.partition("_")[0]
        if not (markdown := cells(number)):
            continue
        [minutes] = re.findall(r"^\*\*(?:Minutes|Time):?\*\*:?(.*)$", markdown[0], re.M)
        found = re.match(r" (\d+)(?: minutes)? to (?:read|work)", minutes)
        assert reading == (f"{found[1]} min" if found else ""), name
        about = re.search(r"(?:about|less than) (\d+)( seconds)?", minutes)
        assert running == f"{about[1]} {'s' if about[2] else 'min'}", name
        if opening := cells(number, "notebooks/solutions"):
            [[think]] = [re.findall(r"^\*\*Time:\*\* (\d+) minutes to think", opening[0], re.M)]
            assert exercises == f"{think} min", name
        else:
            assert any("## Exercises" in cell for cell in markdown) and exercises == "in the notebook", name


def test_every_exercise_named_exists():
    named = set(re.findall(r"\b(\d\d\.\d)\b(?! ?%)", TEXT))
    known = {exercise.number for exercise in checker.exercises()}
    assert len(named) > 20
    assert {number for number in named if number[:2] in checker.CHAPTERS} <= known
    assert {number[:2] for number in named} <= set(NAMES)


def test_every_command_is_one():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.M))
    variables = set(re.findall(r"^#   (\w+)=", makefile, re.M))
    lines = [*blocks(TEXT), *re.findall(r"`([^`]+)`", TEXT.replace("\n", " "))]
    made = [line for line in lines if re.match(r"(?:\w+=\S+ )*make ", line)]
    assert len(made) >= 7
    for line in made:
        for call in re.findall(r"\bmake ([a-z]+)((?: \w+=\S+)*)", line):
            assert call[0] in targets, line
            assert set(re.findall(r"(\w+)=", call[1])) <= variables, line

    [verbs] = [action for action in command_line._parser()._actions if action.dest == "command"]
    called = re.findall(r"-m course_lib (\w+)", TEXT.replace("\n", " "))
    assert len(called) >= 3 and set(called) <= set(verbs.choices)


def test_every_file_and_name_exists():
    texts = [*re.findall(r"`([^`\n]+)`", TEXT), *blocks(TEXT)]
    paths = {
        path.strip('",.') for text in texts for path in text.split() if re.match(r"[a-z_]+/[\w./]+$", path)
    }
    assert {"notebooks/solutions", "course_lib/chapters/ch03_unet_encoder/questions.json"} <= paths
    handed_in = "submissions/"
    assert [p for p in paths if not p.startswith((*MADE, handed_in)) and not (PROJECT / p).exists()] == []
    names = re.findall(r"`datasets\.(\w+)`", TEXT)
    assert names and all(hasattr(datasets, name) for name in names)
    for path in re.findall(r"slides/(\w+)\.html", TEXT):
        assert path in NAMES.values()
