"""Where the reference outputs of torchvision lie."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of torchvision's outputs (`COURSE_FIXTURES`, or `../shared/fixtures` beside the project), or a skip."""
    folder = Path(os.environ.get("COURSE_FIXTURES") or PROJECT.parent / "shared" / "fixtures")
    if not (folder / "torchvision_ops.npz").is_file():
        pytest.skip(
            "no reference outputs of torchvision: neither COURSE_FIXTURES nor "
            f"{folder.parent.name}/{folder.name} beside the project holds torchvision_ops.npz"
        )
    return folder
