"""What all tests share: where the real data lies, and the backend that Keras runs on."""

import gc
import os
import sys
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


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """JAX keeps every program that it compiled: thousands of small ones, some gigabytes after a few hundred tests."""
    yield
    jax = sys.modules.get("jax")
    if jax is not None and _megabytes() > 3000:
        jax.clear_caches()
        gc.collect()


def _megabytes() -> float:
    """What this process has in memory now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
