"""Samples per second of the procedural sets, on one core: `python benchmarks/procedural.py [--samples N]`."""

import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded, which reads them once

import argparse  # noqa: E402
from statistics import median  # noqa: E402
from time import perf_counter, process_time  # noqa: E402

from _shared import row, save  # noqa: E402

from course_lib.datasets.cells import cells  # noqa: E402
from course_lib.datasets.scenes import scenes  # noqa: E402


def milliseconds(dataset) -> tuple[float, float]:
    """The median time of one sample by the core and by the clock, after a third of them as warm-up.

    The two differ where other programs want the core, too. Textures and photographs are made once, in the
    warm-up.
    """
    core, clock = [], []
    for index in range(len(dataset)):
        started = process_time(), perf_counter()
        dataset[index]
        core.append(process_time() - started[0])
        clock.append(perf_counter() - started[1])
    warm = len(core) // 3
    return 1000.0 * median(core[warm:]), 1000.0 * median(clock[warm:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Samples per second of the procedural sets, one core, default dials."
    )
    parser.add_argument("--samples", type=int, default=150, help="samples timed for each row (default 150)")
    samples = max(parser.parse_args().samples, 3)
    print(f"{'set':8} {'size':>9} {'ms of core':>11} {'ms of clock':>12} {'samples/s of core':>18}")
    rows = []
    for make in (cells, scenes):
        for size in (64, 128, 256):
            core, clock = milliseconds(make(length=samples, size=size))
            print(
                f"{make.__name__:8} {f'{size} x {size}':>9} {core:11.2f} {clock:12.2f} {1000.0 / core:18.0f}",
                flush=True,
            )
            rows.append(
                row(f"a sample of {make.__name__}, {size} x {size}", [clock / 1000], core_ms=round(core, 3))
            )
    save("procedural", rows, samples=samples)


if __name__ == "__main__":
    main()
