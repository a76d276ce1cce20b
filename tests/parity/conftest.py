"""Where the reference outputs of torchvision lie."""

import os
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of torchvision's outputs: `COURSE_FIXTURES`, or `tests/fixtures`; see its `make_torchvision.py`."""
    folder = Path(os.environ.get("COURSE_FIXTURES") or FIXTURES)
    if not (folder / "torchvision_ops.npz").is_file():
        pytest.skip(f"no reference outputs of torchvision: {folder.name} holds no torchvision_ops.npz")
    return folder
