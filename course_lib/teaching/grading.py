"""Grade exercise notebooks that were handed in, each exercise in a process of its own.

Three kinds of processes, each trusting only the one before it:

- `grade` goes through the hand-ins and writes what came of each. It never runs their code.
- For each hand-in it starts one that judges (`judge_all`): it reads the notebook, picks the statements that an exercise
  needs, and looks at the answers with `checker`, where the right answers are. It never runs the hand-in's code either.
- For each exercise that one starts `grading_child.py`, in an empty folder, on a copy of the library without exercises
  and answers, with bounds on time and memory. There the learner's code runs. What it is sent is inputs, what it sends
  back is values; no verdict comes from there, so replacing a check, ending the process or importing the answers gains
  nothing.

Nothing keeps the learner's code from reading the disk or from ending the grader's other processes: it runs with your
rights. docs/teaching.md has the command that shuts it in.
"""

from __future__ import annotations

import argparse
import ast
import base64
import builtins
import csv
import ctypes
import dataclasses
import functools
import html
import io
import json
import linecache
import os
import pickle
import queue
import re
import runpy
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from course_lib import resources
from course_lib.teaching import checker
from course_lib.teaching.exercise import Exercise

SECONDS = 60.0
"""How long an exercise may take, the learner's imports included."""
MEMORY_GB = 4.0
"""How much memory the learner's code may ask for (Linux)."""
MAX_NOTEBOOK = 50 * 2**20
"""Bytes of a notebook; what is larger is not read."""
MAX_ANSWER = 64 * 2**20
"""Bytes of one answer of the learner's process."""
MARKS = {"right": "✓", "wrong": "✗", "open": "○", "missing": "○", "stopped": "✗"}
STATES = {
    "right": "right",
    "wrong": "not right",
    "open": "not written yet",
    "missing": "not found in the notebook",
    "stopped": "stopped before it was judged",
}
USUAL = {
    "numpy",
    "np",
    "math",
    "itertools",
    "functools",
    "collections",
    "scipy",
    "matplotlib",
    "typing",
    "keras",
}
"""Modules that nobody has to look at because a hand-in imports them."""


@dataclass
class Verdict:
    """What came of one exercise: one of `STATES`, and why, in words."""

    number: str
    name: str
    state: str
    text: str
    points: float = 0.0
    maximum: float = 1.0


@dataclass
class HandIn:
    """What came of one notebook: its verdicts, or why it was not graded."""

    name: str
    chapter: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    problem: str = ""
    imports: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def maximum(self) -> float:
        return sum(verdict.maximum for verdict in self.verdicts)


# What of a notebook an exercise needs


@dataclass
class Cell:
    """A code cell: what messages call it, its Python, and its top-level statements."""

    title: str
    source: str
    statements: list[ast.stmt]
    error: str = ""


def read_cells(path: Path) -> list[Cell]:
    """The code cells of a notebook; one that is not Python has no statements and says why.

    Raises:
        ValueError: if the file is not a notebook that can be read; the message says why.
    """
    if not path.is_file() or path.stat().st_size > MAX_NOTEBOOK:
        raise ValueError(f"it is not a file of at most {MAX_NOTEBOOK >> 20} MB")
    try:
        notebook = json.loads(path.read_bytes())
        cells = notebook["cells"]
        sources = ["".join(cell["source"]) if cell.get("cell_type") == "code" else "" for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is not a Jupyter notebook (format 4)") from None
    if not any(source.strip() for source in sources):
        raise ValueError("it has no code")
    return [parsed(f"cell {k}", source) for k, source in enumerate(sources, start=1) if source.strip()]


def parsed(title: str, source: str) -> Cell:
    """A cell from its source; IPython's `%` and `!` lines become calls that nothing runs."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = re.sub(r"\A\s*%%(time|timeit|capture|prun)\b.*", "", source)  # the cell under it is Python
    try:
        source = TransformerManager().transform_cell(source)
        return Cell(title, source, ast.parse(source).body)
    except SyntaxError as error:
        return Cell(title, source, [], f"line {error.lineno} of {title} is not Python ({error.msg})")
    except (ValueError, RecursionError, MemoryError) as error:
        return Cell(title, source, [], f"{title} cannot be read ({type(error).__name__})")


def bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds or changes; `*` for a star import."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()):
                names.add(name)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()):
                names.add(name)
    return names


def used(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def selection(cells: list[Cell], expression: str) -> tuple[list[tuple[str, str, list[int]]], set[str]]:
    """The statements that an expression needs, and the names that they use.

    What is only shown, plotted, checked or tried out does not run: an error there, or an endless loop, costs nothing.

    Returns:
        For each cell with such statements its title, source, and their positions; and the names used.
    """
    statements = [(cell, k, bound(one), used(one)) for cell in cells for k, one in enumerate(cell.statements)]
    needed, chosen = used(ast.parse(expression, mode="eval")), set()
    while True:
        new = {
            j
            for j, (_, _, binds, _) in enumerate(statements)
            if j not in chosen and (binds & needed or "*" in binds)
        }
        if not new:
            break
        chosen |= new
        needed = needed.union(*(statements[j][3] for j in new))
    picked = {}
    for j in sorted(chosen):
        cell, k, *_ = statements[j]
        picked.setdefault(id(cell), (cell.title, cell.source, []))[2].append(k)
    return list(picked.values()), needed


def checked_expressions(cells: list[Cell]) -> dict[str, str]:
    """Number or name of an exercise → what the notebook's last check of it is called with, as source."""
    found = {}
    for node in (node for cell in cells for one in cell.statements for node in ast.walk(one)):
        match node:
            case ast.Call(func=ast.Name(id="check"), args=[ast.Constant(value=str(number)), asked, *_]):
                found[number] = ast.unparse(asked)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="check"), attr=name), args=[asked]):
                found[name] = ast.unparse(asked)
    return found


def expression_of(exercise: Exercise, cells: list[Cell]) -> str | None:
    """What to judge: the function that the notebook checks, else the one with the exercise's name; or nothing."""
    names = set().union(*(bound(one) for cell in cells for one in cell.statements))
    checked = checked_expressions(cells)
    for expression in (checked.get(exercise.number), checked.get(exercise.name), exercise.name):
        if expression and (not expression.isidentifier() or expression in names or "*" in names):
            return expression
    return None


def chapter_of(cells: list[Cell]) -> str:
    """The chapter whose exercises a notebook checks or defines most often; empty if there is none."""
    names = {exercise.name: exercise.number for exercise in checker.exercises()}
    found = [names.get(asked, asked) for asked in checked_expressions(cells)]
    found += [
        names[name] for cell in cells for one in cell.statements for name in bound(one) if name in names
    ]
    found += [names[name] for cell in cells if cell.error for name in lost_names(cell) if name in names]
    chapters = [number[:2] for number in found if number[:2] in checker.CHAPTERS]
    return max(chapters, key=chapters.count, default="")


def lost_names(cell: Cell) -> list[str]:
    """The functions that a cell which is not Python would have defined."""
    return re.findall(r"^def (\w+)", cell.source, re.M)


def imported(cells: list[Cell]) -> set[str]:
    """The modules that a notebook imports anywhere."""
    modules = set()
    for node in (node for cell in cells for one in cell.statements for node in ast.walk(one)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or ".")
    return modules


# The learner's process, seen from the one that judges


class Stopped(Exception):
    """The learner's process has ended or was ended."""


class Learner:
    """A learner's function in a process of its own; calling this calls it there.

    `stopped` says why the process is no longer there, where the reason is the learner's code and not the check's time.
    """

    def __init__(
        self,
        library: Path,
        cells: list,
        expression: str,
        seconds: float,
        memory_gb: float,
        live: dict | None = None,
    ):
        self.deadline, self.stopped, self.number = time.monotonic() + seconds, "", 0
        self.seconds, self.functions = seconds, []
        self.folder = tempfile.mkdtemp(prefix="hand-in-")
        environment = {
            "HOME": self.folder,
            "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "tensorflow"),
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(library),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(library / "course_lib" / "teaching" / "grading_child.py")],
            cwd=self.folder,
            env={name: os.environ[name] for name in kept if name in os.environ} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        limits = {"seconds": seconds, "memory_gb": memory_gb}
        self.send({"cells": cells, "function": expression, "live": live, **limits})

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *_) -> None:
        self.end("")
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, *arguments: Any) -> Any:
        self.number += 1
        self.send((self.number, arguments))
        answer = self.receive(self.number)
        with suppress(Exception):  # what it says of its arguments may be anything
            for argument, after in zip(arguments, answer["arguments"], strict=True):
                change(argument, after)
        if "error" in answer:
            kind = getattr(builtins, str(answer["error"]), None)
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                kind = type(str(answer["error"]), (Exception,), {})
            where = f" ({answer['line']})" if answer.get("line") else ""
            error = kind.__new__(kind)
            error.args = (f"{answer.get('text', '')}{where}",)
            raise error
        return decoded(answer.get("value"))

    def send(self, message: Any) -> None:
        if self.process.poll() is not None and self.stopped:
            raise Stopped(self.stopped)
        try:
            pickler = pickle.Pickler(self.process.stdin)
            pickler.persistent_id = self._kept_here
            pickler.dump(message)
            self.process.stdin.flush()
        except OSError:
            self.receive()  # says how it ended

    def _kept_here(self, value: Any) -> int | None:
        """Functions among the arguments stay in this process, where their code is; the other asks for what they give."""
        plain = not isinstance(value, (types.FunctionType, types.MethodType, functools.partial))
        if plain or str(getattr(value, "__module__", "")).partition(".")[0] in ("numpy", "scipy"):
            return None
        self.functions.append(value)
        return len(self.functions) - 1

    def _asked(self, number: Any, arguments: Any) -> None:
        try:
            self.send((self.functions[number](*map(decoded, arguments)), ""))
        except Exception as error:  # the function's, on arguments that may be anything
            self.send((None, f"{type(error).__name__}: {error}"))

    def receive(self, number: int | None = None) -> dict:
        """The next answer, or the one to a call."""
        try:
            while True:
                if time.monotonic() > self.deadline:
                    self.end(f"it was still running after {self.seconds:g} seconds")
                with suppress(queue.Empty):
                    line = self.lines.get(timeout=0.1)
                    if not line.endswith(b"\n"):
                        self.end(
                            f"its answer is larger than {MAX_ANSWER >> 20} MB" if line else self._ended()
                        )
                    with suppress(ValueError):
                        answer = json.loads(line)
                        if isinstance(answer, dict) and "ask" in answer:
                            self._asked(answer["ask"], answer.get("arguments"))
                        elif isinstance(answer, dict) and answer.get("call") == number:
                            return answer
                if self.stopped:
                    raise Stopped(self.stopped)
        except BaseException:  # the check's own time is up, too
            self.end("")
            raise

    def end(self, why: str) -> None:
        self.stopped = self.stopped or why
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def _ended(self) -> str:
        code = self.process.wait()
        if code >= 0:
            return f"the code ended its own process (status {code})"
        if -code == getattr(signal, "SIGXCPU", None):
            return "it took too much processor time"
        return f"its process was ended by signal {-code}; it may have wanted more memory than there is"

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            while line := self.process.stdout.readline(MAX_ANSWER):
                self.lines.put(line)
        self.lines.put(b"")


def decoded(value: Any) -> Any:
    """A value from `grading_child.encoded`; whatever is not well formed is an object of no use."""
    try:
        match value:
            case ["constant", name]:
                return {"None": None, "Ellipsis": ..., "NotImplemented": NotImplemented}[name]
            case ["plain", bool() | int() | str() as plain]:
                return plain
            case ["float", text]:
                return float(text)
            case ["array", kind, shape, content]:
                if (dtype := np.dtype(kind)).kind in "biufcUS":
                    flat = np.frombuffer(base64.b64decode(content), dtype)
                    return flat.reshape([int(side) for side in shape]).copy()[()]
            case ["list", list(items)]:
                return [decoded(item) for item in items]
            case ["tuple", list(items)]:
                return tuple(decoded(item) for item in items)
            case ["iterator", name]:
                return type(str(name), (Iterator,), {"__next__": lambda self: next(iter(()))})()
            case ["other", "dict" | "set" | "frozenset" | "bytes" as name]:
                return getattr(builtins, name)()
            case ["other", name]:
                return type(str(name), (), {})()
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    return type("malformed", (), {})()


def change(argument: Any, after: Any) -> None:
    """Do to an argument what the learner's function did to its copy."""
    if isinstance(argument, np.random.Generator):
        argument.bit_generator.state = after[1]
    elif isinstance(argument, np.ndarray):
        argument[...] = decoded(after)
    elif isinstance(argument, list):
        argument[:] = decoded(after)


def with_code_of(learner: Learner, cells: list[Cell], expression: str) -> Learner:
    """Let `inspect` see the learner's own function through the proxy: its parameters, source and names, not run."""
    for cell in cells:
        for one in cell.statements:
            if isinstance(one, ast.FunctionDef) and one.name == expression:
                plain = ast.Module([ast.copy_location(without_values(one), one)], [])
                file = f"<{cell.title}>"
                linecache.cache[file] = (len(cell.source), None, cell.source.splitlines(keepends=True), file)
                code = compile(ast.fix_missing_locations(plain), file, "exec").co_consts[0]
                if isinstance(code, types.CodeType):
                    learner.__wrapped__ = types.FunctionType(
                        code, {}, one.name, (None,) * len(one.args.defaults)
                    )
                    optional = zip(one.args.kwonlyargs, one.args.kw_defaults, strict=True)
                    learner.__wrapped__.__kwdefaults__ = {
                        each.arg: None for each, default in optional if default
                    }
    return learner


def without_values(function: ast.FunctionDef) -> ast.FunctionDef:
    """The function without decorators, default values and annotations, which would have to be run."""
    bare = ast.FunctionDef(
        **{name: getattr(function, name) for name in function._fields if hasattr(function, name)}
    )
    bare.decorator_list, bare.returns = [], None
    arguments = function.args
    plain = {
        name: [ast.arg(arg=each.arg) for each in getattr(arguments, name)]
        for name in ("posonlyargs", "args", "kwonlyargs")
    }
    vararg, kwarg = (each and ast.arg(arg=each.arg) for each in (arguments.vararg, arguments.kwarg))
    bare.args = ast.arguments(
        **plain, vararg=vararg, kwarg=kwarg, kw_defaults=[None] * len(plain["kwonlyargs"]), defaults=[]
    )
    return bare


# The process that judges one hand-in


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
        skipped = shutil.ignore_patterns("__pycache__", "grading.py", *answers)
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
        if path.name[:2] == chapter:
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
    return runpy.run_path(path)["CASES"] if path else {}


# The process that goes through the hand-ins


def grade(
    folder: Path,
    out: Path,
    *,
    seconds: float = SECONDS,
    memory_gb: float = MEMORY_GB,
    hidden: Path | None = None,
    jobs: int | None = None,
) -> list[HandIn]:
    """Grade all notebooks of a folder; whatever one of them does, the others are graded.

    Args:
        folder: holds the notebooks, in folders of their own if need be; nothing in it is changed.
        out: gets `grades.csv`, `moodle.csv`, `canvas.csv` (after each notebook) and `feedback/<name>.html`.
        seconds: how long an exercise may take.
        memory_gb: how much memory it may ask for, where the system can bound that (Linux).
        hidden: a Python file of your own with further inputs, `CASES = {"01.2": [Case(...)]}`.
        jobs: how many hand-ins at a time; half of the processors unless given.

    Raises:
        ValueError: if `folder` holds no notebook, or if `out` is in it.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    for target in (out, (out / "feedback").resolve()):
        if target.is_relative_to(folder):
            raise ValueError(
                f"out is {out}; it must not lie in the folder of the hand-ins, whose notebooks it would mix with or "
                "overwrite. Name another folder."
            )
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise ValueError(f"folder is {folder}; it must hold notebooks (*.ipynb).")
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    limits = {"seconds": seconds, "memory_gb": memory_gb}
    hidden_path = str(Path(hidden).resolve()) if hidden else ""
    graded, files = [], set()
    with ThreadPoolExecutor(jobs or max(1, (os.cpu_count() or 1) // 2)) as pool:
        names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
        for hand_in in pool.map(lambda path, name: grade_one(path, name, limits, hidden_path), paths, names):
            graded.append(hand_in)
            print(line_of(hand_in), flush=True)
            write(out / "feedback" / f"{file_name(hand_in.name, files)}.html", feedback(hand_in))
            for name, table in tables(graded).items():
                write(out / name, table)
    return graded


def grade_one(path: Path, name: str, limits: dict, hidden: str = "") -> HandIn:
    """Grade one notebook with a process that judges; begun again after the exercise with which it was ended."""
    hand_in = HandIn(name)
    try:
        read_cells(path)
    except (OSError, ValueError) as error:
        hand_in.problem = str(error)
        return hand_in
    while not hand_in.problem:
        done = [(verdict.number, verdict.state) for verdict in hand_in.verdicts]
        request = {"path": str(path), "limits": limits, "hidden": hidden, "done": done}
        begun = None
        for message in asked_to_judge(request, patience=2 * limits["seconds"] + 60):
            if "chapter" in message:
                hand_in.chapter = message["chapter"]
                hand_in.imports = message["imports"]
            elif "begun" in message:
                begun = message
            else:
                begun = None
                hand_in.verdicts.append(Verdict(**message["verdict"]))
        if not hand_in.chapter:
            hand_in.problem = "it has no exercise of the course"
        elif len(hand_in.verdicts) >= len(checker.exercises(hand_in.chapter)):
            break
        elif begun:
            text = "Not judged: the process that was to judge it was ended while it ran."
            hand_in.verdicts.append(Verdict(begun["begun"], begun["name"], "stopped", text))
        elif not hand_in.verdicts or len(hand_in.verdicts) == len(done):
            hand_in.problem = "the process that was to judge it did not start"
    return hand_in


def asked_to_judge(request: dict, patience: float) -> Iterator[dict]:
    """What the process that judges says, until it ends or has said nothing for `patience` seconds."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "from course_lib.teaching import grading; grading.judge_for_parent()"],
        cwd=tempfile.gettempdir(),
        env=os.environ | {"PYTHONPATH": str(resources.PROJECT), "MPLBACKEND": "Agg"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    watchdog = threading.Timer(patience, process.kill)
    with process:
        try:
            with suppress(OSError):
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            watchdog.start()
            for line in process.stdout:
                watchdog.cancel()
                with suppress(ValueError):
                    yield json.loads(line)
                watchdog = threading.Timer(patience, process.kill)
                watchdog.start()
        finally:
            watchdog.cancel()
            process.kill()


def judge_for_parent() -> None:
    """The main function of the process that judges."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a check prints is no verdict
    judge_all(request, answers)


# What is written


def line_of(hand_in: HandIn) -> str:
    if hand_in.problem:
        return f"{printable(hand_in.name)}: not graded, {hand_in.problem}"
    marks = "  ".join(f"{verdict.number} {MARKS[verdict.state]}" for verdict in hand_in.verdicts)
    return f"{printable(hand_in.name)}: {marks}  ({hand_in.points:g} of {hand_in.maximum:g})"


def printable(name: str) -> str:
    """A file's name without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def file_name(name: str, taken: set[str]) -> str:
    """A file name of our own for a hand-in: plain letters, and none twice, on any disk."""
    plain = base = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:80] or "hand-in"
    count = 1
    while plain.lower() in taken:
        count += 1
        plain = f"{base}-{count}"
    taken.add(plain.lower())
    return plain


def write(path: Path, text: str) -> None:
    """Write whole or not at all, and never through a link that lies there."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, encoding="utf-8", newline="", delete=False
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def student_of(name: str) -> dict[str, str]:
    """Who handed in, as far as the file's name says: Moodle's and Canvas's bulk downloads put numbers into it."""
    if found := re.search(r"(?:^|/)([^/]+?)_(\d+)_assignsubmission_", name):
        return {"student": found[1], "moodle": f"Participant {found[2]}", "canvas": ""}
    if found := re.match(r"(?:.*/)?([^/_]+)_(?:LATE_)?(\d+)_\d+_", name):
        return {"student": found[1], "moodle": "", "canvas": found[2]}
    return {"student": name.split("/")[0] if "/" in name else name, "moodle": "", "canvas": ""}


def tables(graded: list[HandIn]) -> dict[str, str]:
    """File name → text of the tables: one for people, Moodle's grading worksheet, Canvas's gradebook."""
    numbers = sorted({verdict.number for hand_in in graded for verdict in hand_in.verdicts})
    grades = [["submission", "chapter", "points", "of", *numbers, "problem"]]
    moodle = [["Identifier", "Full name", "Grade", "Maximum grade", "Feedback comments"]]
    students: dict[tuple, dict[str, HandIn]] = {}
    for hand_in in graded:
        states = {verdict.number: verdict.state for verdict in hand_in.verdicts}
        row = [hand_in.name, hand_in.chapter, hand_in.points, hand_in.maximum]
        grades.append([*row, *(states.get(number, "") for number in numbers), hand_in.problem])
        who = student_of(hand_in.name)
        words = hand_in.problem or " ".join(
            f"{v.number} {STATES[v.state]}: {v.text}" for v in hand_in.verdicts
        )
        grade_or_none = "" if hand_in.problem else hand_in.points
        moodle.append([who["moodle"], who["student"], grade_or_none, hand_in.maximum, words])
        if not hand_in.problem:
            students.setdefault((who["student"], who["canvas"]), {})[hand_in.chapter] = hand_in
    chapters = sorted({chapter for done in students.values() for chapter in done})
    most = {
        chapter: max(d[chapter].maximum for d in students.values() if chapter in d) for chapter in chapters
    }
    canvas = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(f"Chapter {c}" for c in chapters)],
        ["    Points Possible", "", "", "", "", *(most[chapter] for chapter in chapters)],
    ]
    for (student, number), done in students.items():
        points = [done[chapter].points if chapter in done else "" for chapter in chapters]
        login = "" if number else student
        canvas.append([student, number, "", login, "", *points])
    return {"grades.csv": as_csv(grades), "moodle.csv": as_csv(moodle), "canvas.csv": as_csv(canvas)}


def as_csv(rows: Iterable[list]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file)
    for row in rows:
        writer.writerow([harmless(one) if isinstance(one, str) else f"{one:g}" for one in row])
    return file.getvalue()


def harmless(text: str) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")  # a file's name may hold what no encoding can
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@") or text[:1] in tuple("\t\r\n") else text


def feedback(hand_in: HandIn) -> str:
    """A page for the student: each exercise, its points, and what the check said."""

    def shown(text: str) -> str:
        return html.escape(text.encode("utf-8", "replace").decode("utf-8"))

    colours = {"right": "#00734f", "open": "#555", "missing": "#555"}
    parts = []
    for verdict in hand_in.verdicts:
        colour = colours.get(verdict.state, "#a03c00")
        parts.append(
            f'<h2 style="color: {colour}">{MARKS[verdict.state]} {verdict.number} {shown(verdict.name)}: '
            f"{STATES[verdict.state]}, {verdict.points:g} of {verdict.maximum:g}</h2><p>{shown(verdict.text)}</p>"
        )
    unusual = sorted(name for name in hand_in.imports if name.partition(".")[0] not in USUAL | {"course_lib"})
    unusual += sorted(n for n in hand_in.imports if re.match(r"course_lib\.(ops|losses|metrics|chapters)", n))
    if unusual:
        parts.append(f"<p>For the teacher: the notebook imports {shown(', '.join(unusual))}.</p>")
    body = f"<p>Not graded: {shown(hand_in.problem)}.</p>" if hand_in.problem else "\n".join(parts)
    title = f"{shown(hand_in.name)}: {hand_in.points:g} of {hand_in.maximum:g} points"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        '<body style="max-width: 44em; margin: 2em auto; font-family: sans-serif; line-height: 1.5">\n'
        f"<h1>{title}</h1>\n{body}\n</body></html>\n"
    )


# What students get

LEFT_OUT = (
    ".git",
    ".github",
    ".ci",
    ".venv*",
    "solutions",
    "tests",
    "benchmarks",
    "teaching.md",
    "grade.py",
    "slides",
    "runs",
    "out",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "*.egg-info",
    "build",
    ".ipynb_checkpoints",
)


def release(out: Path) -> Path:
    """Write the course's folder as students get it: without the solutions, the tests, and what grades.

    Raises:
        ValueError: if there is something at `out` already, if it lies in the course's folder, or if this is not a
            checkout of the course.
    """
    out = Path(out).resolve()
    if not (resources.NOTEBOOKS / "solutions").is_dir():
        raise ValueError(
            "release needs the course's folder with notebooks/solutions; this is an installed package."
        )
    if out.exists() or out.is_relative_to(resources.PROJECT):
        raise ValueError(f"out is {out}; it must be a new folder outside of the course's own.")
    package = str(resources.PACKAGE)

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = folder.startswith(package)  # course_lib/teaching/slides is code
        return shutil.ignore_patterns(*LEFT_OUT)(folder, names) - ({"slides", "build"} if inside else set())

    shutil.copytree(resources.PROJECT, out, ignore=left_out, symlinks=True)
    return out


# The command line


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of `grade`."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the notebooks, in folders of their own if need be"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="where the tables and feedback/ go")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="time for an exercise (default: %(default)g)"
    )
    parser.add_argument(
        "--memory", type=float, default=MEMORY_GB, help="GB for an exercise (default: %(default)g; Linux)"
    )
    parser.add_argument(
        "--hidden", type=Path, help='further inputs in a file of yours: CASES = {"01.2": [Case(...)]}'
    )
    parser.add_argument("--jobs", type=int, help="notebooks at a time (default: half of the processors)")


def run(options: argparse.Namespace) -> int:
    """Grade exercise notebooks, each exercise in a process of its own: grades.csv, tables for Moodle and Canvas, and a
    page of feedback for each. What was handed in runs with your rights: docs/teaching.md says how to shut it in."""
    limits = {"seconds": options.seconds, "memory_gb": options.memory}
    try:
        graded = grade(options.folder, options.out, **limits, hidden=options.hidden, jobs=options.jobs)
    except (ValueError, OSError) as error:
        print(f"course_lib grade: {error}", file=sys.stderr)
        return 1
    if getattr(options, "json", False):
        print(json.dumps({"graded": [dataclasses.asdict(hand_in) for hand_in in graded]}))
    return 0


def run_release(options: argparse.Namespace) -> int:
    """Write the course's folder as students get it: without the solutions, the tests, and what grades."""
    out = str(release(options.out))
    print(json.dumps({"written": out}) if options.json else out)
    return 0
