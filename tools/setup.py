"""Set up the course's environment in .venv, once; every make target that needs it calls this first.

Standard library only, and written for Python 3.6, so that a Python too old for the course can still say so.
"""

import argparse
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED_EXTRAS = ["formats", "lab", "notebook", "scale", "site", "test"]
NEEDED_GB = {"cpu": 4, "gpu": 12}

NETWORK_SIGNS = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Max retries exceeded",
    "Failed to fetch:",  # uv's words
    "dns error",
)


class SetupError(Exception):
    """The environment could not be set up; the message is one sentence for the person at the keyboard."""


# What the project asks for


def supported_versions(root):
    """The Python versions of `requires-python` as ((3, 11), (3, 14)): from, up to but without."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text).groups()
    return (3, int(low)), (3, int(high))


def spelled(versions):
    """The supported versions as words: `3.11, 3.12 or 3.13`."""
    names = ["3.%d" % minor for minor in range(versions[0][1], versions[1][1])]
    return ", ".join(names[:-1]) + " or " + names[-1]


def checked_extras(root, extra):
    """The extras to install for EXTRA=`extra`, which may name several with commas."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    known = re.findall(r"^(\w+) = \[", text.split("[project.optional-dependencies]")[1].split("\n[")[0], re.M)
    chosen = [name for name in extra.split(",") if name]
    for name in chosen:
        if name not in known:
            raise SetupError("EXTRA=%s: there is no '%s'; choose from %s." % (extra, name, ", ".join(known)))
    return chosen + [name for name in SHARED_EXTRAS if name not in chosen]


def default_extra():
    """`gpu` where an NVIDIA driver answers on Linux, else `cpu`."""
    if sys.platform.startswith("linux") and shutil.which("nvidia-smi"):
        if subprocess.call(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return "gpu"
    return "cpu"


# Which Python


def version_of(command):
    """The (major, minor) version of the Python that `command` starts; None where it does not start."""
    try:
        out = subprocess.check_output(
            [str(command), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            stderr=subprocess.DEVNULL,
        )
        return tuple(int(part) for part in out.decode().split("."))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def interpreter_of(venv):
    """Where the environment in the folder `venv` has its Python."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def version_in(venv):
    """The (major, minor) version of an environment; None where it is not whole.

    Without pyvenv.cfg its Python would be the system's, and what is installed would land there.
    """
    return version_of(interpreter_of(venv)) if (venv / "pyvenv.cfg").is_file() else None


def find_python(root, named, goal, running=None):
    """The Python to build .venv with: the one named, else the one that runs this, else one on the PATH.

    `running` is the version of the Python that runs this file.
    """
    low, high = versions = supported_versions(root)
    if named:
        version = version_of(named)
        if version is None:
            raise SetupError("PYTHON=%s starts no Python; name one of %s." % (named, spelled(versions)))
        if not low <= version < high:
            raise SetupError(
                "PYTHON=%s is Python %d.%d, but the course needs Python %s; install or name one of those."
                % (named, version[0], version[1], spelled(versions))
            )
        return named
    running = tuple(running or sys.version_info)[:2]
    if low <= running < high:
        return os.path.realpath(sys.executable)  # not the .venv's link to it: .venv may have to be built anew
    for minor in range(high[1] - 1, low[1] - 1, -1):
        command = shutil.which("python3.%d" % minor)
        if command and version_of(command) == (3, minor):
            return command
    raise SetupError(
        "The course needs Python %s, and only Python %d.%d was found; install one of those, or name it: "
        "make %s PYTHON=python3.%d" % (spelled(versions), running[0], running[1], goal, low[1])
    )


def check_venv_module(python, goal):
    """Raise where `python` cannot make environments (Debian packs that part separately)."""
    if subprocess.call([python, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL) != 0:
        raise SetupError(
            "%s comes without its venv module; install it (Debian, Ubuntu: apt install python3-venv) "
            "or name another Python: make %s PYTHON=python3.12" % (python, goal)
        )


# What can go wrong


def check_disk(root, needed_gb, goal):
    """Raise where the disk that holds the project has less than `needed_gb` free."""
    free_gb = shutil.disk_usage(str(root)).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            "Setting up takes about %d GB and this disk has %.1f GB free; free some space, "
            "then run `make %s` again." % (needed_gb, free_gb, goal)
        )


def diagnosis(log_text, goal, log_name):
    """One sentence for what pip's output shows to have gone wrong."""
    again = "then run `make %s` again (the installer's own words: %s)." % (goal, log_name)
    if "No space left on device" in log_text:
        return (
            "The disk is full: the installer ran out of space in .venv or in the temporary folder; "
            "free some space or set TMPDIR, " + again
        )
    if any(sign in log_text for sign in NETWORK_SIGNS):
        return (
            "No network: the package registry could not be reached; "
            "connect or set PIP_INDEX_URL to a mirror, " + again
        )
    missing = re.search(r"No matching distribution found for (\S+)", log_text)
    if missing:
        return (
            "There is no %s to install: the registry has none for this Python and machine, or did not answer; "
            "see the README for what the course runs on, %s" % (missing.group(1), again)
        )
    last = "\n".join("    " + line for line in log_text.strip().splitlines()[-12:])
    return "The installation failed; mend what it names, %s\n%s" % (again, last)


# Doing it


def check_folder_name(root, goal):
    """Raise where the folder's name can hold no environment: `:` parts the folders of PATH."""
    if os.pathsep in str(root):
        raise SetupError(
            "The course's folder %s has a '%s' in its name, and no environment works there; "
            "rename the folder, then run `make %s` again." % (root, os.pathsep, goal)
        )


def make_venv(python, venv):
    """Make an empty environment in the folder `venv`."""
    try:
        subprocess.check_output([python, "-m", "venv", str(venv)], stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        words = error.output.decode("utf-8", "replace").strip()
        raise SetupError(
            "%s could not make .venv: %s\nIf that names no cause, see whether the disk or the temporary "
            "folder is full." % (python, words)
        ) from None


@contextlib.contextmanager
def locked(path):
    """Let one set-up at a time into the block; gives the lock's file, or None on a disk that knows no locks.

    pip inherits the file, so that the lock is held until pip ends, even where this process is killed.
    """
    with open(str(path), "a+b") as file:
        told = False
        while True:
            try:
                if os.name == "nt":
                    import msvcrt

                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                else:
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    yield None
                    return
                if not told:
                    print("Another `make` is setting up .venv; waiting until it is done.")
                    sys.stdout.flush()
                told = True
                time.sleep(0.2)
                continue
            yield file
            return


def show_progress(line):
    """On a terminal, one line that says what pip is at; in a log, nothing."""
    if not sys.stdout.isatty():
        return
    step = re.match(r"\s*(Downloading|Using cached|Installing collected packages)\b:?\s*(\S*)(.*\))?", line)
    if step:
        word, name, size = step.groups()
        text = "installing" if word.startswith("Installing") else "%s %s%s" % (word.lower(), name, size or "")
        sys.stdout.write("\r\033[K  %s" % text[:100])
        sys.stdout.flush()


def installer(python):
    """The command that installs: uv where it is found and pip has no settings (uv would not read them), else pip."""
    pip = [str(python), "-m", "pip"]
    uv = shutil.which("uv")
    if uv and not any(name.startswith("PIP_") for name in os.environ):
        configured = subprocess.Popen(pip + ["config", "list"], stdout=subprocess.PIPE).communicate()[0]
        if not configured.strip():
            return [uv, "pip", "install", "--python", str(python)]
    return pip + ["install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]


def install(python, arguments, log, log_name, goal, lock=None):
    """Install with pip or uv, its output in the file `log`; raise with a diagnosis where it fails."""
    command = installer(python) + arguments
    keep = {"pass_fds": [lock.fileno()]} if lock and os.name == "posix" else {}
    with open(str(log), "w", encoding="utf-8", errors="replace", buffering=1) as out:
        process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **keep,
        )
        try:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace")
                out.write(line)
                show_progress(line)
        finally:
            code = process.wait()
            if sys.stdout.isatty():
                sys.stdout.write("\r\033[K")
    if code != 0:
        raise SetupError(diagnosis(Path(str(log)).read_text(encoding="utf-8"), goal, log_name))


def fingerprint(root, extra):
    """What the environment depends on, in two lines: when one changes, there is something to do."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    digest.update(",".join(SHARED_EXTRAS).encode())
    return "%s %s\n%s" % (extra, digest.hexdigest(), root)


def relocate(venv, old, new):
    """Write the new folder's name where the environment holds the old one; False where it has to be built anew."""
    if os.name == "nt" or re.search(r"\s", old + new) or len(new) > 100:  # such a name cannot follow `#!`
        return False
    files = [path for path in (venv / "bin").iterdir() if path.is_file() and not path.is_symlink()]
    for pattern in ("__editable__*", "segmentation_course*.dist-info/*"):
        files += (venv / "lib").glob("python*/site-packages/" + pattern)
    for path in files:
        text = path.read_bytes()
        if old.encode() in text:
            path.write_bytes(text.replace(old.encode(), new.encode()))
    return True


def make_environment(root, named_python, extra, goal):
    """Bring `root`/.venv to what pyproject.toml and constraints.txt ask for; a mere look where it does."""
    check_folder_name(root, goal)
    if not is_ready(root, named_python, extra):
        with locked(root / ".venv.lock") as lock:
            if not is_ready(root, named_python, extra):  # another process may just have made it
                build(root, named_python, extra, goal, lock)


def chosen_extra(root, extra):
    """The extras asked for, else those of the last time: a choice once made stays made."""
    ready = root / ".venv" / ".ready"
    stamp = ready.read_text(encoding="utf-8") if ready.is_file() else ""
    return extra.replace(" ", "") or stamp.split(" ")[0] or default_extra(), stamp


def is_ready(root, named_python, extra):
    """Whether .venv is whole, of the Python asked for, and what pyproject.toml and constraints.txt ask for."""
    extra, stamp = chosen_extra(root, extra)
    return is_sound(root, named_python) and stamp == fingerprint(root, extra)


def is_sound(root, named_python):
    venv = root / ".venv"
    current = version_in(venv)
    low, high = supported_versions(root)
    wanted = version_of(named_python) if named_python else current
    fits = current is not None and low <= current < high and wanted == current
    return fits and (venv / ".ready").is_file() and not (venv / ".unfinished").exists()


def clear(venv, named_python, goal):
    """Remove a .venv that `make` has built and that will not do; raise where somebody else built it."""
    if not venv.exists() and not venv.is_symlink():
        return
    if venv.is_symlink() or not ((venv / ".ready").is_file() or (venv / ".unfinished").exists()):
        raise SetupError(
            "There is a .venv here that `make` did not build, and it is left as it is; "
            "rename or delete it, then run `make %s` again." % goal
        )
    current = version_in(venv)
    if (venv / ".unfinished").exists() or current is None:
        print("Removing the .venv that an earlier `make` left unfinished or that was damaged since.")
    else:
        why = "PYTHON=%s asks for another" % named_python if named_python else "the course needs another"
        print("Removing the .venv of Python %d.%d with all that is installed in it: %s." % (current + (why,)))
    shutil.rmtree(str(venv))


def build(root, named_python, extra, goal, lock=None):
    """Make or mend `root`/.venv; only under its lock."""
    venv, ready, unfinished = root / ".venv", root / ".venv" / ".ready", root / ".venv" / ".unfinished"
    log, log_name = venv / "setup.log", ".venv/setup.log"
    extra, stamp = chosen_extra(root, extra)
    extras = checked_extras(root, extra)
    asked, here = fingerprint(root, extra).split("\n")

    if is_sound(root, named_python):
        before, _, old = stamp.partition("\n")
        if before == asked and old and relocate(venv, old, here):
            print("The course's folder has moved; .venv now holds its new name.")
            ready.write_text(fingerprint(root, extra), encoding="utf-8")
            return
    else:
        python = find_python(root, named_python, goal)
        check_venv_module(python, goal)
        clear(venv, named_python, goal)
        check_disk(root, NEEDED_GB["gpu" if "gpu" in extras else "cpu"], goal)
        print("Making .venv with Python %d.%d (%s)." % (version_of(python) + (python,)))
        venv.mkdir()
        unfinished.touch()
        make_venv(python, venv)
    unfinished.touch()
    print(
        "Installing the course with %s: some minutes the first time; the installer's words go to %s."
        % (", ".join(extras), log_name)
    )
    sys.stdout.flush()
    arguments = ["-c", "constraints.txt", "-e", ".[%s]" % ",".join(extras)]
    install(interpreter_of(venv), arguments, log, log_name, goal, lock)

    # JupyterLab would ask a newcomer about news and look for updates; neither belongs to the course.
    settings = venv / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (settings / "overrides.json").write_text(json.dumps(quiet), encoding="utf-8")

    # On a disk without locks another set-up may have been at it.
    if version_in(venv) is None or not unfinished.exists():
        raise SetupError("Another process changed .venv meanwhile; run `make %s` again, once." % goal)
    ready.write_text(fingerprint(root, extra), encoding="utf-8")
    unfinished.unlink()
    print("The environment is ready.")
    sys.stdout.flush()


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Set up the course's environment in .venv.")
    parser.add_argument("--python", default="", help="the Python to build it with (default: one that fits)")
    parser.add_argument("--extra", default="", help="such as cpu, gpu or cpu,torch (default: what fits)")
    parser.add_argument("--goal", default="setup", help="the make target that asks, for messages")
    options = parser.parse_args(arguments)
    try:
        make_environment(ROOT, options.python, options.extra, options.goal)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error = "the disk is full; free some space, then run `make %s` again" % options.goal
        print("Setting up .venv failed: %s." % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe set-up was interrupted; `make %s` starts it again." % options.goal, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
