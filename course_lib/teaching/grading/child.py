"""The process in which a hand-in runs, one for each exercise; started by `grading` as a file, never imported.

What is in this process is the learner's: nothing it says is believed. It is given a selection of the notebook's statements
and then one input after another, and answers with what the learner's function returns, as JSON. The right answers, the
comparison and the verdict are in the process that asks. Only where an exercise is about objects that cannot be sent, such
as Keras models (`live`), the check runs here.
"""

import ast
import base64
import json
import linecache
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterator

import numpy as np

MAX_DEPTH = 8
"""How deep lists of lists of an answer may be."""
KINDS = "biufcUS"
"""The kinds of NumPy arrays that are sent as they are."""


def encoded(value, depth=0):
    """A value in plain JSON: its kind and what is needed to make an equal one."""
    if value is None or value is ... or value is NotImplemented:
        return ["constant", repr(value)]
    if isinstance(value, (bool, int, str)):
        return (
            ["plain", value]
            if isinstance(value, (bool, str)) or abs(value) < 2**63
            else ["float", repr(float(value))]
        )
    if isinstance(value, float):
        return ["float", repr(float(value))]
    if isinstance(value, np.random.Generator):
        return ["state", encoded_state(value.bit_generator.state)]
    if not isinstance(value, (list, tuple, type)) and (
        isinstance(value, np.generic) or hasattr(value, "__array__")
    ):
        array = np.asarray(value)
        if array.dtype.kind in KINDS:
            content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            return ["array", array.dtype.str, list(array.shape), content]
        value = array.tolist()
    if isinstance(value, (list, tuple)) and depth < MAX_DEPTH:
        return ["tuple" if isinstance(value, tuple) else "list", [encoded(one, depth + 1) for one in value]]
    if isinstance(value, Iterator):
        return ["iterator", type(value).__name__]
    if not isinstance(value, type) and hasattr(value, "__float__"):
        return ["float", repr(float(value))]
    return ["other", type(value).__name__[:60]]


def encoded_state(state):
    """The state of a random generator, its arrays as lists."""
    if isinstance(state, dict):
        return {str(name): encoded_state(one) for name, one in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def described(error):
    """An error by its name and text, with the learner's own line."""
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<cell ")
    ]
    line = f"line {lines[-1].lineno} of {lines[-1].filename[1:-1]}, {lines[-1].line!r}" if lines else ""
    if isinstance(error, SyntaxError) and not line:
        line = f"line {error.lineno} of {(error.filename or '<the cell>')[1:-1]}"
    return {"error": type(error).__name__[:60], "text": str(error)[:1000], "line": line[:300]}


def limit(memory_gb, seconds):
    """Bound what this process may take; not on Windows, where only time is bound, from outside."""
    try:
        import resource
    except ImportError:
        return
    bounds = {
        "RLIMIT_AS": int(memory_gb * 2**30),
        "RLIMIT_CPU": int(seconds) + 5,
        "RLIMIT_FSIZE": 100 * 2**20,
        "RLIMIT_CORE": 0,
    }
    for name, bound in bounds.items():
        try:
            resource.setrlimit(getattr(resource, name), (bound, bound))
        except (ValueError, OSError, AttributeError):  # macOS knows the first, but does not set it
            pass


class Unpickler(pickle.Unpickler):
    """Reads what the process that asks sends; a function among it stays there and is asked from here."""

    def __init__(self, asked, answer):
        super().__init__(asked)
        self.asked, self.answer = asked, answer

    def persistent_load(self, number):
        def ask(*arguments):
            self.answer({"ask": number, "arguments": [encoded(argument) for argument in arguments]})
            result, error = Unpickler(self.asked, self.answer).load()
            if error:
                raise ValueError(error)
            return result

        return ask


def fingerprint():
    """The functions of the checks, to see whether the learner's code has put others in their place."""
    modules = [
        module for name, module in sys.modules.items() if re.match(r"course_lib\.(teaching|chapters)\b", name)
    ]
    values = [(name, id(value), value) for module in modules for name, value in vars(module).items()]
    return {
        (name, place, id(getattr(value, "__code__", None)))
        for name, place, value in values
        if callable(value)
    }


def main():
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what the learner prints is nobody's answer
        os.dup2(nowhere, descriptor)

    def answer(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    task = pickle.load(asked)
    limit(task["memory_gb"], task["seconds"])
    live = task["live"]
    if live:  # the check is imported before anything of the learner's runs
        from course_lib.teaching import checker

        judge, exercise, before = checker.judge, checker.find(live["number"]), fingerprint()
    names = {"__name__": "__main__"}
    problems = []
    for title, source, chosen in task["cells"]:
        file = f"<{title}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        statements = ast.parse(source, file).body
        for index in chosen:
            try:
                exec(compile(ast.Module([statements[index]], []), file, "exec"), names)
            except BaseException as error:
                problems.append(described(error))
    try:
        function = eval(compile(task["function"], "<the check>", "eval"), names)
    except BaseException as error:
        return answer({"missing": described(error), "problems": problems})
    if live:
        report = judge(exercise, function)
        intact = before <= fingerprint()  # more may have been imported
        return answer({"state": report.state, "text": report.text, "intact": intact, "nonce": live["nonce"]})
    answer({"callable": callable(function), "value": encoded(function), "problems": problems})

    while True:
        try:
            number, arguments = Unpickler(asked, answer).load()
        except EOFError:
            return
        try:
            with np.errstate(all="ignore"):
                message = {"value": encoded(function(*arguments))}
        except BaseException as error:
            message = described(error)
        try:
            message["arguments"] = [encoded(argument) for argument in arguments]
        except BaseException:
            message["arguments"] = []
        answer(message | {"call": number})


if __name__ == "__main__":
    main()
