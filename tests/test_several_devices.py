"""Training on several devices and in several processes: the losses are those of one device, up to rounding."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from course_lib import datasets, hardware, resources
from course_lib.datasets.loading import Batches

RECIPE = """
from course_lib import datasets, recipes
from course_lib.tasks import Borders

own = recipes.Recipe(
    name="tiny", title="for tests", dataset=datasets.cells,
    train_data={"length": 16, "size": 32}, val_data={"length": LENGTH, "size": 32},
    network_arguments={"base_filters": 4, "depth": 1, "normalization": "batch"},
    task=Borders(choices={"seed_threshold": (0.5,)}, choose_by="ap_mean"),
    loss=recipes.CrossEntropy() + recipes.Dice(), epochs=2, steps=3, batch_size=8, crop=(32, 32),
)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(RECIPE.replace("LENGTH", "16"), encoding="utf8")
    return tmp_path


def simulated(devices: int, **more: str) -> dict[str, str]:
    """An environment in which JAX sees so many devices, all of them this processor."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    path = os.pathsep.join([str(resources.PROJECT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {
        "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": path, **more,
    }  # fmt: skip


def history(folder) -> dict[str, list[float]]:
    return json.loads((folder / "tiny" / "card.json").read_text(encoding="utf8"))["history"]


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(folder):
    pytest.importorskip("jax")
    script = (
        "from course_lib import own_recipes, training\n"
        "recipe = own_recipes.find('own.py')\n"
        "for devices in (None, 'all', 4):\n"
        "    training.train(recipe, f'runs-{devices}', f'{devices}', devices=devices, progress=False)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=simulated(8), check=True, timeout=900)
    one = history(folder / "None")
    assert one["loss"][1] < one["loss"][0]
    for devices in ("all", "4"):
        for name, values in history(folder / devices).items():
            assert values == pytest.approx(one[name], abs=2e-5), (devices, name)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_the_first_writes(folder):
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "course_lib", "train", "own.py", "--runs", "runs"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    for rank in range(2):
        names = {"JOB_ADDRESSES": address, "NUM_PROCESSES": "2", "PROCESS_ID": str(rank)}
        more = {f"KERAS_DISTRIBUTION_{name}": value for name, value in names.items()}
        each = [*command, "--processes", "--checkpoints", f"out-{rank}"]
        running.append(subprocess.Popen(each, cwd=folder, env=simulated(2, **more), stdout=subprocess.PIPE))
    try:
        said = [process.communicate(timeout=900)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert b"val ap_50" in said[0] and b"val ap_50" not in said[1] and not (folder / "out-1").exists()
    alone = [*command[:-1], "runs-alone", "--checkpoints", "alone"]
    subprocess.run(alone, cwd=folder, env=simulated(1), check=True, timeout=900)
    for name, values in history(folder / "out-0").items():
        assert values == pytest.approx(history(folder / "alone")[name], abs=2e-5), name


def batches(length=11, **arguments) -> Batches:
    return Batches(datasets.cells(length=length, size=16), 4, (16, 16), workers=1, **arguments)


def test_the_parts_of_a_batch_are_together_the_batch():
    whole = batches(length=8, steps=2)
    parts = [batches(length=8, steps=2) for _ in range(2)]
    for process, part in enumerate(parts):
        part.divide(4, process, 2)
    for k in range(2):
        together = np.concatenate([part[k][0] for part in parts])
        np.testing.assert_array_equal(together, whole[k][0])


def test_an_incomplete_last_batch_is_filled_up_with_the_first_images():
    one, two = batches(), batches()
    two.divide(2)
    assert len(one) == len(two) == 3 and len(one[2][0]) == 3
    np.testing.assert_array_equal(two[2][0][:3], one[2][0])
    np.testing.assert_array_equal(two[2][0][3], one[0][0][0])
    four = batches(length=9)
    four.divide(4)
    assert len(four) == 3 and len(four[2][0]) == 4


def test_several_on_another_backend(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="devices is 'all' and the backend is tensorflow.*KERAS_BACKEND=jax"):
        hardware.several("all", 8)
    with pytest.raises(ValueError, match="the backend is tensorflow; for several processes"):
        hardware.join_processes()


@pytest.mark.parametrize(
    ("devices", "batch", "message"),
    [
        (9, 18, "must be 'all' or 1 to 6"),
        ("some", 8, "must be 'all' or"),
        ("all", 8, "6 devices cannot divide a batch of 8 .* take 4"),
    ],
)
def test_devices_that_cannot_be(monkeypatch, devices, batch, message):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [f"gpu:{k}" for k in range(6)])
    with pytest.raises(ValueError, match=message):
        hardware.several(devices, batch)
