"""The rules that hold the project together.

One list of dependencies, rooms that build on each other, no backend imported, nothing in a file that belongs
to one machine, and a set-up that says in one sentence what is wrong.
"""

import ast
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.teaching.course_map import CHAPTERS

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "course_lib"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
EXTRAS = PYPROJECT["optional-dependencies"]


def load_tool(name):
    """A module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", PROJECT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# One list of dependencies


def requirements(*extras):
    """The requirements of the project with these extras."""
    lines = PYPROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    return [Requirement(line) for line in lines]


def constraint_lines():
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_lists_python_and_pip_and_leaves_the_rest_to_pyproject():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, rest = environment["dependencies"]
    assert python == "python" + PYPROJECT["requires-python"]
    assert pip == "pip"
    assert rest["pip"][0] == "-c constraints.txt"
    (named,) = re.fullmatch(r"-e \.\[([\w,]+)\]", rest["pip"][1]).groups()
    assert set(named.split(",")) <= set(EXTRAS)
    assert len(rest["pip"]) == 2 and set(rest) == {"pip"}


def test_constraints_are_name_and_version_only():
    for line in constraint_lines():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", line), line
    names = [line.split("==")[0] for line in constraint_lines()]
    assert names == sorted(set(names))


def test_every_dependency_is_pinned_to_a_version_that_pyproject_allows():
    pins = dict(line.split("==") for line in constraint_lines())
    for requirement in requirements("cpu", "jax", "lab", "notebook", "scale", "site", "test", "dev"):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt; run `make constraints`"
        assert pins[name] in requirement.specifier, f"{name}=={pins[name]} is not {requirement.specifier}"


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", "tensorflow-cpu"),
        ("linux", "aarch64", "tensorflow"),
        ("darwin", "arm64", "tensorflow"),
        ("darwin", "x86_64", "tensorflow"),
        ("win32", "AMD64", "tensorflow-cpu"),
    ],
)
def test_the_cpu_extra_installs_one_tensorflow_on_every_machine(system, machine, expected):
    here = {"sys_platform": system, "platform_machine": machine}
    chosen = [r.name for r in map(Requirement, EXTRAS["cpu"]) if r.marker.evaluate(here)]
    assert chosen == [expected]


# What the package imports


def module_name(path):
    """`course_lib.models.unet` for course_lib/models/unet.py."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported(path):
    """The full names of all that a file imports, anywhere in it, by statement or by `import_module`."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return names


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_broken_contracts_are_found(tmp_path):
    """That none is broken, `tools/style.py` sees."""
    shutil.copytree(PACKAGE, tmp_path / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    slips = {
        "losses": "course_lib.teaching.ledger",
        "ops.boxes": "course_lib.losses",
        "teaching.checker": "course_lib.chapters.ch01_detection_vs_segmentation.exercises",
        "models.unet": "tensorflow",
    }
    for module, imported in slips.items():
        path = tmp_path / "course_lib" / f"{module.replace('.', '/')}.py"
        path.write_text(path.read_text(encoding="utf-8") + f"\n\nimport {imported}\n", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    words = " ".join(done.stdout.split())  # long lines are wrapped
    assert done.returncode != 0 and "0 kept, 2 broken" in words, words + done.stderr
    for module, imported in slips.items():
        assert f"course_lib.{module} -> {imported} (l." in words


# A notebook brings these with it, and making slides of one needs them; the code that imports them is reached there only.
ONLY_IN_NOTEBOOKS = {"IPython", "ipywidgets", "jupyterquiz", "jupytercards"} | {
    "bs4",
    "latex2mathml",
    "nbconvert",
    "nbformat",
    "pygments",
}
# Of the extra `test`, what an experiment needs that measures anew; reading its results needs nothing.
ONLY_TO_MEASURE = {"sklearn", "statsmodels"}
IMPORT_NAMES = {
    "beautifulsoup4": "bs4",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "ipython": "IPython",
}


def test_every_import_is_a_declared_dependency():
    declared = {IMPORT_NAMES.get(r.name, r.name) for r in requirements()}
    in_notebooks = {
        IMPORT_NAMES.get(r.name, r.name) for r in requirements("lab", "notebook")
    } & ONLY_IN_NOTEBOOKS
    # What these extras bring is reached only where it is asked for, and its absence is one clear sentence.
    on_request = {IMPORT_NAMES.get(r.name, r.name) for r in requirements("scale", "formats")}
    to_measure = {IMPORT_NAMES.get(r.name, r.name) for r in requirements("test")} & ONLY_TO_MEASURE
    undeclared = {}
    for path in MODULES:
        used = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"course_lib"}
        allowed = declared | in_notebooks | on_request
        if {"teaching", "chapters"} & set(path.parts):
            allowed |= to_measure
        if used - allowed:
            undeclared[str(path.relative_to(PROJECT))] = used - allowed
    assert undeclared == {}


def test_every_declared_dependency_is_imported():
    used = {name.split(".")[0] for path in MODULES for name in imported(path)}
    assert {IMPORT_NAMES.get(r.name, r.name) for r in requirements()} <= used


def modules_loaded_by(statement):
    """The modules that a fresh Python has after `statement` and had not before."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    return set(subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True).split())


def test_importing_the_package_loads_next_to_nothing():
    loaded = modules_loaded_by("import course_lib")
    assert "course_lib" in loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch", "numpy", "scipy", "skimage", "matplotlib"}
    assert len(loaded) < 30


@pytest.mark.parametrize("module", ["datasets"])
def test_array_code_loads_no_deep_learning_framework(module):
    loaded = modules_loaded_by(f"import course_lib.{module}")
    assert f"course_lib.{module}" in loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch"}


# What no file holds


def tracked_files():
    """What git holds or would take; outside of a clone, every file that is not a cache."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
    else:
        caches = {".venv", ".git", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "runs"}
        paths = [p for p in PROJECT.rglob("*") if not caches & set(p.relative_to(PROJECT).parts)]
    return [path for path in paths if path.is_file()]


# Written in halves, so that this file does not hold them itself.
HOSTS = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "anaconda" + ".org", "debian" + ".org"]
FOLDERS = ["wo" + "rk", "ro" + "ot", "tm" + "p", "ho" + "me"]
MACHINE_PATH = re.compile(r"(?<![\w.*)}~-])/(?:" + "|".join(FOLDERS) + r")/\w")


def foreign_text(text):
    """Names of package registries and paths of one machine in a text."""
    hosts = [host for host in HOSTS if host in text]
    return hosts + [match.group(0) for match in MACHINE_PATH.finditer(text)]


def test_foreign_text_is_found():
    assert foreign_text("see https://" + HOSTS[0] + "/simple") == [HOSTS[0]]
    assert foreign_text("in '/" + "work/main'") == ["/" + "work/m"]
    assert foreign_text("a/work/of/art, ../tmp/x and https://example.com/home/page") == []


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    found = {}
    for path in tracked_files():
        raw = path.read_bytes()
        if b"\0" in raw[:8192] or path.suffix in (".h5", ".npz", ".png", ".jpg"):
            continue
        text = raw.decode("utf-8")
        if path.suffix == ".ipynb":  # the pictures in it are base64, in which any word can turn up
            text = re.sub(r'"image/\w+": "[^"]*"', "", text)
        if hits := foreign_text(text):
            found[str(path.relative_to(PROJECT))] = hits
    assert not found


def test_no_file_is_large():
    sizes = {str(path.relative_to(PROJECT)): path.stat().st_size for path in tracked_files()}
    assert sizes, "no file found to look at"
    assert {name: size for name, size in sizes.items() if size > 16_000_000} == {}


def test_the_readme_says_which_notebooks_are_written():
    rows = re.findall(r"^\| .*`((?:\d\d[a-z]?|[A-Z])_\w+)`.*\| (written|to come) \|$", README, re.M)
    assert [name for name, _ in rows] == [chapter.name for chapter in CHAPTERS]
    written = {path.stem for chapter in CHAPTERS for path in chapter.notebooks()}
    assert written == {path.stem for path in (PROJECT / "notebooks").glob("*.ipynb")}
    # A row stands for the notebooks that go on with a chapter, too.
    assert {name for name, state in rows if state == "written"} == written & {c.name for c in CHAPTERS}


# `make test` counts what pytest says


def test_the_summary_counts_pytests_closing_lines(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    check = load_tool("check")
    line = "===== 2 failed, 310 passed, 4 skipped, 1 error in 61.20s (0:01:01) ====="
    assert check.CLOSING_LINE.match(line)
    assert check.counted(line) == {"passed": 310, "failed": 3, "skipped": 4}
    assert not check.CLOSING_LINE.match("===== short test summary info =====")
    assert check.counted("") == {"passed": 0, "failed": 0, "skipped": 0}


def test_what_needs_no_backend_runs_once(monkeypatch):
    def marked(command):
        return command[command.index("-m", 3) + 1]

    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    monkeypatch.delenv("PYTEST_ARGS", raising=False)
    check = load_tool("check")
    first, *others = check.BACKENDS
    assert marked(check.command_of(first)) == "not nightly"
    for backend in others:
        assert marked(check.command_of(backend)) == "backend and not slow and not nightly"
    assert check.environment_of("jax")["KERAS_BACKEND"] == "jax"


def test_the_browser_stage_runs_once_and_says_why_where_it_cannot(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(PROJECT / "tools"))
    check = load_tool("check")
    for stage in check.STAGES:
        assert ("tests/browser" in check.command_of(stage)) == (stage == "browser") and check.TITLES[stage]
    monkeypatch.setattr(check.shutil, "which", lambda name: f"bin/{name}")
    assert check.not_run_because("browser") == ""
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    reason = "no Chromium and no chromedriver here (Debian: apt install chromium chromium-driver)"
    assert check.not_run_because("browser") == reason
    monkeypatch.setenv("STAGES", "browser")
    assert check.main() == 0  # it is optional, and nothing has failed
    assert f"browser     not run: {reason}" in capsys.readouterr().out
    fixtures = (PROJECT / "tests" / "browser" / "conftest.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in fixtures for names in check.PROGRAMS.values() for name in names)
