"""Peak memory of large work: a picture of 20,000 × 20,000 pixels predicted by tiles, and an epoch of CamVid.

    python benchmarks/memory.py [--side N]

Each runs in a process of its own, whose highest resident memory the operating system tells at its end. That counts the
pages of memory-mapped files too, which the system may drop whenever it needs them.

Raw numbers: data/results/bench-memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SMALL = 1000


def peak() -> int:
    """The highest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # What getrusage says of a new process on Linux is never below what its parent had when it started it.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    # kibibytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def draw(path: Path, side: int) -> None:
    """A grey picture of cells, 8 bits, uncompressed: pieces drawn by the course, laid side by side in a random order."""
    import numpy as np
    import tifffile

    from course_lib.datasets import cells

    drawn = cells("train", length=8, size=250, seed=5)
    pieces = [np.rint(drawn[k].image[..., 0] * 255).astype(np.uint8) for k in range(len(drawn))]
    rng = np.random.default_rng(5)
    picture = tifffile.memmap(path, shape=(side, side), dtype=np.uint8)
    for top in range(0, side, 250):
        row = np.concatenate([pieces[k] for k in rng.integers(len(pieces), size=-(-side // 250))], axis=1)
        picture[top : top + 250] = row[: side - top, :side]
    picture.flush()


def predict(folder: str) -> dict:
    """Predict `picture.tif` of a folder to `classes.tif`, as `python -m course_lib predict` does, with a tiny U-Net."""
    import numpy as np
    import tifffile

    from course_lib.datasets.loading import window_normalizer
    from course_lib.datasets.reading import LargeImage
    from course_lib.models import unet
    from course_lib.models.predict import predict_classes_tiled

    model = unet((None, None, 1), 3, base_filters=4, depth=2)
    before, began = peak(), perf_counter()
    picture = LargeImage(Path(folder) / "picture.tif", 1)
    classes = tifffile.memmap(Path(folder) / "classes.tif", shape=picture.shape[:2], dtype=np.uint8)
    predict_classes_tiled(model, picture, classes, window_normalizer(picture, "stretch"), margin=32)
    classes.flush()
    return {"before": before, "peak": peak(), "seconds": round(perf_counter() - began, 1)}


def camvid() -> dict:
    """One epoch of the batches of `unet-camvid`, the whole of CamVid's train split at full size."""
    from course_lib import recipes

    recipe = recipes.get("unet-camvid")
    data = recipe.data("train")
    sample = data[0]
    whole = len(data) * (sample.image.nbytes + sample.semantic.nbytes)
    batches = recipe.batches("train", data)
    before, began = peak(), perf_counter()
    for k in range(len(batches)):
        batches[k]
    return {
        "before": before,
        "peak": peak(),
        "seconds": round(perf_counter() - began, 1),
        "samples": len(data),
        "whole_set": whole,
    }


def measured(what: str, *arguments: str) -> dict:
    """The result of one of the functions above, run in a process of its own; `{"skipped": why}` where it cannot."""
    command = [sys.executable, __file__, "--child", what, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or ["it was killed"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=20_000, help="of the picture in pixels (default 20000)")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, *arguments = options.child
        print(json.dumps({"predict": predict, "camvid": camvid}[name](*arguments)))
        return 0
    if options.side < 1:
        parser.error(f"--side {options.side} is below 1")

    from _shared import save

    rows = []
    print(f"{'':34} {'peak MB':>8} {'of it before':>13} {'seconds':>8}")
    for side in sorted({min(SMALL, options.side), options.side}):
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder) / "picture.tif", side)
            found = measured("predict", folder)
        rows.append(line(f"predict {side} x {side}", found, side=side))
        show(f"predict {side} x {side}", found)
    worked = "skipped" not in found
    found = measured("camvid")
    rows.append(line("an epoch of CamVid, full size", found))
    show("an epoch of CamVid, full size", found)
    if "whole_set" in found:
        print(f"(the whole set in memory: {found['whole_set'] / 1e6:.0f} MB)")
    save("memory", rows)
    return int(not worked)


def line(what: str, found: dict, **more: int) -> dict:
    """A row of the table that `make bench` prints; bytes and seconds are raw."""
    from _shared import row

    if "skipped" in found:
        return row(what, [], why=found["skipped"], **more)
    why = f"{found['peak'] / 1e6:.0f} MB at most, {found['before'] / 1e6:.0f} MB before it began"
    return row(what, [found["seconds"]], why=why, **found, **more)


def show(what: str, found: dict) -> None:
    if "skipped" in found:
        print(f"{what:34} skipped: {found['skipped']}", flush=True)
    else:
        print(
            f"{what:34} {found['peak'] / 1e6:8.0f} {found['before'] / 1e6:13.0f} {found['seconds']:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
