"""The process that judges one hand-in: it has the right answers, and runs none of the hand-in's code."""

import ast
import ctypes
import dataclasses
import json
import os
import re
import runpy
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from course_lib import resources
from course_lib.teaching import checker
from course_lib.teaching.exercise import Exercise
from course_lib.teaching.grading.learner import Learner, Stopped, decoded, with_code_of
from course_lib.teaching.grading.selection import (
    Cell,
    bound,
    chapter_of,
    expression_of,
    imported,
    lost_names,
    read_cells,
    selection,
)


@dataclass
class Verdict:
    """What came of one exercise: one of `STATES`, and why, in words."""

    number: str
    name: str
    state: str
    text: str
    points: float = 0.0
    maximum: float = 1.0


def judged(
    exercise: Exercise, cells: list[Cell], library: Path, limits: dict, ours: dict[str, str]
) -> Verdict:
    """Judge one exercise.

    Args:
        ours: name → source of right functions for the exercises before this one that were not right here. Where the
            learner's function calls one of them, it is judged again with ours, so that one error costs one exercise.
    """
    verdict = Verdict(
        exercise.number, exercise.name, "missing", "", 0.0, float(getattr(exercise, "points", 1))
    )
    expression = expression_of(exercise, cells)
    if expression is None:
        lost = [cell.error for cell in cells if exercise.name in lost_names(cell)]
        verdict.text = (
            f"There is no function {exercise.name} in the notebook{f': {lost[0]}' if lost else ''}."
        )
        return verdict
    chosen, needed = selection(cells, expression)
    verdict.state, verdict.text = _tried(exercise, cells, chosen, expression, library, limits)
    theirs = [name for name in ours if name in needed and name != exercise.name]
    if verdict.state not in ("right", "open") and theirs:
        replaced = []
        for name in theirs:
            keep = [k for k, one in enumerate(ast.parse(ours[name]).body) if exercise.name not in bound(one)]
            replaced.append((f"our {name}", ours[name], keep))
        state, text = _tried(exercise, cells, chosen + replaced, expression, library, limits)
        if state == "right":
            verdict.state = state
            verdict.text = f"{text} (It was judged with a right {' and '.join(theirs)}, which it calls.)"
    if verdict.state == "right":
        verdict.points = verdict.maximum
    return verdict


def _tried(
    exercise: Exercise, cells: list[Cell], chosen: list, expression: str, library: Path, limits: dict
) -> tuple[str, str]:
    live = None
    if is_live(exercise):
        seen = sorted(
            name for name in imported(cells) if re.match(r"course_lib\.(chapters|teaching\.\w)", name)
        )
        if seen:
            return "wrong", f"The notebook imports {', '.join(seen)}, where the checks and answers are."
        live = {"number": exercise.number, "nonce": secrets.token_hex()}
    with Learner(library, chosen, expression, **limits, live=live) as learner:
        try:
            begun = learner.receive()
            if problems := begun.get("problems"):
                problem = (
                    f" Before that, {problems[0]['error']}: {problems[0]['text']} ({problems[0]['line']})."
                )
            else:
                problem = ""
            if "missing" in begun:
                return "wrong", f"{expression} is not there when the notebook has run.{problem}"
            if live:
                if begun["nonce"] != live["nonce"] or not begun["intact"]:
                    return "stopped", "Not judged: the notebook changes the checks."
                return str(begun["state"]), str(begun["text"]) + problem
            function = (
                with_code_of(learner, cells, expression) if begun["callable"] else decoded(begun["value"])
            )
            report = checker.judge(exercise, function)
            state, text = report.state, report.text
        except Stopped:
            problem = ""
        except Exception as error:  # the check itself, on an answer that nobody thought of
            return "stopped", f"The check could not judge the answer ({type(error).__name__}: {error})."
        if learner.stopped:
            return "stopped", f"Not judged: {learner.stopped}."
    return state, text + (problem if state != "right" else "")


def is_live(exercise: Exercise) -> bool:
    """Whether an exercise is about objects that cannot be sent from one process to another, such as Keras models. Its check
    runs where the learner's code runs, and is only as safe as that."""
    return exercise.live


@contextmanager
def copied_library(whole: bool = False) -> Iterator[Path]:
    """A folder with the library as the learner's code sees it: without exercises, answers and checks, unless `whole`."""
    with tempfile.TemporaryDirectory(prefix="library-") as folder:
        answers = () if whole else ("exercises.py", "checker.py")
        package = Path(folder) / "course_lib"
        skipped = shutil.ignore_patterns("__pycache__", *answers)
        shutil.copytree(resources.PACKAGE, package, ignore=skipped)
        if not whole:
            (package / "teaching" / "checker.py").write_text(STAND_IN, encoding="utf-8")
        with suppress(
            OSError
        ):  # Windows lets few make links; then what reads weights or tables says what it misses
            (Path(folder) / "data").symlink_to(resources.DATA, target_is_directory=True)
        yield Path(folder)


STAND_IN = '''"""Stands where the checks are, while a hand-in is graded: they are in another process."""


class Check:
    def __call__(self, *_):
        return None

    def __getattr__(self, name):
        return self


check = Check()
CHAPTERS = ()


def exercises(chapter=None):
    return []
'''


def right_sources(chapter: str) -> dict[str, str]:
    """Name → source of a right function, from the chapter's solutions; empty where they are not here."""
    from course_lib.teaching import exercises as notebooks

    sources = {}
    for path in notebooks.solutions():
        if path.name.partition("_")[0] == chapter:
            cells = read_cells(path)
            for exercise in checker.exercises(chapter):
                picked, _ = selection(cells, exercise.name)
                chosen = [ast.parse(source).body[k] for _, source, some in picked for k in some]
                sources[exercise.name] = ast.unparse(ast.Module(chosen, []))
    return sources


def judge_all(request: dict, answers: BinaryIO) -> None:
    """Judge a notebook's exercises; before and after each a line of JSON goes to `answers`."""

    def tell(message: dict) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    with suppress(OSError, AttributeError, TypeError):  # Linux: no other process may look into this one
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    cells = read_cells(Path(request["path"]))
    chapter = chapter_of(cells)
    tell({"chapter": chapter, "imports": sorted(imported(cells))})
    if not chapter:
        return
    hidden = hidden_cases(request["hidden"])
    ours, states = right_sources(chapter), dict(request["done"])
    for exercise in checker.exercises(chapter):
        if exercise.number in states:
            continue
        tell({"begun": exercise.number, "name": exercise.name})
        if more := hidden.get(exercise.number):
            exercise = with_cases(exercise, more)
        before = [other for other in checker.exercises(chapter) if other.number < exercise.number]
        others = {
            one.name: ours[one.name]
            for one in before
            if states.get(one.number) != "right" and one.name in ours
        }
        with copied_library(whole=is_live(exercise)) as library:
            verdict = judged(exercise, cells, library, request["limits"], others)
        states[exercise.number] = verdict.state
        tell({"verdict": dataclasses.asdict(verdict)})


def with_cases(exercise: Exercise, more: list) -> Exercise:
    """The exercise with further inputs behind its own."""
    if callable(exercise.cases):
        return dataclasses.replace(exercise, cases=lambda: [*exercise.cases(), *more])
    return dataclasses.replace(exercise, cases=[*exercise.cases, *more])


def hidden_cases(path: str) -> dict[str, list]:
    """Number of an exercise → further inputs, from a lecturer's own file: `CASES = {"01.2": [Case(...)]}`."""
    if not path:
        return {}
    try:
        cases = runpy.run_path(path)["CASES"]
        return {number: list(more) for number, more in cases.items()}
    except Exception as error:
        raise ValueError(
            f"hidden is {path}; it must be a Python file that sets CASES, number of an exercise → list of Case "
            f"({type(error).__name__}: {error})."
        ) from error


def judge_for_parent() -> None:
    """The main function of the process that judges."""

    def end(*_):  # with the learner's process and its folder
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a check prints is no verdict
    judge_all(request, answers)
