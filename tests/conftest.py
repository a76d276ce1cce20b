"""What all tests share: where the real data lies, and the backend that Keras runs on."""

import gc
import os
from itertools import chain, groupby
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notes would drown the test report
os.environ["COURSE_PROGRESS"] = ""  # what tests solve is nobody's progress
gc.disable()  # until everything is imported, see below


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what XLA compiles as slow, where it is: on TensorFlow. And turns the order of the files round.

    Files go to one process each; of those in this folder, which come last by name, some take a minute, for which the other
    processes would wait.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    items[:] = chain.from_iterable(reversed(files))
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        for item in items:
            if item.get_closest_marker("xla"):
                item.add_marker("slow")


def pytest_collection_finish():
    """What has been imported stays: no garbage collection has to walk over those million objects again."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000)


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
def numpy_draws_the_first_weights():
    """On JAX, which compiles the drawing of random numbers anew for every shape of kernel: seconds for a small net.

    Same distribution, and from the same seed the same weights, so the tests mean what they mean elsewhere; one that is
    about the drawing itself uses `keras_draws_the_first_weights`. Yields Keras's own way, `None` where it is in use.
    """
    if os.environ.get("KERAS_BACKEND") != "jax":
        yield None
        return
    import keras
    import numpy as np
    from scipy.special import ndtr, ndtri

    def draw(self, shape, dtype=None):
        fans = np.prod(shape[:-2], dtype=float) * np.array(
            [shape[-2] if len(shape) > 1 else shape[0], shape[-1]]
        )
        fan = {"fan_in": fans[0], "fan_out": fans[1], "fan_avg": fans.mean()}[self.mode]
        deviation = np.sqrt(self.scale / max(1.0, fan))
        rng = np.random.default_rng(self.seed)
        if (
            self.distribution == "truncated_normal"
        ):  # cut off at two standard deviations of the normal that is drawn
            values = ndtri(rng.uniform(ndtr(-2), ndtr(2), shape)) * deviation / 0.8796256610342398
        elif self.distribution == "uniform":
            values = rng.uniform(-1, 1, shape) * deviation * np.sqrt(3)
        else:
            values = rng.normal(0, deviation, shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype or keras.config.floatx())

    own = keras.initializers.VarianceScaling.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.VarianceScaling, "__call__", draw)
        yield own


@pytest.fixture
def keras_draws_the_first_weights(numpy_draws_the_first_weights, monkeypatch):
    """Keras's initializers as they are, for one test."""
    if own := numpy_draws_the_first_weights:
        import keras

        monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", own)
