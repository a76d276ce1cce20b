"""The library's commands: data, train, evaluate, predict, export. `course_lib.__main__` adds the course's own."""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from course_lib import resources
from course_lib.files import disk_name, in_words

FLAG = {"action": "store_true"}
OUT = {"type": Path, "required": True}
"""Of options: a switch, and where to write."""
PACKAGES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error during the command, 2 for an invalid command line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # What stands behind "--" is names, whatever they begin with.
    end = arguments.index("--") if "--" in arguments and arguments[:1] == ["predict"] else len(arguments)
    options, left_over = parser.parse_known_args(arguments[:end])
    if options.command == "predict" and not any(word.startswith("-") for word in left_over):
        # argparse takes positional words in one piece; people also write them after --out DIR.
        options.images += map(Path, left_over + arguments[end + 1 :])
    elif left_over:
        parser.error(f"unrecognized arguments: {' '.join(left_over)}")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that a terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_signals():
            report = options.run(options)
            if options.json and report is not None:
                print(json.dumps(report))
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error can still be told
        return 0
    except BrokenPipeError:  # whoever read the output has seen enough, such as head
        _drop_output()
        return 1
    except ImportError as error:
        said = _without_backend(error) or str(error)
    except MemoryError as error:
        said = f"not enough memory ({str(error) or 'none left'}); give smaller images, or fewer at a time."
    except OSError as error:
        said = in_words(error)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            _drop_output()
    except (TypeError, ValueError, RuntimeError) as error:
        said = str(error) or type(error).__name__
    except KeyboardInterrupt as stop:
        exec("")  # where it interrupted another exec, Python would end as if by SIGINT, whatever is returned
        print(f"course_lib {options.command}: stopped. {options.stopped}".rstrip(), file=sys.stderr)
        return 128 + int(*stop.args or (signal.SIGINT,))
    except Exception as error:
        if os.environ.get("COURSE_DEBUG"):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = (
            f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno}). Run it again with COURSE_DEBUG=1 to "
            "see the traceback."
        )
    print(f"course_lib {options.command}: {said}", file=sys.stderr)
    return 1


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: what is unfinished is removed, child processes end too."""

    def stop(number, frame):
        raise KeyboardInterrupt(number)

    main = threading.current_thread() is threading.main_thread()
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if main and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _drop_output() -> None:
    """Keep Python from writing once more, at its end, to an output that cannot be written."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without_backend(error: ImportError) -> str:
    backend = os.environ.get("KERAS_BACKEND", "")
    if (error.name or "").partition(".")[0] not in ("", backend) or not backend:
        return ""
    if backend not in PACKAGES:
        return f"KERAS_BACKEND is {backend!r}; it must be {', '.join(PACKAGES)}, or be left unset."
    if not error.name:
        return ""
    extra = "cpu" if backend == "tensorflow" else f"cpu,{backend}"
    return (
        f"KERAS_BACKEND is {backend!r}, and {PACKAGES[backend]} is not installed here; install it with `make setup "
        f"EXTRA={extra}`, or leave KERAS_BACKEND unset."
    )


def add_command(commands, name: str, summary: str, function, stopped: str = "") -> argparse.ArgumentParser:
    """A verb: its help, the function that runs it and returns its report, and what is true after Ctrl-C."""
    added = commands.add_parser(name, help=summary, description=function.__doc__)
    added.set_defaults(run=function, stopped=stopped)
    return added


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the library's verbs to a parser."""
    form = "a shipped recipe's name, a Python file that holds a Recipe, or a folder with images/ and labels/"

    folders = resources.DATA / "checkpoints"
    names = sorted(path.name for path in folders.iterdir() if path.is_dir()) if folders.is_dir() else []
    shipped = f"Shipped recipes: {', '.join(names)}."

    def command(name: str, summary: str, function, stopped: str = "", recipe: str | None = None):
        added = add_command(commands, name, summary, function, stopped)
        if recipe is not None:
            added.epilog = shipped
            named = {"nargs": "*"} if recipe == "recipes" else {}
            added.add_argument(recipe, metavar="RECIPE", help=form, **named)
            names_of = {"nargs": "+", "default": (), "metavar": "NAME"}
            added.add_argument("--classes", help="for a folder: the names of its classes", **names_of)
            added.add_argument("--objects", help="for a folder: its labels are instance maps", **FLAG)
        return added

    folder = {"type": Path, "metavar": "DIR"}
    splits = ("train", "val", "test")

    again = "The same command resumes where it stopped."
    data = command("data", "show which real data is available; download it", run_data, again)
    help_ = "data sets to download: nuclei, membranes, camvid (default: only list them)"
    data.add_argument("names", nargs="*", metavar="NAME", help=help_)

    again = "The same command resumes after the last complete epoch."
    train = command("train", "train a recipe", run_train, again, "recipes")
    train.add_argument(
        "--all",
        help="every shipped recipe whose weights are missing or stale; the large ones only if a GPU is found",
        **FLAG,
    )
    help_ = "stop after this time, between two epochs; the same command resumes"
    train.add_argument("--minutes", type=_minutes, help=help_)
    train.add_argument(
        "--devices",
        type=_devices,
        metavar="N",
        help="divide each batch among N devices, or 'all' (KERAS_BACKEND=jax); the losses stay those of one device",
    )
    train.add_argument(
        "--processes",
        help="train with the same command on other machines: on Slurm, or with KERAS_DISTRIBUTION_JOB_ADDRESSES, "
        "_NUM_PROCESSES and _PROCESS_ID set; --runs must be a folder that all of them see",
        **FLAG,
    )
    train.add_argument("--runs", help="where unfinished runs are kept (default: runs/)", **folder)
    help_ = "where to write the weights (default: data/checkpoints/; for your own recipes runs/checkpoints/)"
    train.add_argument("--checkpoints", help=help_, **folder)

    evaluate = command("evaluate", "measure a recipe's weights", run_evaluate, recipe="recipe")
    evaluate.add_argument("--split", choices=splits, default="val")

    again = "The label maps written so far are complete; the same command starts again from the beginning."
    predict = command("predict", "label images", run_predict, again, "recipe")
    predict.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files")
    predict.add_argument("--split", choices=splits, help="the recipe's own data instead of files")
    predict.add_argument("--out", metavar="DIR", help="where to write the label maps", **OUT)

    export = command("export", "write a trained network for other programs", run_export, recipe="recipe")
    export.add_argument(
        "--format",
        choices=("keras", "saved_model", "onnx"),
        default="onnx",
        help="a Keras file, a TensorFlow folder, or ONNX, which most runtimes read (default)",
    )
    help_ = "the output: a file name ending in .onnx or .keras, or a folder for saved_model"
    export.add_argument("--out", metavar="FILE", help=help_, **OUT)
    help_ = "fix the image size in pixels; required for Mask R-CNN"
    export.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help=help_)
    export.add_argument("--probabilities", help="export probabilities instead of logits", **FLAG)

    for one in (evaluate, predict, export):
        one.add_argument("--checkpoints", help="where the weights are (default: as for train)", **folder)


def run_data(options: argparse.Namespace) -> dict[str, Any]:
    """List the real data sets that are available, and fetch the named ones (download, verify, unpack)."""
    from course_lib.datasets import archive

    for name in options.names:
        archive.ensure(name, progress=True)
    found = archive.status()
    if options.json:
        return {"sets": found}
    for entry in found:
        splits = ", ".join(entry["splits"]) or "-"
        print(f"{entry['name']:<10} {entry['found']:<12} {splits:<18} {entry['licence']}")
        if entry.get("problem"):
            print(f"           {entry['problem']}")
    print(f"looked in: {', then '.join(found[0]['looked_in'])}")
    return {"sets": found}


def run_train(options: argparse.Namespace) -> dict[str, Any] | None:
    """Train recipes and write their weights and cards. A run that was stopped or killed resumes after its last epoch; with
    other data it starts again from the beginning."""
    from course_lib import checkpoints, hardware, recipes, training

    process = 0
    if options.processes:
        if options.minutes:
            raise ValueError(
                "--minutes cannot be used with --processes: their clocks differ, so one process would wait for another; "
                "omit --minutes."
            )
        process, options.devices = hardware.join_processes(), options.devices or "all"

    chosen = [_recipe(options, name) for name in options.recipes]
    if options.all:
        large = recipes.FOR_A_GPU if hardware.accelerators() else {}
        chosen = [
            recipe
            for recipe in (recipes.RECIPES | large).values()
            if checkpoints.is_missing(recipe, options.checkpoints)
        ]
        if not chosen:
            print("Nothing to train: every recipe has up-to-date weights.")
    elif not chosen:
        raise ValueError(f"no RECIPE given; name one or more of {', '.join(recipes.RECIPES)}, or --all.")
    started, cards = time.perf_counter(), []
    for recipe in chosen:
        spent = (time.perf_counter() - started) / 60
        if options.minutes and spent >= options.minutes:
            print(f"{recipe.name}: no time left; the same command resumes.", file=sys.stderr)
            break
        if process == 0:
            print(f"{recipe.name}: {recipe.title}", file=sys.stderr, flush=True)
        left = options.minutes - spent if options.minutes else None
        cards.append(training.train(recipe, options.runs, options.checkpoints, left, devices=options.devices))
        if process:
            continue
        print(checkpoints.provenance(cards[-1]))
        print(_table(cards[-1]["val"], "val"))
    return {"cards": cards} if process == 0 else None


def run_evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Measure a recipe's trained weights on whole images of a split, with the thresholds chosen on the validation set."""
    from course_lib import checkpoints, hardware

    segmenter = _trained(options)
    recipe = segmenter.recipe
    dataset = recipe.data(options.split)
    began = time.perf_counter()
    metrics = segmenter.evaluate(dataset, _progress("predicting"))
    report = {
        "recipe": recipe.name,
        "split": options.split,
        "images": len(dataset),
        "metrics": metrics,
        "thresholds": segmenter.thresholds,
        "chosen": segmenter.thresholds,  # the name that older programs read
        "digest": recipe.digest,
        "seconds": round(time.perf_counter() - began, 1),
        **hardware.describe(),
    }
    print(f"{recipe.name} on {options.split}: {len(dataset)} images, {report['seconds']} s")
    print(_table(metrics, options.split))
    if changed := checkpoints.changed_data(recipe, segmenter.card, recipe.data):
        print(f"course_lib evaluate: {changed}", file=sys.stderr)
    return report


def run_predict(options: argparse.Namespace) -> dict[str, Any]:
    """Label images with a recipe's trained weights. For each image DIR gets <stem>.png, a 16-bit label map of the image's
    own size (instances where the recipe tells objects apart, classes otherwise), and overlays/<stem>.png for viewing. An
    image of more than 40 million pixels is read and predicted in windows, and gets a map of classes as a TIFF that programs
    can read in windows too, <stem>.tif. No image is overwritten."""
    if bool(options.split) == bool(options.images):
        raise ValueError("give either IMAGE files or --split, not both.")
    # Before Keras is loaded: what is plainly wrong is said at once.
    if not options.split:
        _check_images(options.images)
        _check_targets(options.out, [path.stem for path in options.images], options.images)

    from course_lib.datasets.reading import LARGE, LargeImage, pixel_count, read_image, write_labels
    from course_lib.files import replacing
    from course_lib.plot import overlay, save_image

    recipe = _recipe(options, options.recipe)
    if options.split:
        dataset = recipe.data(options.split)
        stems = [dataset[index].name.replace("/", "-") for index in range(len(dataset))]
        images: Any = (dataset[index].image for index in range(len(dataset)))
        _check_targets(options.out, stems, getattr(dataset, "files", ()))
    else:
        stems = [path.stem for path in options.images]

        # All are read once before the first is predicted: a bad file is named before any work is lost.
        def read(path: Path, notes: list[str] | None = None) -> Any:
            if (pixel_count(path) or 0) > LARGE:
                return LargeImage(path, recipe.channels())
            return read_image(path, recipe.channels(), notes)

        for path in options.images:
            notes: list[str] = []
            read(path, notes)
            for note in notes:
                print(f"{path.name}: {note}", file=sys.stderr)
        images = map(read, options.images)
    segmenter = _trained(options, recipe)
    (options.out / "overlays").mkdir(parents=True, exist_ok=True)
    unit = "objects" if segmenter.task.counts_objects else "classes"
    written = []
    for stem, image in _progress("predicting")(zip(stems, images, strict=True), len(stems)):
        if isinstance(image, LargeImage):
            entry = _predict_large(options, segmenter, image, stem)
            shown = f"{entry['labels']}  {entry['classes']} classes"
        else:
            labels = segmenter.predict(image)
            target = options.out / f"{stem}.png"
            with replacing(target) as unfinished:
                write_labels(unfinished, labels)
            with replacing(options.out / "overlays" / f"{stem}.png") as unfinished:
                save_image(unfinished, overlay(image, labels))
            count = int(labels.max()) if unit == "objects" else len(np.unique(labels))
            entry = {"image": stem, "labels": str(target), unit: count}
            shown = f"{target}  {count} {unit}"
        written.append(entry)
        if not options.json:
            print(shown, flush=True)
    return {"recipe": recipe.name, "written": written}


def _check_images(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name the image files in it, such as {path}/*.png.")
        if not path.exists():
            raise ValueError(f"{path}: there is no such file.")
        if not path.is_file():
            raise ValueError(f"{path} is not an ordinary file; name an image file.")


def _check_targets(out: Path, stems: Sequence[str], images: Sequence[Path]) -> None:
    """Refuse to write two label maps to one file, over an image that is read, or through a link."""
    seen: dict[str, str] = {}
    for stem in stems:
        key = disk_name(stem)
        if key in seen:
            raise ValueError(
                f"two images are called {stem!r}; one label map would overwrite the other. Rename one of them."
            )
        seen[key] = stem
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, a file; give a folder.")
    if (out / "overlays").is_symlink():
        raise ValueError(f"{out / 'overlays'} is a link; remove it, or give another --out.")
    read = {(status.st_dev, status.st_ino): path for path in images for status in [path.stat()]}
    for stem in stems:
        for target in (out / f"{stem}.png", out / f"{stem}.tif", out / "overlays" / f"{stem}.png"):
            if target.is_symlink():
                raise ValueError(f"{target} is a link; remove it, or give another --out.")
            if target.is_dir():
                raise ValueError(f"{target} is a folder; give another --out.")
            status = target.stat() if target.exists() else None
            if status and (image := read.get((status.st_dev, status.st_ino))):
                raise ValueError(f"{image} would be overwritten by its label map; give another --out.")


def _predict_large(options: argparse.Namespace, segmenter, image, stem: str) -> dict[str, Any]:
    """Write the class map of a large image as it is predicted, and a small overlay; returns what was written."""
    import tifffile

    from course_lib.files import replacing
    from course_lib.plot import overlay, save_image

    if segmenter.task.counts_objects:
        names = ", ".join(f"{k} = {name}" for k, name in enumerate(segmenter.class_names))
        print(f"{stem}: too large to number its objects; it gets a map of {names}.", file=sys.stderr)
    target = options.out / f"{stem}.tif"
    with replacing(target) as unfinished:
        labels = tifffile.memmap(unfinished, shape=image.shape[:2], dtype=np.uint8)
        segmenter.predict_large(image, labels, _progress(stem))
        labels.flush()
    step = -(-max(image.shape) // 2000)  # every so many pixels: something to look at
    small = slice(None, None, step)
    seen = np.concatenate([image[row : row + 1, small] for row in range(0, len(labels), step)])
    with replacing(options.out / "overlays" / f"{stem}.png") as unfinished:
        save_image(unfinished, overlay(seen, np.asarray(labels[small, small], np.int32)))
    # Strip by strip: all of it at once would be in memory eight times as large.
    found = set().union(*(np.unique(labels[top : top + 256]).tolist() for top in range(0, len(labels), 256)))
    return {"image": stem, "labels": str(target), "classes": len(found)}


def run_export(options: argparse.Namespace) -> dict[str, Any]:
    """Write a recipe's trained network as a file that other programs run, and FILE.json beside it: shapes, range,
    normalization, classes, thresholds. The file is then read by its own runtime and compared with the original on a
    synthetic image."""
    from course_lib import datasets, export
    from course_lib.datasets.loading import normalize

    segmenter = _trained(options)
    recipe, model = segmenter.recipe, segmenter.model
    written = export.export(
        model,
        options.out,
        options.format,
        recipe=recipe,
        thresholds=segmenter.thresholds,
        size=options.size,
        probabilities=options.probabilities,
    )
    print(
        f"{written.path}: {options.format}, {written.bytes / 1e6:.1f} MB; {written.sidecar} says how to use it"
    )
    # Another size than the recipe trains on, where the network allows it; both sides are multiples of 32.
    size = tuple(options.size or (96, 160))
    draw = datasets.cells if recipe.channels() == 1 else datasets.scenes
    image = normalize(draw("val", 1, size)[0].image, recipe.normalization)
    far = None
    if missing := export.missing_runtime(options.format):
        print(f"not compared with the original: {missing} is not installed")
    else:
        far = export.deviation(model, written.path, image[None])
        print(f"read again and compared on a synthetic image: differs by {far:.1e} at most")
        if not far <= export.TOLERANCE:
            raise RuntimeError(
                f"{written.path} differs from the model by {far:.1e}, more than {export.TOLERANCE:g}; do not use it, "
                "and report it."
            )
    report = {"recipe": recipe.name, "format": options.format, "path": str(written.path)}
    return report | {"sidecar": str(written.sidecar), "bytes": written.bytes, "deviation": far}


def _recipe(options: argparse.Namespace, text: str):
    from course_lib import own_recipes

    return own_recipes.find(text, options.classes, options.objects)


def _trained(options: argparse.Namespace, recipe=None):
    """The segmenter of the recipe named on the command line."""
    from course_lib import segmenter

    return segmenter.load(recipe or _recipe(options, options.recipe), options.checkpoints)


def _progress(what: str):
    """A progress bar on standard error where somebody watches, nothing elsewhere."""
    from tqdm import tqdm

    def wrap(iterable, total=None):
        return tqdm(iterable, desc=what, total=total, disable=not sys.stderr.isatty(), leave=False)

    return wrap


def _table(metrics: dict[str, float], split: str) -> str:
    width = max(map(len, metrics), default=0)
    return "\n".join(f"  {split} {name:<{width}}  {value:.4f}" for name, value in metrics.items())


def _devices(text: str) -> int | str:
    if text == "all" or (text.isdecimal() and int(text) > 0):
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError(f"{text} is neither 'all' nor a number of devices")


def _minutes(text: str) -> float:
    return positive(text, "minutes")


def positive(text: str, what: str, kind: type = float, zero: bool = False) -> Any:
    """A number of the command line above 0, or from 0 on."""
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = -1
    if not 0 <= value < float("inf") or (value == 0 and not zero):
        raise argparse.ArgumentTypeError(
            f"{text} is not a {'number of' if zero else 'positive number of'} {what}{' from 0 on' if zero else ''}"
        )
    return value
