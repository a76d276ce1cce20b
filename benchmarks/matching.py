"""How long instance matching takes: 100 images of 256 x 256, 40 objects each, ten IoU thresholds, one core.

    python benchmarks/matching.py [--images 100] [--objects 40] [--size 256] [--rounds 5]

Prints the seconds of each round and their median. The limit that the course sets itself is 2 seconds.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from _shared import row, save  # noqa: E402

from course_lib.metrics import DSB_THRESHOLDS, matching_scores  # noqa: E402


def discs(rng: np.random.Generator, size: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """A true map of discs on a jittered grid, and a prediction of it with centres and radii a little off."""
    side = int(np.ceil(np.sqrt(objects)))
    step = size / side
    maps = np.zeros((2, size, size), np.int32)
    y, x = np.mgrid[:size, :size]
    for k in range(objects):
        centre = (np.array(divmod(k, side)) + rng.uniform(0.4, 0.6, 2)) * step
        radius = step * rng.uniform(0.3, 0.4)
        for instances, blur in zip(maps, (0.0, 0.06), strict=True):
            cy, cx = centre + rng.normal(0, blur, 2) * step
            r = radius * (1 + rng.normal(0, blur))
            instances[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = k + 1
    return maps[0], maps[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    pairs = [discs(rng, options.size, options.objects) for _ in range(options.images)]
    true, pred = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    print(f"{options.images} images of {options.size} x {options.size}, {options.objects} objects each")
    rows = []
    for name, thresholds in (("0.50 … 0.95", DSB_THRESHOLDS), ("0.05 … 0.50", np.arange(1, 11) / 20)):
        wall, cpu = [], []
        for _ in range(options.rounds):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            scores = matching_scores(true, pred, thresholds)
            wall.append(time.perf_counter() - wall_start)
            cpu.append(time.process_time() - cpu_start)
        rounds = " ".join(f"{seconds:.2f}" for seconds in wall)
        print(
            f"10 thresholds {name}: median {statistics.median(wall):.2f} s wall, "
            f"{statistics.median(cpu):.2f} s CPU (rounds {rounds}); "
            f"mean AP {scores.average_precision.mean():.3f}"
        )
        rows.append(
            row(f"matching, {options.images} images, {options.objects} objects, thresholds {name}", wall)
        )
    save("matching", rows, **vars(options))


if __name__ == "__main__":
    main()
