"""Images per second of every recipe's `predict` on one image of 512 × 512 pixels, and where the time goes; beside an
earlier commit, and beside StarDist.

    python benchmarks/predict.py [--rounds 3] [--recipes unet-nuclei,maskrcnn-nuclei] [--side 512] [--before CHECKOUT]

All are timed in one process on one core, by processor time, which hardly depends on what else is running; the two networks
for nuclei also on two cores, by wall time. The image is one of nuclei, or synthetic cells where the data set is not at
hand. `--before` is the folder of another commit of the course, timed in the same way with its own code and weights.
StarDist, if it is installed, predicts the same image with an untrained network of its default configuration, and of one
that predicts a quarter of the locations (`grid=(2, 2)`): it finds nothing, so the time of its non-maximum suppression is
not in it. KERAS_BACKEND decides what Keras runs on.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from _shared import PROJECT, finish, in_turns, parser, row

NUCLEI = ("unet-nuclei", "maskrcnn-nuclei")


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


def of_recipe(name: str, image):
    """What is timed of a recipe: `predict`, and its parts."""
    import keras

    from course_lib import load
    from course_lib.datasets.loading import normalize
    from course_lib.models.mask_rcnn import stages
    from course_lib.models.predict import compiled
    from course_lib.segmenter import as_image

    segmenter = load(name)
    model, task, size = segmenter.model, segmenter.task, image.shape[:2]

    def prepare():
        return normalize(as_image(image, segmenter.channels), segmenter.normalization)

    prepared = prepare()
    output = task.output(model, prepared)
    parts = {"predict": lambda: segmenter.predict(image), "normalization": prepare}
    if "boxes" in output:
        network = compiled(model, lambda model: model.features_model())
        features = network.predict_on_batch(prepared[None])
        features = keras.tree.map_structure(keras.ops.convert_to_tensor, features)
        proposals, _, valid = model.propose(features, size)
        heads = model.predict_boxes(features, proposals)
        found = model.detect(features, size, trim=True)["boxes"]
        parts |= {
            "features": lambda: network.predict_on_batch(prepared[None]),
            "proposals": lambda: model.propose(features, size),
            "box head": lambda: model.predict_boxes(features, proposals),
            "NMS of detections": lambda: stages.postprocess_detections(
                *heads, proposals, valid, size, model.settings
            ),
            "mask head": lambda: model.predict_masks(features, found),
        }
    else:
        parts["network"] = lambda: task.output(model, prepared)
    return parts | {"label map": lambda: task.decode(output, **segmenter.thresholds)}


def of_recipe_before_load(name: str, image):
    """`predict` as it was before there was `course_lib.load`; None without weights that belong to the recipe."""
    from course_lib import checkpoints, evaluation, recipes

    recipe = recipes.RECIPES.get(name)
    if recipe is None or checkpoints.is_missing(recipe):
        return {}
    model = recipe.model()
    chosen = checkpoints.load(recipe, model, quiet=True).get("chosen", {})
    image = np.repeat(image, model.channels if recipe.detects else model.input_shape[-1], axis=-1)
    return {
        "predict": lambda: evaluation.answer(recipe, evaluation.predict_one(recipe, model, image), chosen)
    }


def of_star_dist(image) -> dict:
    from stardist.models import Config2D, StarDist2D

    from course_lib.datasets.loading import normalize

    grey, folder = normalize(image, "stretch")[..., 0], tempfile.mkdtemp()
    models = {
        grid: StarDist2D(Config2D(n_channel_in=1, grid=(grid, grid)), name=f"grid-{grid}", basedir=folder)
        for grid in (1, 2)
    }
    return {
        f"StarDist, grid {grid}": lambda model=model: model.predict_instances(grey, show_tile_progress=False)
        for grid, model in models.items()
    }


def timed_here(names, cores, rounds: int, image: Path, checkout: Path) -> dict:
    """Wall and processor seconds of each round, by recipe and part; the work of the child process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    sys.path.insert(0, str(checkout))
    image, kinds = np.load(image), {}
    for name in names:
        if name == "StarDist":
            parts = of_star_dist(image)
        elif (checkout / "course_lib" / "segmenter.py").is_file():
            parts = of_recipe(name, image)
        else:
            parts = of_recipe_before_load(name, image)
        kinds |= {f"{name}/{part}": function for part, function in parts.items()}
    seconds = in_turns(
        rounds, *kinds.values(), clock=lambda: np.array([time.perf_counter(), time.process_time()])
    )
    return {name: np.transpose(each).tolist() for name, each in zip(kinds, seconds, strict=True)}


def timed(names, cores, rounds: int, image: Path, checkout: Path = PROJECT) -> dict:
    """`timed_here`, in a process of its own: two versions of a package do not go into one."""
    arguments = json.dumps([names, list(cores), rounds, str(image), str(checkout)])
    command = [sys.executable, __file__, "--child", arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        names, cores, rounds, image, checkout = json.loads(sys.argv[2])
        print(json.dumps(timed_here(names, cores, rounds, Path(image), Path(checkout))))
        return

    options = parser(__doc__, rounds=3)
    options.add_argument(
        "--recipes", default=",".join(different_recipes()), help="with commas between (default: all)"
    )
    options.add_argument("--side", type=int, default=512, help="of the image in pixels (default 512)")
    options.add_argument("--before", type=Path, help="folder of another commit of the course")
    options = options.parse_args()

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    names = options.recipes.split(",")
    star = ["StarDist"] if importlib.util.find_spec("stardist") else []
    why = "" if star else "stardist is not installed"
    image, content = example(options.side)
    rows, about = [], {"side": options.side, "image": content}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        here = timed([*names, *star], cores[-1:], options.rounds, path)
        before = {}
        if options.before:
            before = timed(names, cores[-1:], options.rounds, path, options.before.resolve())
        nuclei = [name for name in NUCLEI if name in names]
        two = timed([*nuclei, *star], cores[:2], max(5, options.rounds), path) if len(cores) > 1 else {}
    processor, wall = 1, 0
    for name in names:
        ours, theirs = (found.get(f"{name}/predict", ([], []))[processor] for found in (here, before))
        rates = {"per_second": round(1 / min(ours), 2)}
        if theirs:
            rates["per_second_before"] = round(1 / min(theirs), 2)
        rows.append(row(f"predict: {name}", ours, theirs, "before", recipe=name, **rates, **about))
        for part, seconds in here.items():
            if part.startswith(f"{name}/") and not part.endswith("/predict"):
                rows.append(row(f"  of it, {part.partition('/')[2]}", seconds[processor], recipe=name))
    for found, clock, time_of in (
        (here, processor, "processor time, 1 core"),
        (two, wall, "wall time, 2 cores"),
    ):
        for name in nuclei if found else ():
            for other in [part for part in found if part.startswith("StarDist/")] or [""]:
                ours, theirs = (found[one][clock] if one else None for one in (f"{name}/predict", other))
                other = other.partition("/")[2]
                rows.append(row(f"predict: {name}, {time_of}", ours, theirs, other, why=why, **about))
    print("\n".join(table(rows)))
    finish("predict", rows, backend=os.environ.get("KERAS_BACKEND", ""), before=_commit(options.before))


def different_recipes() -> list[str]:
    """The names of the shipped recipes; of those with one network and one task the first, as the others take as long."""
    from course_lib import recipes

    first = {}
    for name, recipe in recipes.RECIPES.items():
        first.setdefault(repr((recipe.network, recipe.network_arguments, recipe.task)), name)
    return list(first.values())


def table(rows) -> list[str]:
    """The rows of all recipes in Markdown, as docs/own_images.md shows them."""
    said = ["| recipe | images per second before | now | milliseconds on one core |", "|---|---|---|---|"]
    for one in rows:
        if "per_second" in one:
            parts = [part for part in rows if part.get("recipe") == one["recipe"] and part is not one]
            where = ", ".join(
                f"{part['what'].removeprefix('  of it, ')} {1000 * min(part['ours']):.0f}" for part in parts
            )
            before = one.get("per_second_before", "")
            said.append(f"| `{one['recipe']}` | {before} | {one['per_second']} | {where} |")
    return said


def _commit(folder: Path | None) -> str:
    if folder is None:
        return ""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
