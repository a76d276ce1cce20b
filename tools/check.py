"""Everything that CI runs, stage by stage, with a summary at the end (`make test`).

Reads from the environment: STAGES (which stages, default all), PYTEST_ARGS (for the unit and parity tests),
WORKERS (processes for them and for the notebooks, default the number of cores up to 4).
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

from notebooks import CELL_SECONDS, ENVIRONMENT, ROOT, find_notebooks

BACKENDS = ("tensorflow", "jax", "torch")
# The first backend takes all tests but the `nightly` ones. The others take those marked `backend`, for the rest would give
# the same there, and leave out the slow ones. The weekly workflow runs what is left.
STAGES = ("style", *BACKENDS, "browser", "notebooks")
# Not part of the whole: what a contributor runs before a commit, with "style" (`make check`).
QUICK = "quick"
# The others are part of the set-up: where one of them cannot run, that is a failure.
OPTIONAL = ("torch", "browser")
TITLES = {
    QUICK: "The tests that take no more than seconds each",
    "style": "Style: lint, format, import contracts, spelling, the field's words",
    "tensorflow": "All tests, on TensorFlow",
    "jax": "Tests of what uses the backend, on JAX",
    "torch": "Tests of what uses the backend, on PyTorch",
    "browser": "What a browser shows: the site, the slides of every chapter, JupyterLab",
    "notebooks": "Notebooks: every cell runs and gives its committed output",
}
# What the browser stage needs, by the names under which it is found; tests/browser/conftest.py looks for the same.
PROGRAMS = {
    "Chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "chromedriver": ("chromedriver",),
}
CLOSING_LINE = re.compile(r"^=+ (.*(?:passed|failed|skipped|error|no tests ran).*) =+$")


def workers() -> int:
    """Into how many processes the tests are divided."""
    return int(os.environ.get("WORKERS") or min(os.cpu_count() or 1, 4))


def command_of(stage: str) -> list[str]:
    """The command line of a stage."""
    if stage == "style":
        return [sys.executable, "tools/style.py"]
    pytest = [sys.executable, "-m", "pytest", "--color=no"]
    if workers() > 1:
        pytest += ["-n", str(workers()), "--dist", "loadfile", "--no-loadscope-reorder"]
    if stage == "browser":
        return [*pytest, "tests/browser"]
    if stage == "notebooks":
        paths = [str(path.relative_to(ROOT)) for path in find_notebooks()]
        return [*pytest, "--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", *paths]
    if stage == QUICK:
        pytest += ["-m", "not slow and not nightly"]
    elif stage == BACKENDS[0]:
        pytest += ["-m", "not nightly"]
    else:
        pytest += ["-m", "backend and not slow and not nightly"]
    return [*pytest, "tests", "--ignore=tests/browser", *shlex.split(os.environ.get("PYTEST_ARGS", ""))]


def environment_of(stage: str) -> dict[str, str]:
    """The environment of a stage: which backend, no window for figures, no start-up notes."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if stage == "notebooks":
        return environment | ENVIRONMENT
    if stage == "browser":
        environment |= {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "Agg"}
    if stage in (*BACKENDS, QUICK):
        environment |= {"KERAS_BACKEND": BACKENDS[0] if stage == QUICK else stage, "MPLBACKEND": "Agg"}
    if stage in ("tensorflow", "jax", QUICK):
        # Most tests run what they compile once: XLA takes longer to make it quick than it then gains. (At level 0 it makes
        # it so slow that an FCN's transposed convolutions take a minute.)
        environment.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    if stage in (*BACKENDS, QUICK) and workers() > 1:
        # The processes take up the cores: more threads in each only wait for one another, with a fifth more work.
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"):
            environment.setdefault(name, "1")
    return environment


def not_run_because(stage: str) -> str:
    """Why a stage cannot run here; empty where it can."""
    if stage in BACKENDS and importlib.util.find_spec(stage) is None:
        return f"{stage} is not installed (EXTRA=cpu,{stage} installs it)"
    if stage == "browser" and (
        missing := [name for name, choices in PROGRAMS.items() if not any(map(shutil.which, choices))]
    ):
        return f"no {' and no '.join(missing)} here (Debian: apt install chromium chromium-driver)"
    return ""


def run(stage: str) -> tuple[int, str]:
    """Run a stage with its output shown as it comes; its exit code and pytest's closing line."""
    closing = ""
    process = subprocess.Popen(
        command_of(stage),
        cwd=ROOT,
        env=environment_of(stage),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    for line in process.stdout:
        print(line, end="", flush=True)
        if CLOSING_LINE.match(line.strip()):
            closing = line.strip()
    return process.wait(), closing


def counted(closing: str) -> dict[str, int]:
    """`{"passed": 12, "failed": 1, "skipped": 0}` of pytest's closing line; an error counts as failed."""
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", closing)
    numbers = {word: int(number) for number, word in found}
    return {
        "passed": numbers.get("passed", 0),
        "failed": numbers.get("failed", 0) + numbers.get("error", 0),
        "skipped": numbers.get("skipped", 0),
    }


def main() -> int:
    stages = os.environ.get("STAGES", "").split() or STAGES
    if unknown := set(stages) - {*STAGES, QUICK}:
        print(
            f"STAGES: there is no stage {', '.join(sorted(unknown))}; choose from {' '.join((*STAGES, QUICK))}."
        )
        return 2

    summary, failed, total = [], [], {"passed": 0, "failed": 0, "skipped": 0}
    for stage in stages:
        if reason := not_run_because(stage):
            summary.append(f"{stage:<11} not run: {reason}")
            if stage not in OPTIONAL:
                failed.append(stage)
            continue
        if stage == "notebooks" and not find_notebooks():
            summary.append(f"{stage:<11} FAILED   there is no notebook in notebooks/")
            failed.append(stage)
            continue
        print(f"\n--- {TITLES[stage]} ---", flush=True)
        start = time.monotonic()
        code, closing = run(stage)
        seconds = time.monotonic() - start
        if code != 0:
            failed.append(stage)
        verdict = "passed" if code == 0 else "FAILED"
        summary.append(f"{stage:<11} {verdict} in {seconds:4.0f} s  {closing}")
        for word, number in counted(closing).items():
            total[word] += number

    print("\n--- Summary ---")
    print("\n".join(summary))
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
