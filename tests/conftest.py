"""What all tests share: where the real data lies, and the backend that Keras runs on."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes would drown the test report


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """The folder of real archives (`COURSE_DATA`, or `../shared/data` beside the project); skips where it is missing."""
    folder = Path(os.environ.get("COURSE_DATA") or PROJECT.parent / "shared" / "data")
    if not (folder / "nuclei-dsb2018.zip").is_file():
        pytest.skip(
            f"no real data: COURSE_DATA is not set and {folder.parent.name}/{folder.name} beside the project is missing"
        )
    return folder
