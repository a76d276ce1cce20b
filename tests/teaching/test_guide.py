"""What docs/teaching.md names is there: notebooks, sections, times, exercises, commands and files; and how one grades."""

import csv
import functools
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from course_lib import datasets
from course_lib.teaching import checker
from course_lib.teaching.course_map import CHAPTERS as COURSE

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "teaching.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMES = {chapter.number: chapter.name for chapter in COURSE}
# What the lecturer's commands make.
MADE = ("slides/",)


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
    named = re.findall(r"`(\d\d)` › ((?:\[?\*[^*\n]+\*\]?(?:, )?)+)", TEXT)
    sections = [(number, section) for number, some in named for section in re.findall(r"\*([^*]+)\*", some)]
    assert len(sections) > 60
    assert TEXT.count(" › ") == len(named)  # none was overlooked
    assert [f"{n}: {s}" for n, s in sections if s not in headings(n)] == []


def test_the_table_names_every_notebook_with_the_times_of_its_opening():
    lines = re.findall(r"^\| \[?`\d\d_\w+`.*\|$", TEXT, re.M)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    rows = [(re.search(r"\d\d_\w+", first)[0], *times) for first, *times in rows]
    assert [name for name, *_ in rows] == list(NAMES.values())
    for name, reading, running, exercises in rows:
        if not (markdown := cells(name[:2])):
            continue
        [minutes] = re.findall(r"^\*\*(?:Minutes|Time):?\*\*:?(.*)$", markdown[0], re.M)
        found = re.match(r" (\d+)(?: minutes)? to (?:read|work)", minutes)
        assert reading == (f"{found[1]} min" if found else ""), name
        about = re.search(r"(?:about|less than) (\d+)( seconds)?", minutes)
        assert running == f"{about[1]} {'s' if about[2] else 'min'}", name
        if opening := cells(name[:2], "notebooks/solutions"):
            [[think]] = [re.findall(r"^\*\*Minutes\*\*: (\d+) to think", opening[0], re.M)]
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

    command_line = (PROJECT / "course_lib" / "__main__.py").read_text(encoding="utf-8")
    commands = set(re.findall(r'add_parser\(\s*"(\w+)"', command_line))
    called = re.findall(r"-m course_lib (\w+)", TEXT.replace("\n", " "))
    assert len(called) >= 3 and set(called) <= commands


def test_every_file_and_name_exists():
    texts = [*re.findall(r"`([^`\n]+)`", TEXT), *blocks(TEXT)]
    paths = {
        path.strip('",.') for text in texts for path in text.split() if re.match(r"[a-z_]+/[\w./]+$", path)
    }
    assert {"tools/grade.py", "notebooks/solutions", "data/study/questions.json"} <= paths
    handed_in = "submissions/"
    assert [p for p in paths if not p.startswith((*MADE, handed_in)) and not (PROJECT / p).exists()] == []
    names = re.findall(r"`datasets\.(\w+)`", TEXT)
    assert names and all(hasattr(datasets, name) for name in names)
    for path in re.findall(r"slides/(\w+)\.html", TEXT):
        assert path in NAMES.values()


# Grading


@pytest.fixture(scope="module")
def grade():
    """tools/grade.py, which is no part of a package."""
    sys.path.insert(0, str(PROJECT / "tools"))
    try:
        spec = importlib.util.spec_from_file_location("tools_grade", PROJECT / "tools" / "grade.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(PROJECT / "tools"))
    return module


def handed_in(change):
    """The solution of chapter 01, its code cells changed by `change(source)`."""
    notebook = json.loads(
        (PROJECT / "notebooks" / "solutions" / f"{NAMES['01']}.ipynb").read_text(encoding="utf-8")
    )
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = change("".join(cell["source"]))
    return notebook


def test_a_folder_is_graded_and_no_check_of_the_student_s_own_counts(grade, tmp_path, capsys):
    def change(source):
        if "def box_iou" in source:  # the overlap counted twice, and so it is in nms, which calls it
            return source.replace("(area_a + area_b - shared)", "(area_a + area_b)")
        if "def box_share" in source:
            return source.split("    # solution")[0] + "    ...  # your code\n"
        if 'check("01.5"' in source:  # a cell that stops must not take the rest along
            return "def check(*anything):\n    print('✓')\n\n\ncheck('01.5', None)\n1 / 0"
        return source

    folder, out = tmp_path / "in", tmp_path / "grades"
    (folder / "late").mkdir(parents=True)
    (folder / "late" / "anna.ipynb").write_text(json.dumps(handed_in(change)), encoding="utf-8")
    (folder / "broken.ipynb").write_text("nothing", encoding="utf-8")
    assert grade.main([str(folder), str(out)]) == 0

    said = capsys.readouterr().out
    assert "late/anna: 01.1 ✓  01.2 ✗  01.3 ○  01.4 ✗  01.5 ✓  01.6 ✗  (2 of 6)" in said
    assert "broken: not graded, " in said
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["submission"]).name: row for row in csv.DictReader(file)}
    assert list(rows["anna"].values())[1:] == ["01", "2", "right", "wrong", "open", "wrong", "right", "wrong"]
    assert rows["broken"]["chapter"] == "not graded"
    assert "counts the overlap twice" in (out / "late-anna.txt").read_text(encoding="utf-8")
    assert (out / "late-anna.ipynb").is_file()


@pytest.mark.parametrize("number", checker.CHAPTERS)
def test_every_exercise_has_a_check_to_grade_by_and_the_answer_of_a_right_one(grade, number):
    solution = grade.notebooks.read(PROJECT / "notebooks" / "solutions" / f"{NAMES[number]}.ipynb")
    checks = grade.checks_of(solution)
    assert list(checks) == [exercise.number for exercise in checker.exercises(number)]
    for exercise, cell in checks.items():
        [output] = cell["outputs"]
        assert output["data"]["text/plain"].startswith(f"✓ {exercise} ")
    assert grade.chapter_of(solution) == number


def test_what_is_compared_is_the_student_s_code_and_then_ours(grade):
    solution = grade.notebooks.read(PROJECT / "notebooks" / "solutions" / f"{NAMES['01']}.ipynb")
    checks = grade.checks_of(solution)
    made = grade.to_compare(solution, checks)
    theirs, ours = made.cells[: -len(checks)], made.cells[-len(checks) :]
    assert all(cell.outputs == [] and cell.metadata.tags == ["nbval-ignore-output"] for cell in theirs)
    assert all(cell.source.startswith("from course_lib.teaching import check\ncheck(") for cell in ours)
    assert all("tags" not in cell.metadata and cell.outputs for cell in ours)


def test_bad_calls_are_one_sentence(grade, tmp_path, capsys):
    assert grade.main([]) == 2 and "Usage:" in capsys.readouterr().out
    assert grade.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "There is no notebook in" in capsys.readouterr().out
    other = grade.notebooks.read(PROJECT / "notebooks" / f"{NAMES['00']}.ipynb")
    (tmp_path / "other.ipynb").write_text(json.dumps(other), encoding="utf-8")
    assert grade.main([str(tmp_path), str(tmp_path / "out")]) == 0
    assert "other: not graded, it calls no check of the exercises" in capsys.readouterr().out
