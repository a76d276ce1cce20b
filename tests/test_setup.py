"""tools/setup.py: what it makes, and that whatever goes wrong is one sentence."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.specifiers import SpecifierSet

PROJECT = Path(__file__).resolve().parents[1]
TOOL = PROJECT / "tools" / "setup.py"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def setup():
    spec = importlib.util.spec_from_file_location("tools_setup", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_supported_versions_are_those_of_pyproject(setup):
    low, high = setup.supported_versions(PROJECT)
    assert PYPROJECT["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"
    inside = SpecifierSet(PYPROJECT["requires-python"])
    assert f"{low[0]}.{low[1]}" in inside and f"{high[0]}.{high[1]}" not in inside


@pytest.mark.parametrize("running", [(3, 8, 18), (3, 14, 0)])
def test_a_python_that_is_too_old_or_too_new_is_one_sentence(setup, monkeypatch, running):
    monkeypatch.setattr(setup.shutil, "which", lambda command: None)
    with pytest.raises(setup.SetupError) as error:
        setup.find_python(PROJECT, "", "lab", running)
    version = ".".join(map(str, running[:2]))
    assert str(error.value) == (
        f"The course needs Python 3.11, 3.12 or 3.13, and only Python {version} was found; "
        "install one of those, or name it: make lab PYTHON=python3.11"
    )


def test_a_fitting_python_on_the_path_is_taken_where_the_default_does_not_fit(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda command: f"bin/{command}")
    monkeypatch.setattr(setup, "version_of", lambda command: (3, 12) if command.endswith("3.12") else None)
    assert setup.find_python(PROJECT, "", "lab", (3, 9, 2)) == "bin/python3.12"


def test_a_named_python_that_does_not_fit_is_one_sentence(setup, monkeypatch):
    monkeypatch.setattr(setup, "version_of", lambda command: (3, 10))
    with pytest.raises(setup.SetupError, match=r"PYTHON=python3.10 is Python 3.10, but the course needs"):
        setup.find_python(PROJECT, "python3.10", "lab")


def test_a_named_python_that_is_none_is_one_sentence(setup):
    with pytest.raises(setup.SetupError, match=r"PYTHON=no-such-python starts no Python; name one of 3.11"):
        setup.find_python(PROJECT, "no-such-python", "lab")


def test_a_python_without_venv_is_one_sentence(setup, monkeypatch):
    monkeypatch.setattr(setup.subprocess, "call", lambda *args, **kwargs: 1)
    with pytest.raises(setup.SetupError, match=r"python3 comes without its venv module; install it \(Debian"):
        setup.check_venv_module("python3", "lab")


def test_too_little_disk_is_one_sentence(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_200_000_000))
    with pytest.raises(setup.SetupError) as error:
        setup.check_disk(tmp_path, 3, "lab")
    assert str(error.value) == (
        "Setting up takes about 3 GB and this disk has 1.2 GB free; free some space, "
        "then run `make lab` again."
    )


def test_no_network_is_one_sentence(setup, monkeypatch, tmp_path):
    nowhere = "http://127.0.0.1:9/simple"  # nothing listens on the discard port
    settings = {"INDEX_URL": nowhere, "EXTRA_INDEX_URL": "", "FIND_LINKS": "", "RETRIES": "1"}
    for name, value in settings.items():
        monkeypatch.setenv("PIP_" + name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    log = tmp_path / "setup.log"
    with pytest.raises(setup.SetupError) as error:
        setup.install(sys.executable, ["--target", str(tmp_path / "x"), "six"], log, ".venv/setup.log", "lab")
    assert str(error.value) == (
        "No network: the package registry could not be reached; connect or set PIP_INDEX_URL to a mirror, "
        "then run `make lab` again (the installer's own words: .venv/setup.log)."
    )
    assert "six" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("ERROR: an OSError: [Errno 28] No space left on device", "The disk is full"),
        ("socket.gaierror: Temporary failure in name resolution", "No network"),
        ("  Caused by: client error (Connect)\n  Caused by: dns error", "No network"),
        (
            "ERROR: No matching distribution found for tensorflow>=2.20",
            "There is no tensorflow>=2.20 to install",
        ),
        ("ERROR: something new", "ERROR: something new"),
    ],
)
def test_what_pip_says_becomes_one_sentence(setup, words, sentence):
    assert sentence in setup.diagnosis("Collecting x\n" + words, "test", ".venv/setup.log")


def test_an_environment_that_cannot_be_made_is_one_sentence(setup, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(setup.SetupError, match=r"could not make .venv: .*\n.* see whether the disk"):
        setup.make_venv(sys.executable, tmp_path / "file" / "venv")


def test_an_extra_that_does_not_exist_is_one_sentence(setup):
    with pytest.raises(setup.SetupError, match=r"EXTRA=gpuu: there is no 'gpuu'; choose from cpu, gpu, jax"):
        setup.checked_extras(PROJECT, "gpuu")
    assert setup.checked_extras(PROJECT, "cpu,torch") == [
        "cpu",
        "torch",
        "formats",
        "lab",
        "notebook",
        "scale",
        "site",
        "test",
    ]


def test_the_set_up_file_starts_on_a_python_too_old_for_the_course():
    ast.parse(TOOL.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_a_folder_with_the_separator_of_path_in_its_name_is_one_sentence(setup, tmp_path):
    with pytest.raises(setup.SetupError, match=f"has a '{os.pathsep}' in its name"):
        setup.make_environment(tmp_path / f"a{os.pathsep}b", "", "cpu", "lab")


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_pinned_version_takes_the_first_release_of_each_python(python):
    """A pin that wants 3.11.5 shuts out Debian 12, whose Python is 3.11.2."""
    refusing, looked_at = [], 0
    for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, version = line.partition("==")
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of another system or backend
        if found.version == version:
            looked_at += 1
            if not SpecifierSet(found.metadata["Requires-Python"] or "").contains(python):
                refusing.append(line)
    assert refusing == [] and looked_at > 100


# What it makes


@pytest.fixture
def course(setup, monkeypatch, tmp_path):
    """A course's folder with a set-up that installs nothing: `installs` lists what would have been."""
    root = tmp_path / "course"
    (root / "tools").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, root)
    installs = []

    def make_venv(python, venv):
        (venv / "bin").mkdir()
        (venv / "bin" / "python").symlink_to(sys.executable)
        (venv / "pyvenv.cfg").touch()

    monkeypatch.setattr(setup, "make_venv", make_venv)
    monkeypatch.setattr(setup, "install", lambda python, arguments, *rest: installs.append(arguments[-1]))
    return SimpleNamespace(root=root, venv=root / ".venv", installs=installs)


def test_a_set_up_runs_once_and_again_after_a_change_or_an_interruption(setup, course, monkeypatch, capsys):
    setup.make_environment(course.root, "", "cpu", "lab")
    assert course.installs == [".[cpu,formats,lab,notebook,scale,site,test]"]
    capsys.readouterr()

    setup.make_environment(course.root, "", "", "lab")
    assert len(course.installs) == 1 and capsys.readouterr().out == ""

    with (course.root / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    setup.make_environment(course.root, "", "", "lab")
    assert len(course.installs) == 2 and "Removing" not in capsys.readouterr().out

    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(setup, "install", interrupted)
        setup.make_environment(course.root, "", "cpu,torch", "lab")
    setup.make_environment(course.root, "", "cpu,torch", "lab")
    assert course.installs[2:] == [".[cpu,torch,formats,lab,notebook,scale,site,test]"]
    assert "left unfinished" in capsys.readouterr().out


def test_an_environment_without_pyvenv_cfg_is_not_ready(setup, course, capsys):
    """Its Python would be the system's: what two set-ups at once left behind counted as ready for ever."""
    setup.make_environment(course.root, "", "cpu", "lab")
    (course.venv / "pyvenv.cfg").unlink()
    setup.make_environment(course.root, "", "", "lab")
    assert len(course.installs) == 2 and (course.venv / "pyvenv.cfg").is_file()
    assert "damaged since" in capsys.readouterr().out


def test_nothing_is_ready_that_another_process_changed_meanwhile(setup, course, monkeypatch):
    monkeypatch.setattr(setup, "install", lambda *_: (course.venv / "pyvenv.cfg").unlink())
    with pytest.raises(setup.SetupError, match="Another process changed .venv"):
        setup.make_environment(course.root, "", "cpu", "lab")
    assert not (course.venv / ".ready").exists()


def test_an_environment_that_make_did_not_build_is_left_alone(setup, course):
    (course.venv / "mine").mkdir(parents=True)
    with pytest.raises(setup.SetupError, match="did not build, and it is left as it is; rename or delete it"):
        setup.make_environment(course.root, "", "cpu", "lab")
    assert (course.venv / "mine").is_dir() and course.installs == []


def test_an_environment_of_another_python_is_not_removed_in_silence(setup, course, monkeypatch, capsys):
    setup.make_environment(course.root, "", "cpu", "lab")
    (_, minor), other = sys.version_info[:2], (3, 12 if sys.version_info[1] == 11 else 11)
    named = {"other": other}
    real = setup.version_of
    monkeypatch.setattr(setup, "version_of", lambda command: named.get(str(command)) or real(command))
    with pytest.raises(
        setup.SetupError
    ):  # the Python that is named cannot make one: found before anything is lost
        setup.make_environment(course.root, "no-such-python", "", "lab")
    assert course.venv.is_dir()
    monkeypatch.setattr(setup, "check_venv_module", lambda *_: None)
    setup.make_environment(course.root, "other", "", "lab")
    expected = f"Removing the .venv of Python 3.{minor} with all that is installed in it: PYTHON=other asks for another."
    assert expected in capsys.readouterr().out


def test_a_course_that_moved_keeps_its_environment(setup, course, capsys):
    setup.make_environment(course.root, "", "cpu", "lab")
    script = course.venv / "bin" / "jupyter"
    script.write_text(f"#!{course.venv}/bin/python\nprint('lab')\n")
    package = course.venv / "lib" / "python3.11" / "site-packages"
    package.mkdir(parents=True)
    (package / "__editable___finder.py").write_text(f"MAPPING = {{'course_lib': '{course.root}/course_lib'}}")
    moved = course.root.with_name("moved")
    course.root.rename(moved)
    setup.make_environment(moved, "", "", "lab")
    assert len(course.installs) == 1 and "has moved" in capsys.readouterr().out
    assert (moved / ".venv" / "bin" / "jupyter").read_text().startswith(f"#!{moved}/.venv/bin/python")
    found = (moved / ".venv" / "lib" / "python3.11" / "site-packages" / "__editable___finder.py").read_text()
    assert str(course.root) + "/" not in found and str(moved) in found
    setup.make_environment(moved, "", "", "lab")
    assert capsys.readouterr().out == ""

    spaced = moved.with_name("a course")  # no script can name it in its first line: installed anew
    moved.rename(spaced)
    setup.make_environment(spaced, "", "", "lab")
    assert len(course.installs) == 2


@pytest.mark.skipif(os.name != "posix", reason="flock")
@pytest.mark.parametrize("killed", [False, True])
def test_two_set_ups_at_once_are_one_after_the_other(course, killed):
    """The second waits; where the first is killed, it waits for the installer that the first started."""
    shutil.copy(TOOL, course.root / "tools")
    installing, seen = course.root / "installing", course.root / "seen"
    install = f"""
import os, time
open({str(installing)!r}, "a").write("x")
began = time.monotonic()
while not os.path.exists({str(seen)!r}) and time.monotonic() < began + 60:
    time.sleep(0.05)
"""
    code = f"""
import subprocess, sys, time
sys.path.insert(0, {str(course.root / "tools")!r})
import setup
installer = [sys.executable, "-c", {install!r}]
setup.installer = lambda python: installer
setup.make_venv = lambda python, venv: ((venv / "bin").mkdir(), (venv / "bin" / "python").symlink_to(sys.executable),
                                        (venv / "pyvenv.cfg").touch())
sys.exit(setup.main(["--extra", "cpu", "--goal", "lab"]))
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while not installing.exists():
        time.sleep(0.01)
    if killed:
        first.kill()
    second = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    waited = False
    for line in second.stdout:
        if "Another `make` is setting up .venv; waiting" in line:
            waited = installing.read_text() == "x"  # the second has not begun
            seen.touch()
    first.communicate()
    assert second.wait() == 0 and waited
    assert len(installing.read_text()) == (2 if killed else 1)
    assert (course.venv / ".ready").is_file() and (course.venv / "pyvenv.cfg").is_file()


def test_uv_installs_where_it_is_found_and_pip_has_no_settings_of_its_own(setup, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"bin/{name}")
    settings = {"text": b""}
    monkeypatch.setattr(
        setup.subprocess,
        "Popen",
        lambda *_, **__: SimpleNamespace(communicate=lambda: (settings["text"], None)),
    )
    assert setup.installer("py") == ["bin/uv", "pip", "install", "--python", "py"]
    settings["text"] = b"global.index-url='a mirror'"
    assert setup.installer("py")[:4] == ["py", "-m", "pip", "install"]
    settings["text"] = b""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert setup.installer("py")[:4] == ["py", "-m", "pip", "install"]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    assert setup.installer("py")[:4] == ["py", "-m", "pip", "install"]
