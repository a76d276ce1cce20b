"""The wheel: built without a network, installed into an empty folder, used from another one."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
PREDICT = """
import numpy, pathlib, course_lib
from course_lib import checkpoints, resources
package = pathlib.Path(course_lib.__file__).parent
assert "installed" in package.parts, package
segmenter = course_lib.load("unet-cells")
from course_lib.datasets import cells
sample = cells("test", 1, 64, seed=3)[0]
labels = segmenter.predict((sample.image[..., 0] * 255).astype("uint8"))
assert labels.shape == (64, 64) and abs(labels.max() - sample.instances.max()) < 4, labels.max()
for place in (resources.RUNS, checkpoints.OWN):
    assert package.parent not in place.parents, place
print("found", labels.max())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    Version(version("setuptools")) < Version("77"), reason="setuptools here is older than pyproject.toml asks"
)
def test_the_wheel_predicts_from_an_empty_target(tmp_path):
    source = tmp_path / "source"  # a build leaves build/ and *.egg-info beside what it builds
    shutil.copytree(
        PROJECT,
        source,
        ignore=shutil.ignore_patterns(".git", ".venv", "notebooks", "tests", "runs", "build", "__pycache__"),
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, source],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {
        "course_lib/py.typed",
        "course_lib/data/archives.json",
        "course_lib/data/checkpoints/unet-cells/weights.npz",
    } <= set(names)
    assert not [name for name in names if name.startswith(("tests", "notebooks", "runs", "data"))]
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--no-index", "--target", installed, wheel], check=True
    )
    done = subprocess.run(
        [sys.executable, "-c", PREDICT],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 and done.stdout.startswith("found"), done.stderr
    assert not list(elsewhere.iterdir())
