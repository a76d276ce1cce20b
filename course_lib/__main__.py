"""The command line: `python -m course_lib COMMAND`, data, train, evaluate, predict, export, claims, cards, slides
or posters."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before Keras and its backend are loaded: TensorFlow's start-up notes are not about the course.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from course_lib import recipes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for what went wrong on the way, 2 for a wrong command line."""
    parser = _parser()
    options, left_over = parser.parse_known_args(arguments)
    if options.command == "predict" and not any(word.startswith("-") for word in left_over):
        # argparse takes positional words in one piece; people also write them after --out DIR.
        options.images += map(Path, left_over)
    elif left_over:
        parser.error(f"unrecognized arguments: {' '.join(left_over)}")
    from course_lib.datasets import DataError

    try:
        return options.run(options)
    except (DataError, ValueError, RuntimeError, OSError) as error:
        print(f"course_lib {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"course_lib {options.command}: stopped. The same command goes on where it was.", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m course_lib", description="The course's data, trainings and networks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    names = ", ".join(recipes.RECIPES | recipes.FOR_A_GPU)

    data = commands.add_parser("data", help="what real data is here; fetch it", description=run_data.__doc__)
    data.add_argument(
        "names", nargs="*", metavar="NAME", help="sets to fetch: nuclei, membranes, camvid; none: only look"
    )
    data.set_defaults(run=run_data)

    train = commands.add_parser("train", help="train a recipe", description=run_train.__doc__)
    train.add_argument("recipes", nargs="*", metavar="RECIPE", help=names)
    train.add_argument(
        "--all",
        action="store_true",
        help="every recipe whose weights are missing or stale; the large ones only where a GPU is found",
    )
    train.add_argument(
        "--minutes", type=_positive, help="stop after this time, between two epochs; the same command goes on"
    )
    train.add_argument(
        "--runs", type=Path, metavar="DIR", help="where unfinished runs are kept (default: runs/)"
    )
    train.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="where the weights go (default: data/checkpoints/)"
    )
    train.set_defaults(run=run_train)

    evaluate = commands.add_parser(
        "evaluate", help="measure a recipe's weights", description=run_evaluate.__doc__
    )
    evaluate.add_argument("recipe", metavar="RECIPE", help=names)
    evaluate.add_argument("--split", choices=("train", "val", "test"), default="val")
    evaluate.set_defaults(run=run_evaluate)

    predict = commands.add_parser("predict", help="label pictures", description=run_predict.__doc__)
    predict.add_argument("recipe", metavar="RECIPE", help=names)
    predict.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="picture files")
    predict.add_argument(
        "--split", choices=("train", "val", "test"), help="the recipe's own data instead of files"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the label maps go")
    predict.set_defaults(run=run_predict)

    export = commands.add_parser(
        "export", help="write a trained network for other programs", description=run_export.__doc__
    )
    export.add_argument("recipe", metavar="RECIPE", help=names)
    export.add_argument(
        "--format",
        choices=("keras", "saved_model", "onnx"),
        default="onnx",
        help="Keras's file, TensorFlow's folder, or ONNX, which most runtimes read (default)",
    )
    export.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="what to write: .onnx or .keras at its end, a folder for saved_model",
    )
    export.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="fix the pictures' size in pixels; a Mask R-CNN needs it",
    )
    export.add_argument("--probabilities", action="store_true", help="probabilities come out, not logits")
    export.set_defaults(run=run_export)

    claims = commands.add_parser(
        "claims", help="what the course measured of its claims", description=run_claims.__doc__
    )
    claims.add_argument(
        "--run",
        dest="claims",
        metavar="ID",
        action="append",
        help="measure this claim anew first, such as 4.1",
    )
    claims.set_defaults(run=run_claims)

    cards = commands.add_parser("cards", help="write the flashcards for Anki", description=run_cards.__doc__)
    cards.add_argument("--out", type=Path, required=True, metavar="FILE", help="a file that ends in .apkg")
    cards.set_defaults(run=run_cards)

    slides = commands.add_parser("slides", help="write notebooks as slides", description=run_slides.__doc__)
    slides.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="chapters, such as 03, or notebook files; none: all chapters",
    )
    slides.add_argument(
        "--out", type=Path, default=Path("slides"), metavar="DIR", help="where they go (default: slides/)"
    )
    slides.set_defaults(run=run_slides)

    posters = commands.add_parser(
        "posters", help="draw a page of each network", description=run_posters.__doc__
    )
    posters.add_argument(
        "names", nargs="*", metavar="NAME", help="unet, fcn, deeplab, mask-rcnn; none: all of them"
    )
    posters.add_argument("--out", type=Path, required=True, metavar="DIR", help="where they go")
    posters.set_defaults(run=run_posters)

    for command in (evaluate, predict, export):
        command.add_argument(
            "--checkpoints",
            type=Path,
            metavar="DIR",
            help="where the weights are (default: data/checkpoints/)",
        )
    grade = commands.add_parser(
        "grade", help="grade exercise notebooks that were handed in", description=run_grade.__doc__
    )
    grade.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the notebooks, in folders of their own if need be"
    )
    grade.add_argument("out", type=Path, metavar="OUT", help="where the tables and feedback/ go")
    grade.add_argument(
        "--seconds", type=float, default=60.0, help="time for an exercise (default: %(default)g)"
    )
    grade.add_argument(
        "--memory", type=float, default=4.0, help="GB for an exercise (default: %(default)g; Linux)"
    )
    grade.add_argument(
        "--hidden", type=Path, help='further inputs in a file of yours: CASES = {"01.2": [Case(...)]}'
    )
    grade.add_argument("--jobs", type=int, help="notebooks at a time (default: half of the processors)")
    grade.set_defaults(run=run_grade)

    release = commands.add_parser(
        "release",
        help="write the course as students get it, without solutions",
        description=run_release.__doc__,
    )
    release.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    release.set_defaults(run=run_release)

    for command in (data, train, evaluate, predict, export, claims, cards, slides, posters):
        command.add_argument(
            "--json", action="store_true", help="one JSON object as the last line of the output"
        )
    return parser


def run_data(options: argparse.Namespace) -> int:
    """Say which of the real data sets are here, and fetch the named ones (download, verify, unpack)."""
    from course_lib.datasets import archive

    for name in options.names:
        archive.ensure(name, progress=True)
    found = archive.status()
    if options.json:
        print(json.dumps({"sets": found}))
        return 0
    for entry in found:
        print(
            f"{entry['name']:<10} {entry['found']:<12} {', '.join(entry['splits']) or '-':<18} {entry['licence']}"
        )
    print(f"Looked in {' and '.join(found[0]['looked_in'])}.")
    for problem in dict.fromkeys(entry["problem"] for entry in found if entry["problem"]):
        print(problem)
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train recipes and write their weights and cards. A run that was stopped or killed goes on after its last epoch."""
    from course_lib import checkpoints, hardware, training

    chosen = [recipes.get(name) for name in options.recipes]
    if options.all:
        large = recipes.FOR_A_GPU if hardware.accelerators() else {}
        chosen = [
            recipe
            for recipe in (recipes.RECIPES | large).values()
            if checkpoints.is_missing(recipe, options.checkpoints)
        ]
        if not chosen:
            print("Nothing to train: every recipe has weights that belong to it.")
    elif not chosen:
        raise ValueError(f"no RECIPE given; name one or more of {', '.join(recipes.RECIPES)}, or --all.")
    started, cards = time.perf_counter(), []
    for recipe in chosen:
        spent = (time.perf_counter() - started) / 60
        if options.minutes and spent >= options.minutes:
            print(f"{recipe.name}: no time left; the same command goes on.", file=sys.stderr)
            break
        print(f"{recipe.name}: {recipe.title}", file=sys.stderr, flush=True)
        left = options.minutes - spent if options.minutes else None
        cards.append(training.train(recipe, options.runs, options.checkpoints, left))
        print(checkpoints.provenance(cards[-1]))
        print(_table(cards[-1]["val"], "val"))
    if options.json:
        print(json.dumps({"cards": cards}))
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Measure a recipe's trained weights on whole pictures of a split, with the thresholds that were chosen on val."""
    from course_lib import hardware

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
        "chosen": segmenter.thresholds,
        "digest": recipe.digest,
        "seconds": round(time.perf_counter() - began, 1),
        **hardware.describe(),
    }
    print(f"{recipe.name} on {options.split}: {len(dataset)} images, {report['seconds']} s")
    print(_table(metrics, options.split))
    if options.json:
        print(json.dumps(report))
    return 0


def run_predict(options: argparse.Namespace) -> int:
    """Label pictures with a recipe's trained weights. For each picture DIR gets <stem>.png, a 16-bit label map of the
    picture's own size (instances where the recipe tells objects apart, classes otherwise), and overlays/<stem>.png to
    look at. A picture of more than 40 million pixels is read and predicted in windows, and gets a map of classes as a TIFF
    that programs can read in windows too, <stem>.tif."""
    from course_lib.datasets.reading import LARGE, LargeImage, pixel_count, read_image, write_labels
    from course_lib.plot import overlay, save_image

    if bool(options.split) == bool(options.images):
        raise ValueError("give either IMAGE files or --split, not both and not neither.")
    recipe = recipes.get(options.recipe)
    if options.split:
        dataset = recipe.data(options.split)
        stems = [dataset[index].name for index in range(len(dataset))]
        pictures: Any = (dataset[index].image for index in range(len(dataset)))
    else:
        stems = [path.stem for path in options.images]
        if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise ValueError(
                f"two pictures are called {twice[0]!r}; their label maps would overwrite each other. Rename one."
            )

        # All are read once before the first is predicted: a bad file is named before any work is lost.
        def read(path: Path) -> Any:
            large = (pixel_count(path) or 0) > LARGE
            return (LargeImage if large else read_image)(path, recipe.channels())

        for path in options.images:
            read(path)
        pictures = map(read, options.images)
    segmenter = _trained(options)
    (options.out / "overlays").mkdir(parents=True, exist_ok=True)
    unit = "objects" if segmenter.task.counts_objects else "classes"
    written = []
    for stem, image in _progress("predicting")(zip(stems, pictures, strict=True), len(stems)):
        if isinstance(image, LargeImage):
            entry = _predict_large(options, segmenter, image, stem)
            written.append(entry)
            if not options.json:
                print(f"{entry['labels']}  {entry['classes']} classes", flush=True)
            continue
        labels = segmenter.predict(image)
        target = options.out / f"{stem}.png"
        write_labels(target, labels)
        save_image(options.out / "overlays" / f"{stem}.png", overlay(image, labels))
        count = int(labels.max()) if unit == "objects" else len(set(labels.ravel().tolist()))
        written.append({"image": stem, "labels": str(target), unit: count})
        if not options.json:
            print(f"{target}  {count} {unit}", flush=True)
    if options.json:
        print(json.dumps({"recipe": recipe.name, "written": written}))
    return 0


def _predict_large(options: argparse.Namespace, segmenter, picture, stem: str) -> dict[str, Any]:
    """Write the class map of a large picture as it is predicted, and a small overlay; returns what was written."""
    import numpy as np
    import tifffile

    from course_lib.plot import overlay, save_image

    if segmenter.task.counts_objects:
        print(f"{stem}: too large to number its objects; it gets a map of "
            f"{', '.join(f'{k} = {name}' for k, name in enumerate(segmenter.class_names))}.",
            file=sys.stderr,
        )  # fmt: skip
    target, unfinished = options.out / f"{stem}.tif", options.out / f".{stem}.{os.getpid()}.tif"
    try:
        labels = tifffile.memmap(unfinished, shape=picture.shape[:2], dtype=np.uint8)
        segmenter.predict_large(picture, labels, _progress(stem))
        labels.flush()
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    step = -(-max(picture.shape) // 2000)  # every so many pixels: something to look at
    small = slice(None, None, step)
    image = np.concatenate([picture[row : row + 1, small] for row in range(0, len(labels), step)])
    save_image(
        options.out / "overlays" / f"{stem}.png", overlay(image, np.asarray(labels[small, small], np.int32))
    )
    # Strip by strip: all of it at once would be in memory eight times as large.
    found = set().union(*(np.unique(labels[top : top + 256]).tolist() for top in range(0, len(labels), 256)))
    return {"image": stem, "labels": str(target), "classes": len(found)}


def run_export(options: argparse.Namespace) -> int:
    """Write a recipe's trained network as a file that other programs run, and FILE.json beside it: shapes, range,
    normalization, classes, thresholds. It is then read by its own runtime and compared with the original on a drawn
    picture."""
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
    picture = normalize(draw("val", 1, size)[0].image, recipe.normalization)
    far = None
    if missing := export.missing_runtime(options.format):
        print(f"not compared with the original: {missing} is not installed")
    else:
        far = export.deviation(model, written.path, picture[None])
        print(f"read again and compared on a drawn picture: off by {far:.1e} at most")
        if not far <= export.TOLERANCE:
            raise RuntimeError(
                f"{written.path} is off by {far:.1e}, more than {export.TOLERANCE:g}; do not use it, and report it."
            )
    if options.json:
        report = {"recipe": recipe.name, "format": options.format, "path": str(written.path)}
        report |= {"sidecar": str(written.sidecar), "bytes": written.bytes, "deviation": far}
        print(json.dumps(report))
    return 0


def run_claims(options: argparse.Namespace) -> int:
    """Print what was measured of the notes' claims: the effect with its 95 % interval, and the verdict."""
    from dataclasses import asdict

    from course_lib.teaching import discovery, ledger

    if unknown := [claim for claim in options.claims or () if claim not in discovery.claims()]:
        raise ValueError(f"--run {unknown[0]}: there are experiments for {', '.join(discovery.claims())}.")
    for claim in options.claims or ():
        ledger.run(claim, lambda line: print(line, file=sys.stderr, flush=True))
    results = [ledger.read(path.stem) for path in sorted(ledger.FOLDER.glob("[0-9].[0-9].json"))]
    for result in results:
        print(f"{result.claim}  {result.statement}\n     {result.verdict}: {result.teacher}")
        if result.interval is None:
            print(f"     demonstrated: {result.effect}")
        else:
            print(f"     {result.effect}: {result.interval}, {result.repetitions} runs")
    if options.json:
        print(json.dumps({"claims": [asdict(result) for result in results]}))
    return 0


def run_cards(options: argparse.Namespace) -> int:
    """Write the flashcards of all chapters as a deck that Anki imports; imported again, no card is there twice."""
    from course_lib.teaching import anki

    count = anki.write(options.out)
    print(f"{options.out}: {count} cards")
    if options.json:
        print(json.dumps({"deck": str(options.out), "cards": count}))
    return 0


def run_posters(options: argparse.Namespace) -> int:
    """Draw a poster of each network, read off the live model as published: DIR/<name>.svg and DIR/<name>.pdf, a page of
    size A3 each, with its shapes, its numbers and how to read it. The networks are built for it, one after the other; the
    largest takes about 1 GB of memory."""
    from course_lib.teaching import posters

    written = []
    for path in posters.write(options.out, options.names):
        print(path, flush=True)
        written.append(str(path))
    if options.json:
        print(json.dumps({"posters": written}))
    return 0


def run_grade(options: argparse.Namespace) -> int:
    """Grade exercise notebooks, each exercise in a process of its own: grades.csv, tables for Moodle and Canvas, and a
    page of feedback for each. What was handed in runs with your rights: docs/teaching.md says how to shut it in."""
    from course_lib.teaching import grading

    grading.grade(
        options.folder,
        options.out,
        seconds=options.seconds,
        memory_gb=options.memory,
        hidden=options.hidden,
        jobs=options.jobs,
    )
    return 0


def run_release(options: argparse.Namespace) -> int:
    """Write the course's folder as students get it: without the solutions, the tests, and what grades."""
    from course_lib.teaching import grading

    print(grading.release(options.out))
    return 0


def run_slides(options: argparse.Namespace) -> int:
    """Write notebooks as slides, with the outputs that they hold: for each DIR/<stem>.html, one file with its pictures,
    formulas and speaker notes inside, which any browser shows without a network. Press ? in it for the keys."""
    from course_lib.teaching import slides

    # All are read before the first is written: a notebook that cannot become slides is named before anything changes.
    decks = [(path, slides.read(path)) for path in slides.chapters(options.notebooks)]
    written = []
    for path, deck in decks:
        target = options.out / f"{path.stem}.html"
        slides.write(deck, target)
        for warning in deck.warnings:
            print(f"course_lib slides: {warning}", file=sys.stderr)
        print(f"{target}: {len(deck.slides)} slides", flush=True)
        written.append({"slides": str(target), "count": len(deck.slides), "warnings": deck.warnings})
    if options.json:
        print(json.dumps({"written": written}))
    return 0


def _trained(options: argparse.Namespace):
    """The segmenter of the recipe named on the command line."""
    from course_lib import segmenter

    return segmenter.load(recipes.get(options.recipe), options.checkpoints)


def _progress(what: str):
    """A progress bar on standard error where somebody watches, nothing elsewhere."""
    from tqdm import tqdm

    def wrap(iterable, total=None):
        return tqdm(iterable, desc=what, total=total, disable=not sys.stderr.isatty(), leave=False)

    return wrap


def _table(metrics: dict[str, float], split: str) -> str:
    width = max(map(len, metrics), default=0)
    return "\n".join(f"  {split} {name:<{width}}  {value:.4f}" for name, value in metrics.items())


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of minutes")
    return value


if __name__ == "__main__":
    sys.exit(main())
