"""What this machine has, and what therefore runs here: the real training, or the shipped weights.

`hardware.train_here()` is true with a GPU, or where `COURSE_TRAIN=1` says so; `COURSE_TRAIN=0` says no.
"""

from __future__ import annotations

import os
import platform

import keras


def accelerators() -> list[str]:
    """The GPUs and TPUs that Keras's backend sees, such as `["gpu:0"]`."""
    found = []
    for kind in ("gpu", "tpu"):
        try:
            found += [str(device).lower() for device in keras.distribution.list_devices(kind)]
        except (RuntimeError, ValueError, NotImplementedError, AttributeError):
            # A backend that cannot be asked for a kind of device it was not built with says so in its own way.
            continue
    return [device for device in found if not device.startswith("cpu")]


def train_here() -> bool:
    """Whether notebooks train here; see the module's docstring.

    Raises:
        ValueError: if `COURSE_TRAIN` is set to something other than 0 or 1.
    """
    wish = os.environ.get("COURSE_TRAIN", "")
    if wish not in ("", "0", "1"):
        raise ValueError(
            f"COURSE_TRAIN is {wish!r}; set it to 1 (train here), 0 (use the shipped weights), or leave it unset."
        )
    return wish == "1" if wish else bool(accelerators())


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, str]:
    """This machine in a few words: backend, device, cores, versions."""
    devices = accelerators()
    return {
        "backend": keras.backend.backend(),
        "device": f"{len(devices)} × {devices[0].split(':')[0].upper()}"
        if devices
        else f"CPU, {cores()} cores",
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def summary() -> str:
    """One line for a notebook: what is here and what it will do."""
    facts = describe()
    plan = (
        "the real trainings run here" if train_here() else "shipped weights stand in for the long trainings"
    )
    return f"Keras {facts['keras']} on {facts['backend']}, {facts['device']}: {plan}."
