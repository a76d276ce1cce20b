"""Images per second of every recipe's `predict` on one image of 512 × 512 pixels, and where the time goes; beside StarDist.

    python benchmarks/predict.py [--rounds 3] [--recipes unet-nuclei,maskrcnn-nuclei] [--side 512]

The image is one of nuclei, or synthetic cells where the data set is not at hand. StarDist, if it is installed, predicts the
same image with an untrained network of its default configuration, and of one that predicts a quarter of the locations
(`grid=(2, 2)`): it finds nothing, so the time of its non-maximum suppression is not in it. KERAS_BACKEND decides what
Keras runs on. On one core (`taskset -c 0 …`) processor time is measured, which does not depend on what else is running.
"""

import importlib.util
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _shared import finish, in_turns, machine, parser, row


def example(side: int):
    """An image `(side, side, 1)`, and what it is."""
    from course_lib import datasets

    try:
        data, name = datasets.nuclei("val"), "nuclei"
        fit = [sample for sample in data if min(sample.image.shape[:2]) >= side]
        sample = max(fit, key=lambda sample: len(sample.classes))
    except Exception as error:  # not downloaded, or no image is large enough
        sample, name = (
            datasets.cells("val", length=1, size=side)[0],
            f"cells ({type(error).__name__} with nuclei)",
        )
    return sample.image[:side, :side], name


def star_dist(grid: int, folder: str):
    from stardist.models import Config2D, StarDist2D

    return StarDist2D(Config2D(n_channel_in=1, grid=(grid, grid)), name=f"grid-{grid}", basedir=folder)


def main() -> None:
    from course_lib import load, recipes
    from course_lib.datasets.loading import normalize
    from course_lib.segmenter import as_image

    options = parser(__doc__, rounds=3)
    options.add_argument(
        "--recipes", default=",".join(recipes.RECIPES), help="with commas between (default: all)"
    )
    options.add_argument("--side", type=int, default=512, help="of the image in pixels (default 512)")
    options = options.parse_args()

    import keras

    clock = time.process_time if machine()["cores"] == 1 else time.perf_counter
    image, content = example(options.side)
    segmenters = {name: load(name) for name in options.recipes.split(",")}
    functions = {}
    for name, segmenter in segmenters.items():
        output = segmenter.output(as_image(image, segmenter.channels))
        functions[name, "predict"] = lambda s=segmenter: s.predict(image)
        functions[name, "label map"] = lambda s=segmenter, o=output: s.task.decode(o, **s.thresholds)
    why = "" if importlib.util.find_spec("stardist") else "stardist is not installed"
    with tempfile.TemporaryDirectory() as folder:
        if not why:
            grey = normalize(image, "stretch")[..., 0]
            for grid in (1, 2):
                model = star_dist(grid, folder)
                functions["StarDist", grid] = lambda m=model: m.predict_instances(
                    grey, show_tile_progress=False
                )
        seconds = dict(
            zip(functions, in_turns(options.rounds, *functions.values(), clock=clock), strict=True)
        )

    rows, about = [], {"side": options.side, "image": content}
    for name in segmenters:
        where = f"{name}, {options.side} x {options.side}"
        best = min(seconds[name, "predict"])
        for grid in (1, 2):
            theirs, other = seconds.get(("StarDist", grid)), f"StarDist, grid {grid}"
            rows.append(
                row(
                    f"predict: {where}",
                    seconds[name, "predict"],
                    theirs,
                    other,
                    why=why,
                    per_second=round(1 / best, 2),
                    **about,
                )
            )
            if why:
                break
        rows.append(
            row("  of it, the label map from the network's output", seconds[name, "label map"], **about)
        )
    finish("predict", rows, backend=keras.backend.backend(), clock=clock.__name__)


if __name__ == "__main__":
    main()
