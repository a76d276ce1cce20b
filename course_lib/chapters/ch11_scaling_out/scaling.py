"""From one device to many: what is sent between them, how long that takes, and processes that start together.

    program = jax.jit(model.train_step).lower(state, batch).compile().as_text()
    print(table(collectives(program)))              # what each device sends in one step
    efficiency(64, 0.25, size, Wire(25e9, 5e-6))    # which share of 64 devices' time is work
    launch("train.py", processes=2, devices=4)      # two processes, each with four simulated devices

Nothing here needs many devices, or even one: a compiled program is a text, and a plan is arithmetic.
"""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib import resources

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""What devices do together, by the names of XLA, the compiler of JAX."""


# What is sent


@dataclass(frozen=True)
class Collective:
    """One thing that devices do together in a compiled program.

    Attributes:
        kind: one of `KINDS`.
        tensors: how many tensors go at once.
        size: bytes of them all: of the sum for an all-reduce, of the whole that is put together for an all-gather, of the
            whole that is taken apart for a reduce-scatter, of what one device holds for the other two.
        devices: how many take part, each group of them on its own.
        source: the operation of the program that it was made for, such as `"…/encoder_1_conv/conv_general_dilated"`, or "".
    """

    kind: str
    tensors: int
    size: int
    devices: int
    source: str = ""

    @property
    def sent(self) -> float:
        """Bytes that each device sends, see `ring_bytes`."""
        return ring_bytes(self.kind, self.size, self.devices)


def ring_bytes(kind: str, size: float, devices: int) -> float:
    """Bytes that each device sends when `devices` of them stand in a ring and each talks to its neighbour alone.

    For an all-reduce 2 (n − 1) / n · size: once round the ring to add up a part each, once more to hand the sums around.
    No algorithm sends less (Patarasuk and Yuan 2009, Bandwidth Optimal All-reduce Algorithms for Clusters of
    Workstations, https://doi.org/10.1016/j.jpdc.2008.09.002). All-gather and reduce-scatter are one of its halves each.

    Args:
        kind: one of `KINDS`.
        size: as `Collective.size`, in bytes.
        devices: at least 1; one device alone sends nothing.

    Raises:
        ValueError: for another kind, a negative size or fewer than one device.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(map(repr, KINDS))}.")
    if not size >= 0:
        raise ValueError(f"size is {size}; it must be 0 bytes or more.")
    _check_devices(devices)
    if kind == "collective-permute":
        return float(size) if devices > 1 else 0.0
    rounds = 2 if kind == "all-reduce" else 1
    return rounds * (devices - 1) / devices * size


_COLLECTIVE = re.compile(
    rf"= (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)"
)
_TENSOR = re.compile(r"\b(pred|(?:bf|f|s|u|c)(\d+)\w*)\[([\d,]*)\]")


def collectives(text: str) -> tuple[Collective, ...]:
    """What devices do together in a compiled program, read off its text, in the order in which it stands there.

    Where a program waits for an answer only later, the start counts and the end does not. What stands in a loop counts
    once, however often the loop runs.

    Args:
        text: of the program after the compiler has divided it, `jax.jit(f).lower(…).compile().as_text()`.

    Raises:
        ValueError: if it is no such text, or names the devices that take part in a way that is not known here.
    """
    if not text.lstrip().startswith("HloModule"):
        raise ValueError(
            f"text begins with {text.lstrip()[:20]!r}; it must be a compiled program, which begins with HloModule: "
            "jax.jit(f).lower(…).compile().as_text(), and not what lower(…).as_text() gives, where nothing is divided yet."
        )
    header = text.lstrip().splitlines()[0]
    everyone = math.prod(
        int(number) for number in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", header)
    )
    found = []
    for line in text.splitlines():
        if not (match := _COLLECTIVE.search(line)):
            continue
        kind, rest = match["kind"], match["rest"]
        sizes = _tensor_bytes(match["shape"])
        if match["start"] and kind == "all-gather":
            sizes = sizes[len(sizes) // 2 :]  # the parts stand first, then the wholes
        elif match["start"] and kind == "collective-permute":
            sizes = sizes[1:2]  # what goes, what comes, and two counters
        devices = everyone if kind == "collective-permute" else _group_size(rest, everyone)
        size = sum(sizes) * (devices if kind == "reduce-scatter" else 1)
        source = re.search(r'op_name="([^"]*)"', rest)
        found.append(Collective(kind, len(sizes), size, devices, source[1] if source else ""))
    return tuple(found)


def _tensor_bytes(shape: str) -> list[int]:
    """Bytes of each tensor in `f32[3,3]{1,0}` or `(f32[], bf16[8]{0})`."""
    sizes = []
    for name, bits, sides in _TENSOR.findall(shape):
        elements = math.prod(int(side) for side in sides.split(",") if side)
        sizes.append(math.ceil(elements * (8 if name == "pred" else int(bits)) / 8))
    return sizes


def _group_size(attributes: str, everyone: int) -> int:
    """How many devices are in a group: XLA writes the groups out, as a grid, or as axes of a mesh."""
    written = re.search(
        r"replica_groups=(\{(?:\{[\d,]*\},?)*\}|\[[\d,]+\]<=|mesh\[([^\]]*)\]\s*\{([^}]*)\})", attributes
    )
    if not written:
        raise ValueError(
            f"text: the devices of a collective are not understood: {attributes[:80]!r}; report the version of JAX."
        )
    groups = written[1]
    if groups.startswith("mesh"):
        sides = {name: int(side) for name, side in re.findall(r"'([^']+)'=(\d+)", written[2])}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", written[3])
        return math.prod(int(part) if part else sides[name] for name, part in parts)
    if groups.startswith("["):
        return int(groups.strip("[]<=").split(",")[-1])
    first = re.match(r"\{\{([\d,]*)\}", groups)
    return len(first[1].split(",")) if first and first[1] else everyone


def table(found: Iterable[Collective]) -> str:
    """Collectives as plain text: for each kind and number of devices how many, their tensors, and what a device sends."""
    groups: dict[tuple[str, int], list[Collective]] = {}
    for one in found:
        groups.setdefault((one.kind, one.devices), []).append(one)
    rows = [("", "devices", "times", "tensors", "bytes", "each device sends")]
    for kind, devices in sorted(groups, key=lambda group: (KINDS.index(group[0]), group[1])):
        some = groups[kind, devices]
        totals = [sum(getattr(one, name) for one in some) for name in ("tensors", "size", "sent")]
        numbers = len(some), *totals
        rows.append((kind, str(devices), *(f"{number:,.0f}" for number in numbers)))
    if len(rows) == 1:
        return "nothing is sent"
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )  # fmt: skip


# How long that takes


@dataclass(frozen=True)
class Wire:
    """What connects the devices.

    Attributes:
        bandwidth: bytes that a device sends in a second.
        latency: seconds until the first byte of a message arrives.
    """

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self):
        if not self.bandwidth > 0 or not self.latency >= 0:
            raise ValueError(
                f"bandwidth is {self.bandwidth} and latency {self.latency}; give more than 0 bytes per second and 0 "
                "seconds or more."
            )

    def seconds(self, size: float, devices: int) -> float:
        """How long an all-reduce of `size` bytes takes in a ring: what is sent, and 2 (n − 1) messages in turn."""
        return ring_bytes("all-reduce", size, devices) / self.bandwidth + 2 * (devices - 1) * self.latency


def efficiency(devices: int, compute: float, size: float, wire: Wire, overlap: float = 0.0) -> float:
    """Which share of their time devices work, when each has as many pictures as one device alone would have.

    Args:
        devices: how many, at least 1.
        compute: seconds that one device computes for a step.
        size: bytes of the gradients.
        wire: what connects them.
        overlap: share of `compute` during which gradients may already be under way, 0..1. A layer's gradient is ready while
            those of the layers before it are still computed, so that much of the way back can hide what is sent.

    Returns:
        Of 0..1; times `devices` it is the speed compared with one device.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if not compute > 0:
        raise ValueError(f"compute is {compute}; it must be more than 0 seconds.")
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap is {overlap}; it must be a share, 0 to 1.")
    _check_devices(devices)
    return compute / (compute + max(0.0, wire.seconds(size, devices) - overlap * compute))


def _check_devices(devices: int) -> None:
    if devices < 1:
        raise ValueError(f"devices is {devices}; it must be at least 1.")


# Processes that start together


class LaunchError(RuntimeError):
    """One of several processes failed, or they did not end in time; all of them are stopped."""


def launch(
    script: Path | str,
    processes: int = 2,
    devices: int = 1,
    *,
    arguments: Sequence[str] = (),
    seconds: float = 300.0,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Start a Python script several times on this machine, as a cluster's manager starts it once on each of many.

    Each process finds in its environment what `keras.distribution.initialize()` reads: the address of process 0, how many
    there are, and which it is; and `devices` simulated CPU devices for JAX. When one fails the others would wait for it
    for ever, so they are stopped.

    Args:
        script: the Python file.
        processes: how many times.
        devices: simulated devices of each.
        arguments: for the script.
        seconds: when to give up.
        environment: more variables for all of them, or other values.

    Returns:
        What each wrote to its standard output, by its number. C++ libraries may have written there, too: have the script
        print its result as one line of JSON, and look for that.

    Raises:
        ValueError: if there is no such file, or a number is below 1.
        LaunchError: if one fails, with the last line that it wrote to its standard error, or if time runs out.
    """
    script = Path(script)
    if not script.is_file():
        raise ValueError(f"script is {str(script)!r}; there is no such file.")
    for name, value in (("processes", processes), ("devices", devices)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    shared = _environment(processes, devices) | dict(environment or {})
    with tempfile.TemporaryDirectory() as folder:
        # Files and no pipes: a pipe that nobody empties stops who writes into it.
        files = [(Path(folder) / f"{rank}.out", Path(folder) / f"{rank}.err") for rank in range(processes)]
        running = []
        try:
            for rank, (out, err) in enumerate(files):
                with out.open("w") as stdout, err.open("w") as stderr:
                    running.append(
                        subprocess.Popen(
                            [sys.executable, str(script), *arguments],
                            env=shared | {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank)},
                            stdin=subprocess.DEVNULL,
                            stdout=stdout,
                            stderr=stderr,
                        )
                    )
            _wait(running, files, time.monotonic() + seconds, seconds)
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                process.wait()
        return [out.read_text(encoding="utf-8", errors="replace") for out, _ in files]


def _environment(processes: int, devices: int) -> dict[str, str]:
    """The environment that all processes share; XLA's flags of this process stay, but for the number of devices."""
    count = "--xla_force_host_platform_device_count"
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(count)]
    root = str(resources.PROJECT)
    # The system names a port that is free now. Someone else might take it before process 0 does; then that one fails.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*flags, f"{count}={devices}"]),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
    }


def _wait(running: Sequence[subprocess.Popen], files, end: float, seconds: float) -> None:
    """Until all have ended well; raises as soon as one has not."""
    while True:
        codes = [process.poll() for process in running]
        if any(codes):
            rank = next(rank for rank, code in enumerate(codes) if code)
            lines = files[rank][1].read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit status {codes[rank]}"
            raise LaunchError(f"process {rank} of {len(running)} failed, and all are stopped: {reason}")
        if None not in codes:
            return
        if time.monotonic() > end:
            late = [rank for rank, code in enumerate(codes) if code is None]
            raise LaunchError(
                f"after {seconds:g} seconds {'process' if len(late) == 1 else 'processes'} "
                f"{', '.join(map(str, late))} of {len(running)} had not ended, and all are stopped; allow more seconds, or "
                "look for one that waits for another."
            )
        time.sleep(0.05)
