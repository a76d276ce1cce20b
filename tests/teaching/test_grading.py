"""Grading: honest hand-ins get what they deserve, hostile ones gain nothing, and none stops the others."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from course_lib import resources
from course_lib.__main__ import main
from course_lib.teaching import checker, grading
from course_lib.teaching import exercises as notebooks
from course_lib.teaching.grading import judging, learner, pages, selection

PROJECT = Path(__file__).resolve().parents[2]
SOLUTION = next(path for path in notebooks.solutions() if path.name.startswith("01"))
EXERCISE = notebooks.exercise_path(SOLUTION)
SHARE = checker.find("01.3").name
LIMITS = {"seconds": 20.0, "memory_gb": 3.0}


def sources(path=SOLUTION):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def notebook(cells):
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": source} for source in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def with_body(number, body, path=SOLUTION):
    """The notebook's cells; the function of one exercise has another body."""
    name, found = checker.find(number).name, []
    for source in sources(path):
        if source.startswith(f"def {name}("):
            source = source.partition("\n")[0] + "\n" + "\n".join(f"    {line}" for line in body.splitlines())
        found.append(source)
    return found


def verdict(number, cells, **limits):
    """What one exercise gets; this process judges."""
    parsed = [selection.parsed(f"cell {k}", source) for k, source in enumerate(cells, start=1)]
    with judging.copied_library() as library:
        return judging.judged(checker.find(number), parsed, library, LIMITS | limits, {})


UNWRITTEN = sources(EXERCISE)


# Honest hand-ins, one exercise each


@pytest.mark.parametrize("number", ["01.1", "01.4", "01.6", "04.5"])
@pytest.mark.slow
def test_a_right_function_is_right_and_an_unwritten_one_is_open(number):
    """Among the inputs are arrays, a generator of random numbers (01.6), and functions (04.5)."""
    [path] = [path for path in notebooks.solutions() if path.name.startswith(number[:2])]
    right = verdict(number, sources(path))
    assert (right.state, right.points, right.maximum) == ("right", 1, 1)
    unwritten = verdict(number, sources(notebooks.exercise_path(path)))
    assert (unwritten.state, unwritten.points) == ("open", 0)


def test_a_wrong_function_is_told_why():
    found = verdict("01.2", with_body("01.2", "return 0.5"))
    assert found.state == "wrong" and "0.5" in found.text and found.points == 0


def test_one_error_costs_one_exercise():
    """01.4 and 01.6 call 01.2, here wrong: they are judged with a right one."""
    cells = with_body("01.2", "return 0.5")
    parsed = [selection.parsed("cell", source) for source in cells]
    ours = judging.right_sources("01")
    with judging.copied_library() as library:
        calls = judging.judged(checker.find("01.4"), parsed, library, LIMITS, ours)
    right_one = f"judged with a right {checker.find('01.2').name}"
    assert calls.state == "right" and right_one in calls.text


@pytest.mark.parametrize(
    "spoilt",
    [
        "1 / 0",
        "while True:\n    pass",
        "import sys\nsys.exit()",
        "def broken(:\n    ...",
        f"result = {SHARE}(1, 2, 3) / 0",
    ],
)
def test_what_an_exercise_does_not_need_does_not_run(spoilt):
    cells = sources()
    found = verdict("01.3", [cells[0], spoilt, *cells[1:], spoilt])
    assert found.state == "right"


def test_deleted_checks_and_a_renamed_function():
    without_checks = [source for source in sources() if "check(" not in source]
    assert verdict("01.3", without_checks).state == "right"
    assert selection.chapter_of([selection.parsed("cell", source) for source in without_checks]) == "01"
    renamed = [source.replace(SHARE, "my_share") for source in sources()]
    assert verdict("01.3", renamed).state == "right", "its check names the function"
    lost = verdict("01.3", [source for source in renamed if "check(" not in source])
    assert lost.state == "missing" and f"no function {SHARE}" in lost.text


def test_a_syntax_error_is_named_with_its_line():
    cells = [
        f"def {SHARE}(a, b, c):\n    return a +* b" if f"def {SHARE}(" in one else one for one in sources()
    ]
    found = verdict("01.3", cells)
    assert found.state == "missing" and "line 2 of cell" in found.text and "is not Python" in found.text


def test_an_error_is_told_with_the_learners_line():
    found = verdict("01.3", with_body("01.3", "return length / nothing"))
    assert found.state == "wrong" and "NameError" in found.text and "return length / nothing" in found.text


def test_magics_helpers_and_globals_are_understood():
    cells = [
        "%matplotlib inline\nimport numpy as np\n!ls\nTABLE = {}",
        "%%time\ndef helper(x):\n    return np.deg2rad(x)",
        "TABLE['right'] = 90.0\nUNUSED = 1 / 0",
        "class Box:\n"
        "    def __init__(self, *sides): self.sides = sides\n"
        "    def size(self): return self.sides[0] * self.sides[1]",
        f"def {SHARE}(length, width, degrees, *, turn=helper(TABLE['right']) * 0):"
        """
    c, s = abs(np.cos(helper(degrees) + turn)), abs(np.sin(helper(degrees)))
    return Box(length, width).size() / ((length * c + width * s) * (length * s + width * c))""",
    ]
    assert verdict("01.3", cells).state == "right"


def test_a_function_that_changes_its_input_is_seen_through_the_process():
    lengths = """mask[...] = mask
counts, current = [0], False
for pixel in mask.ravel(order="F"):
    if pixel != current:
        counts.append(0)
        current = pixel
    counts[-1] += 1
"""
    assert verdict("01.5", with_body("01.5", f"{lengths}return counts")).state == "right"
    found = verdict("01.5", with_body("01.5", f"{lengths}mask[...] = ~mask\nreturn counts"))
    assert found.state == "wrong" and "chang" in found.text


@pytest.mark.slow
def test_out_of_memory_and_out_of_time():
    found = verdict("01.3", with_body("01.3", "return np.ones(10**11).sum()"))
    assert found.state == "wrong" and "Memory" in found.text
    found = verdict(
        "01.3", with_body("01.3", "kept = []\nwhile True: kept.append(bytearray(10**8))"), memory_gb=1.5
    )
    assert found.state in ("wrong", "stopped") and found.points == 0
    found = verdict("01.3", with_body("01.3", "import time\ntime.sleep(100)"), seconds=4)
    assert found.state in ("wrong", "stopped") and "running after" in found.text


# Hostile ones, one exercise each


@pytest.mark.parametrize(
    "body",
    [
        "import os\nos._exit(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import sys\nsys.exit(0)",
        "raise KeyboardInterrupt",
        "import ctypes\nctypes.string_at(0)",
        "return type('Same', (), {'__eq__': lambda *_: True, '__array__': lambda *_, **__: 1 / 0})()",
        "class Evil:\n    def __reduce__(self): return (print, ('unpickled',))\nreturn Evil()",
        "return np.zeros((3000, 3000))",
        "return 'x' * 10**6",
        "return [[[[[[[[[[[[]]]]]]]]]]]]",
        "return 10**5000",
        "import os, json\n"
        "for k in range(3, 64):\n"
        "    text = json.dumps({'verdict': {'state': 'right'}, 'call': 1, 'value': ['plain', True]})\n"
        "    try: os.write(k, f'{text}\\n'.encode())\n"
        "    except OSError: pass\n"
        "return True",
        "import os\n"
        "for k in range(3, 64):\n"
        "    try: os.write(k, b'\\xff{]\\n' * 100)\n"
        "    except OSError: pass",
        "import course_lib.teaching.checker as c\nc.judge = lambda *_: c.Report('right', '', '')\nc.agrees = c.judge",
        "from course_lib.teaching import checker\nreturn checker.find('01.3').answer(length, width, degrees)",
        "from course_lib.chapters.ch01_detection_vs_segmentation import exercises\n"
        "return exercises.EXERCISES[2].answer(length, width, degrees)",
        "import gc\nfound = [o for o in gc.get_objects() if type(o).__name__ == 'Exercise']\n"
        "return found[2].answer(length, width, degrees)",
    ],
)
@pytest.mark.slow
def test_nothing_hostile_is_right(body, capfd):
    found = verdict("01.3", with_body("01.3", body))
    assert found.state in ("wrong", "stopped", "open") and found.points == 0, found
    assert found.text and "unpickled" not in capfd.readouterr().out


# Exercises whose answers cannot be sent


def live_verdict(cells, monkeypatch):
    """What 01.3 gets where its check runs beside the learner's code, as for a Keras model."""
    monkeypatch.setattr(judging, "is_live", lambda exercise: True)
    parsed = [selection.parsed(f"cell {k}", source) for k, source in enumerate(cells, start=1)]
    with judging.copied_library(whole=True) as library:
        return judging.judged(checker.find("01.3"), parsed, library, LIMITS, {})


def test_a_live_exercise_is_judged_beside_the_learners_code(monkeypatch):
    assert live_verdict(sources(), monkeypatch).state == "right"
    assert live_verdict(UNWRITTEN, monkeypatch).state == "open"
    assert live_verdict(with_body("01.3", "return 0.5"), monkeypatch).state == "wrong"


@pytest.mark.parametrize(
    "cheat",
    [
        "import course_lib.teaching.checker as c\nc.judge = lambda *_: c.Report('right', '', '')\n{} = c",
        "import sys\nc = sys.modules['course_lib.teaching.checker']\nc.agrees = lambda *_: True\n{} = lambda *_: c",
        "import sys\nc = sys.modules['course_lib.teaching.checker']\n"
        "c.agrees.__code__ = (lambda *_: True).__code__\n{} = lambda *_: c",
        "import os\n{} = os._exit(0)",
        "from course_lib.chapters.ch01_detection_vs_segmentation.exercises import EXERCISES\n{} = EXERCISES[2].answer",
    ],
)
def test_a_live_check_that_was_changed_is_no_verdict(cheat, monkeypatch):
    found = live_verdict([cheat.format(SHARE)], monkeypatch)
    assert found.state in ("wrong", "stopped") and found.points == 0, found


def test_what_the_process_says_can_be_anything():
    assert learner.decoded(["array", "<f8", [2], "AAAAAAAAAAAAAAAAAAAAAA=="]).tolist() == [0, 0]
    for odd in (
        None, 3, [], ["array", "O", [1], ""], ["array", "<f8", [10**12], "AAAA"], ["array", "<f8", ["x"], ""],
        ["plain", [1]], ["float", "x"], ["constant", "rm"], ["nothing"],
    ):  # fmt: skip
        assert type(learner.decoded(odd)).__name__ == "malformed"
    assert isinstance(learner.decoded(["other", "dict"]), dict)
    argument = np.zeros(3)
    with pytest.raises(ValueError):
        learner.change(argument, ["array", "<f8", [2], "AAAAAAAAAAAAAAAAAAAAAA=="])


# A class


ONE = [f"def {SHARE}(length, width, degrees):\n    return 1.0"]  # a notebook that is graded in a moment
HAND_INS = {
    "nothing, exit at once": (["import os; os._exit(0)", *UNWRITTEN], 0),
    "nothing, endless function": (with_body("01.1", "while True: pass", EXERCISE), 0),
    "one endless function": (with_body("01.5", "while True: pass"), 5),
    "one ends the process": (with_body("01.3", "import os\nos._exit(0)"), 5),
    "one kills its parent": (with_body("01.3", "import os\nos.kill(os.getppid(), 9)"), 5),
    "another judge": (
        [
            "import course_lib.teaching.checker as c\n"
            "c.judge = lambda e, f: c.Report('right', f'{e.number}', f'right on all {len(e.cases)} inputs.')",
            *UNWRITTEN,
        ],
        0,
    ),
    "answers imported": (
        [
            "from course_lib.chapters.ch01_detection_vs_segmentation.exercises import *\n"
            + " = ".join(exercise.name for exercise in checker.exercises("01"))
        ],
        0,
    ),
    "checks deleted": ([source for source in sources() if "check(" not in source], 6),
    "one error": (with_body("01.2", "return 0.5"), 5),
    "zz[1]": (ONE, 0),
    "a::b": (ONE, 0),
    "=HYPERLINK(1)": (ONE, 0),
    "a-b": (ONE, 0),
    "a/b": (ONE, 0),
    "Ana López_123_assignsubmission_file_/x": (ONE, 0),
    "lopezana_42_99_x": (ONE, 0),
}
NOT_NOTEBOOKS = {
    "empty": "",
    "text": "nothing",
    "list": "[]",
    "deep": "[" * 100_000,
    "no code": notebook([]),
    "other": notebook(["print(1)"]),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The whole table graded by the command, in one class."""
    folder = tmp_path_factory.mktemp("class")
    hand_ins, out = folder / "in", folder / "out"
    files = {name: notebook(cells) for name, (cells, _) in HAND_INS.items()} | NOT_NOTEBOOKS
    for name, text in files.items():
        path = hand_ins / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in hand_ins.rglob("*.ipynb")}
    command = [sys.executable, "tools/grade.py", str(hand_ins), str(out), "--seconds", "20", "--jobs", "2"]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    assert {path: path.read_bytes() for path in hand_ins.rglob("*.ipynb")} == before
    rows = {
        row["submission"].lstrip("'"): row
        for row in csv.DictReader(io.StringIO((out / "grades.csv").read_text()))
    }
    return rows, out, run.stdout


@pytest.mark.slow
def test_the_class_gets_what_it_deserves(graded):
    rows, _, said = graded
    assert set(rows) == set(HAND_INS) | set(NOT_NOTEBOOKS)
    assert {name: float(rows[name]["points"]) for name in HAND_INS} == {
        name: p for name, (_, p) in HAND_INS.items()
    }
    assert rows["one error"]["01.2"] == "wrong" and rows["one error"]["01.4"] == "right"
    assert rows["one kills its parent"]["01.3"] == "stopped"
    for name in NOT_NOTEBOOKS:
        assert rows[name]["problem"] and f"{name}: not graded, " in said
    assert "checks deleted: 01.1 ✓  01.2 ✓  01.3 ✓  01.4 ✓  01.5 ✓  01.6 ✓  (6 of 6)" in said


@pytest.mark.slow
def test_the_class_gets_pages_and_tables(graded):
    _, out, _ = graded
    pages = {path.name for path in (out / "feedback").iterdir()}
    assert len(pages) == len(HAND_INS) + len(NOT_NOTEBOOKS)
    assert {"a-b.html", "a-b-2.html", "zz-1.html"} <= pages
    page = (out / "feedback" / "one-error.html").read_text(encoding="utf-8")
    assert "5 of 6 points" in page and "✗ 01.2 " in page and "not right, 0 of 1" in page
    assert "imports course_lib.chapters" in (out / "feedback" / "answers-imported.html").read_text(
        encoding="utf-8"
    )
    grades = (out / "grades.csv").read_text(encoding="utf-8")
    assert "\n'=HYPERLINK(1)," in grades and "\n=" not in grades
    moodle = list(csv.DictReader(io.StringIO((out / "moodle.csv").read_text(encoding="utf-8"))))
    [ana] = [row for row in moodle if row["Identifier"] == "Participant 123"]
    assert (ana["Full name"], ana["Grade"], ana["Maximum grade"]) == ("Ana López", "0", "6")
    canvas = list(csv.reader(io.StringIO((out / "canvas.csv").read_text(encoding="utf-8"))))
    assert canvas[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Chapter 01"]
    assert canvas[1][0] == "    Points Possible" and canvas[1][-1] == "6"
    assert ["lopezana", "42", "", "", "", "0"] in canvas


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1"])
def test_no_text_is_a_formula(text):
    [[cell]] = csv.reader(io.StringIO(pages.as_csv([[text]]), newline=""))
    assert cell == f"'{text}"
    assert pages.as_csv([["anna", -1.5]]) == "anna,-1.5\r\n"


def test_nothing_is_written_among_the_hand_ins(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "anna.ipynb").write_text(notebook(sources()), encoding="utf-8")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "feedback").symlink_to(tmp_path / "in")
    for out in ("in", "in/grades", "linked", "linked/grades", "out"):
        with pytest.raises(ValueError, match="must not lie in the folder of the hand-ins"):
            grading.grade(tmp_path / "in", tmp_path / out)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["anna.ipynb"]


def test_bad_calls_are_one_sentence(tmp_path, capsys):
    assert main(["grade", str(tmp_path), str(tmp_path.with_name("out"))]) == 1
    assert "it must hold notebooks (*.ipynb)" in capsys.readouterr().err
    (tmp_path / "a.ipynb").write_text(notebook(ONE), encoding="utf-8")
    assert main(["grade", str(tmp_path), str(tmp_path)]) == 1
    assert "must not lie in the folder of the hand-ins" in capsys.readouterr().err
    assert main(["release", str(tmp_path)]) == 1
    assert "it must be a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "CASES = 5", "1 / 0", "CASES = {'01.1': 3}"])
def test_a_file_without_hidden_cases_is_told_before_anything_is_graded(tmp_path, capsys, content):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "anna.ipynb").write_text(notebook(ONE), encoding="utf-8")
    (tmp_path / "hidden.py").write_text(content)
    paths = [str(tmp_path / name) for name in ("in", "out", "hidden.py")]
    assert main(["grade", *paths[:2], "--hidden", paths[2]]) == 1
    assert "hidden.py; it must be a Python file that sets CASES" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_ends_what_it_began(tmp_path, number):
    (tmp_path / "in").mkdir()
    begun = tmp_path / "begun"
    body = f"import time\nopen({str(begun)!r}, 'w').write('x')\ntime.sleep(600)"
    for name in "ab":
        (tmp_path / "in" / f"{name}.ipynb").write_text(notebook(with_body("01.1", body)), encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "tools/grade.py", str(tmp_path / "in"), str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--seconds", "600", "--jobs", "1"], cwd=PROJECT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not begun.exists():
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number and "grade: stopped." in said and "Traceback" not in said
    assert not list((tmp_path / "tmp").iterdir())  # each process had a folder there


def test_hidden_inputs_are_tried_too(tmp_path):
    file = tmp_path / "hidden.py"
    file.write_text(
        "from course_lib.teaching.exercise import Case\nCASES = {'01.3': [Case('a hidden one', 3.0, 1.0, 17.0)]}"
    )
    exercise = judging.with_cases(checker.find("01.3"), judging.hidden_cases(str(file))["01.3"])
    cases = exercise.cases
    assert cases[-1].words == "a hidden one"


def test_students_get_no_solutions(tmp_path):
    out = grading.release(tmp_path / "course")
    assert not [path for path in out.rglob("*") if "solutions" in path.parts or path.name == "grade.py"]
    assert (out / "notebooks" / "exercises" / EXERCISE.name).is_file()
    assert (out / "course_lib" / "teaching" / "slides" / "__init__.py").is_file() and (
        out / "Makefile"
    ).is_file()
    code = "from course_lib.teaching import check; import course_lib; print(course_lib.__file__); check('01.2', None)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=out,
        env=os.environ | {"PYTHONPATH": str(out)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and run.stdout.startswith(str(out)), run.stderr
    with pytest.raises(ValueError, match="must be a new folder"):
        grading.release(out)
    with pytest.raises(ValueError, match="must be a new folder"):
        grading.release(resources.PROJECT / "students")


@pytest.mark.parametrize("number", checker.CHAPTERS)
@pytest.mark.slow
def test_every_solution_is_right(number):
    [solution] = [path for path in notebooks.solutions() if path.name.startswith(f"{number}_")]
    hand_in = grading.grade_one(solution, solution.stem, {"seconds": 60.0, "memory_gb": 4.0})
    assert [v.number for v in hand_in.verdicts] == [e.number for e in checker.exercises(number)]
    assert {v.number: v.text for v in hand_in.verdicts if v.state != "right"} == {}
