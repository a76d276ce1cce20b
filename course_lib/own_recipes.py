"""Your own recipes for the command line: a Python file that contains one, or a folder of images and labels."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from course_lib import datasets, recipes
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.folder import files_below, roots_of
from course_lib.datasets.reading import read_image, read_labels
from course_lib.recipes import Recipe
from course_lib.tasks import Borders, Semantic

FORM = "the name of a shipped recipe, a Python file that holds a Recipe, or a folder with images/ and labels/"
LABELS = (".png", ".tif", ".tiff", ".bmp", ".gif")
MOST_CLASSES = 64
"""More values than that in the labels are taken for numbered objects."""


def find(text: str, classes: Sequence[str] = (), objects: bool = False) -> Recipe:
    """The recipe that a word of the command line means: see `FORM`.

    Args:
        text: a name or a path; of a file with several recipes, `FILE.py:NAME`.
        classes: of a folder, the names of the classes in the order of their ids.
        objects: of a folder, whether its labels number objects.

    Raises:
        ValueError: if there is none, or more than one.
    """
    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if Path(file).suffix == ".py":
        return _of_file(Path(file), name)
    if text in recipes.RECIPES | recipes.FOR_A_GPU or not Path(text).exists():
        return recipes.get(text)
    if Path(text).is_dir():
        return of_folder(Path(text), classes, objects)
    raise ValueError(f"{text} is a file; a recipe is {FORM}.")


def _of_file(file: Path, name: str) -> Recipe:
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file.")
    try:
        found = runpy.run_path(str(file))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{file} cannot be run ({type(error).__name__}: {error}).") from error
    held = {key: value for key, value in found.items() if isinstance(value, Recipe)}
    if name:
        if name not in held:
            raise ValueError(f"{file} contains no recipe {name!r}; it contains {', '.join(held) or 'none'}.")
        return held[name]
    if len({id(one) for one in held.values()}) != 1:
        what = f"{len(held)} recipes ({', '.join(held)}); name one, {file}:NAME" if held else "no Recipe"
        raise ValueError(f"{file} holds {what}.")
    return next(iter(held.values()))


def of_folder(folder: Path, classes: Sequence[str] = (), objects: bool = False) -> Recipe:
    """A recipe that suits most small data sets: a U-Net of depth 3, normalized contrast, flips and quarter turns.

    Args:
        folder: holds `images/` and `labels/` (see `datasets.folder`).
        classes: the names of the classes in the order of their ids; by default as many as the labels hold.
        objects: whether the labels number the objects of one class.

    Raises:
        ValueError: if the labels cannot be read, or don't fit `classes`.
    """
    folder = folder.resolve()
    try:
        images, files = (
            _files(folder, "images"),
            [file for file in _files(folder, "labels") if file.suffix.lower() in LABELS],
        )
    except ValueError:  # one of the two is nowhere
        files = []
    if not files:
        raise ValueError(
            f"{folder} is not a folder of data; put the images in its images/ and the label files in its labels/."
        )
    data = {"path": str(folder)}
    if objects:
        data |= {"class_names": tuple(classes) or ("background", "object"), "kind": "instances"}
    else:
        ids = set()
        for file in files:
            labels = read_labels(file)
            ids |= set(np.unique(labels).tolist())
            if len(ids) > MOST_CLASSES:
                raise ValueError(
                    f"{folder}: the labels contain more than {MOST_CLASSES} different numbers. If they number objects, add "
                    "--objects; if they are classes, write a recipe of your own in Python."
                )
        known = sorted(ids)
        if (
            255 in ids
            and len(ids) > 2
            and known[:-1] != list(range(len(known) - 1))
            and len(classes) != len(known)
        ):
            raise ValueError(
                f"{folder}: the labels hold {known}, and 255 may be a class or mark what shall not count. If it is one of "
                f"{len(known)} classes, name all of them, --classes …; else write a recipe of your own in Python."
            )
        if 255 in ids and len(ids) > 2 and known[:-1] == list(range(len(known) - 1)):
            data["ignore"] = 255
            known.remove(255)
        if known != list(range(len(known))):
            data["values"] = {value: k for k, value in enumerate(known)}
        count = max(2, len(known), len(classes))
        names = tuple(classes) or ("background", *(f"class {k}" for k in range(1, count)))
        if len(names) < len(known):
            raise ValueError(f"--classes names {len(names)} classes; the labels hold {len(known)}: {known}.")
        data["class_names"] = names
    data["channels"] = 1 if _grey(images) else 3
    first = datasets.folder("all", **data)
    if first.report.notes or first.report.ignored:
        print(first.report, file=sys.stderr)
    smallest = min(min(sample.image.shape[:2]) for sample in first)
    side = max(16, min(128, smallest // 16 * 16))
    return Recipe(
        name=folder.name,
        title=f"U-Net on the images of {folder.name}",
        dataset=datasets.folder,
        train_data=data,
        network_arguments={"base_filters": 16, "depth": 3, "normalization": "batch"},
        task=Borders(
            choices={"seed_threshold": (0.3, 0.5, 0.7), "mask_threshold": (0.4, 0.5, 0.6)},
            choose_by="ap_mean",
        )
        if objects
        else Semantic(),
        normalization="stretch",
        augmentation=Augmentation(flip=True, turn=True, gain=0.1, offset=0.05),
        loss=recipes.CrossEntropy() + recipes.Dice(),
        epochs=20,
        steps=50,
        crop=(side, side),
        learning_rate=2e-3,
    )


def _files(folder: Path, part: str) -> list[Path]:
    return [file for root in roots_of(folder, part, part).values() for file in files_below(root)]


def _grey(files: Sequence[Path]) -> bool:
    """Whether the first image that can be read has no colours."""
    for file in files:
        try:
            image = read_image(file, 3)
        except ValueError:
            continue
        return bool(np.ptp(image, axis=-1).max() < 1e-3)
    return False
