"""The hardware of this machine, and what runs on it: the real training, or the shipped weights.

`hardware.train_here()` is true with a GPU, or where `COURSE_TRAIN=1` says so; `COURSE_TRAIN=0` says no.
"""

import os
import platform

import keras


def accelerators() -> list[str]:
    """The GPUs and TPUs that Keras's backend finds, such as `["gpu:0"]`."""
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


def several(devices: int | str, batch_size: int):
    """A `keras.distribution.DataParallel`, which splits each batch across several devices, for training in its `scope()`.

    Weights and optimizer are copied to each device, and the gradient is that of the whole batch. With `join_processes` the
    devices are those of all processes together.

    Args:
        devices: how many, or `"all"`.
        batch_size: images in a batch, of all devices together.

    Raises:
        ValueError: on another backend than JAX, if there are not as many devices, or they cannot divide the batch equally.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"devices is {devices!r} and the backend is {keras.backend.backend()}; only JAX splits a batch across devices "
            "here. Set KERAS_BACKEND=jax."
        )
    here = keras.distribution.list_devices()
    wanted = len(here) if devices == "all" else devices
    if not isinstance(wanted, int) or not 1 <= wanted <= len(here):
        raise ValueError(
            f"devices is {devices!r}; it must be 'all' or 1 to {len(here)}, those that JAX sees."
        )
    if batch_size % wanted:
        most = max(n for n in range(1, wanted) if batch_size % n == 0)
        raise ValueError(
            f"devices is {devices!r}, and {wanted} devices cannot divide a batch of {batch_size} images equally; take "
            f"{most}, or a recipe whose batch_size is a multiple of {wanted}."
        )
    parallel = keras.distribution.DataParallel(devices=here[:wanted], auto_shard_dataset=False)
    if wanted < len(here) and parallel.num_processes > 1:
        raise ValueError(
            f"devices is {devices!r}; several processes train on all of their devices: leave it out."
        )
    return parallel


def join_processes() -> int:
    """Wait for the other processes of a training on several machines; returns the number of this one.

    Each machine runs the same command. Where process 0 listens, how many there are and which this one is come from
    `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `_NUM_PROCESSES` and `_PROCESS_ID`, or from Slurm. Nothing may be computed before.

    Raises:
        ValueError: on another backend than JAX, or if the processes do not find each other.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"the backend is {keras.backend.backend()}; for several processes set KERAS_BACKEND=jax."
        )
    try:
        keras.distribution.initialize()
        # Only as a question: the first distribution knows which process it belongs to.
        return keras.distribution.DataParallel(auto_shard_dataset=False).data_shard_id
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the processes did not find each other ({error}). In each one set KERAS_DISTRIBUTION_JOB_ADDRESSES=HOST:PORT "
            "of process 0, KERAS_DISTRIBUTION_NUM_PROCESSES, and KERAS_DISTRIBUTION_PROCESS_ID=0, 1, …"
        ) from error


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(used: int | None = None) -> dict[str, str]:
    """This machine in a few words: backend, device, cores, versions; `used` accelerators, by default all."""
    devices = accelerators()
    return {
        "backend": keras.backend.backend(),
        "device": f"{used or len(devices)} × {devices[0].split(':')[0].upper()}"
        if devices
        else f"CPU, {cores()} core{'s' * (cores() > 1)}",
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def summary() -> str:
    """One line for a notebook: the hardware, and what the notebook will run on it."""
    facts = describe()
    plan = (
        "the real trainings run here" if train_here() else "shipped weights stand in for the long trainings"
    )
    return f"Keras {facts['keras']} on {facts['backend']}, {facts['device']}: {plan}."
