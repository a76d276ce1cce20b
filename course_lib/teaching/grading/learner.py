"""A learner's function in a process of its own, seen from the process that judges."""

from __future__ import annotations

import ast
import base64
import builtins
import functools
import json
import linecache
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from course_lib.teaching.grading.selection import Cell

MAX_ANSWER = 64 * 2**20
"""Bytes of one answer of the learner's process."""


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
            [sys.executable, "-P", str(library / "course_lib" / "teaching" / "grading" / "child.py")],
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
