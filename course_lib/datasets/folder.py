"""Your own images: a folder of images and label files as a data set, checked completely before training.

    mine/
      images/  a.png  b.jpg  c.tif
      labels/  a.png  b.png  c.png      the class (or the object) of each pixel, as a number

Most of what goes wrong with a label file (another size, colours in place of ids, a lossy format, an id that does not exist)
trains without an error and shows weeks later as a poor score. So all files are read once, and everything that is wrong is
said at once, file by file. COCO's JSON is read by `course_lib.datasets.coco_json`, with the same checks and report.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from course_lib._checks import one_of, whole_number
from course_lib.datasets import reading
from course_lib.datasets.checked import (
    Entry,
    FolderDataset,
    GroundTruth,
    Problem,
    Report,
    Source,
    assign,
    checked_channels,
    checked_class_names,
    composed,
    existing_folder,
    numbered,
    options_of,
)
from course_lib.datasets.reading import ENDINGS, Unusable
from course_lib.datasets.sample import IGNORE

KINDS = ("semantic", "instances")
OUTLINES = (".json", ".xml", ".txt")
"""Endings of files in which annotation tools keep outlines."""
OF_SYSTEMS = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"),
    *("system volume information", "lost+found"),
}
"""What systems and network disks leave behind, besides names that begin with a dot; in small letters."""


# A folder of images and labels --------------------------------------------------------------------------------


def folder_source(
    path: str | Path,
    class_names: Sequence[str],
    *,
    kind: str = "semantic",
    channels: int = 3,
    ignore: int | None = None,
    values: Mapping[int, int] | None = None,
    suffix: str = "",
    images: str = "images",
    labels: str = "labels",
    image_names: str = "{}",
    label_names: str = "{}",
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
) -> Source:
    """The files of a folder; the arguments are those of `folder`."""
    classes = checked_class_names(class_names)
    one_of("kind", kind, KINDS)
    if kind == "instances" and len(classes) != 2:
        raise ValueError(
            f"class_names has {len(classes)} names; a label file that numbers objects has only one class besides the "
            "background. For objects of several classes use COCO's JSON (datasets.coco)."
        )
    if suffix and label_names != "{}":
        raise ValueError(f"suffix is {suffix!r}; it must be left out where label_names is given.")
    label_names = label_names.replace("{}", "{}" + suffix, 1)
    for argument, pattern in (("image_names", image_names), ("label_names", label_names)):
        if pattern.count("{}") != 1:
            raise ValueError(
                f"{argument} is {pattern!r}; it must contain {{}} once, for the name, such as 'mask_{{}}'."
            )
    ignore = None if ignore is None else _checked_ignore(ignore)
    values = None if values is None else _checked_values(values)
    place = existing_folder(path)
    image_roots, label_roots = roots_of(place, "images", images), roots_of(place, "labels", labels)
    if image_roots == label_roots and image_names == label_names:
        raise ValueError(
            f"images and labels are both {images!r}; then every image would be its own label. Say how labels are called, "
            "such as label_names='{}_mask'."
        )
    problems, notes = [], []
    found, other = _files(place, image_roots, label_roots, image_names, label_names, problems)
    masks, other_labels = _files(place, label_roots, image_roots, label_names, image_names, problems)
    used = {*found.values(), *masks.values()}
    lefts = {images: other, labels: other_labels}  # one list where both lie in one folder
    for part, left in lefts.items():
        if left := [file for file in left if file not in used]:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            reason = "no image of that name" if any(map(_looks_like_an_image, left)) else "no image"
            notes.append(f"{part}/: not read, {reason}: {', '.join(file.name for file in left[:3])}{more}")
    if not found:
        problems.append(Problem(f"{images}/", "holds no image", f"Put files there: {', '.join(ENDINGS)}"))
    missing = [name for name in found if name not in masks]
    unused = [name for name in masks if name not in found]
    candidates = [*unused, *(file.stem for file in other_labels if _looks_like_an_image(file))]
    hint = _pattern_hint(
        [name.split("/")[-1] for name in missing], [name.split("/")[-1] for name in candidates]
    )
    nearly = {_folded(name): _shown(masks[name], place) for name in unused}
    in_folder = Counter(name.rpartition("/")[0] for name in unused)
    drawn = _drawn(other, other_labels)
    unread = {  # photographs of a phone, files of a microscope
        composed(file.stem): file.name
        for file in other
        if not _looks_like_an_image(file) and file.suffix.lower() not in OUTLINES
    }
    entries = []
    for name, file in found.items():
        shown = _shown(file, place)
        if name not in masks:
            *parent, last = name.split("/")
            if len(label_roots) > 1 or "" not in label_roots:  # labels/ lies in the first folder, train/
                parent.insert(1, labels)
            else:
                parent.insert(0, labels)
            wanted = "/".join([*parent, label_names.replace("{}", last) + ".png"])
            fix = (
                hint or "Draw it, or move the image elsewhere; an image without objects has a label of zeros"
            )
            above = name.rpartition("/")[0]
            if not hint and last in drawn:
                fix = drawn[last]
            elif not hint and _folded(name) in nearly:
                fix = (
                    f"{nearly[_folded(name)]} has nearly this name: both need the same folders below {images}/ and "
                    f"{labels}/, and the same small and capital letters"
                )
            elif not hint and above and in_folder[above] > 1:  # as in the Data Science Bowl of 2018
                fix = "If each object has a file of its own, number them in one label map; kind='instances' reads it"
            problems.append(Problem(shown, f"has no label: there is no {wanted}", fix, (name,)))
            continue

        def read(size, label=masks[name]):
            return read_ground_truth(label, size, len(classes), kind, ignore, values)

        entries.append(Entry(name, file, shown, _shown(masks[name], place), read, masks[name]))
    for name in unused:
        what = f"belongs to no image: there is no {image_names.replace('{}', name)!r} in {images}/"
        fix = hint or "Name both alike, or move the label elsewhere"
        if not hint and name.split("/")[-1] in unread:
            fix = f"Save {unread[name.split('/')[-1]]} as PNG, JPEG or TIFF"
        problems.append(Problem(_shown(masks[name], place), what, fix))
    chosen, wrong = assign([entry.name for entry in entries], splits, group)
    problems += wrong
    return Source(
        place.resolve().name,
        classes,
        checked_channels(channels),
        entries,
        chosen,
        problems,
        notes,
        len(found),
    )


@options_of(folder_source)
def folder(
    split: str,
    path: str | Path,
    class_names: Sequence[str],
    *,
    skip: bool = False,
    check: bool = True,
    **options,
) -> FolderDataset:
    """Your own images with label files of the same names, as a data set like the others.

    Files lie in the two folders or below them; a sample's name is the path from there on, without ending, such as
    `"dish-a/field-3"`. What a file may hold is in `docs/formats.md`.

    Args:
        split: `"train"`, `"val"`, `"test"`, or `"all"`.
        path: the folder that holds the folders of `images` and of `labels`.
        class_names: one name for each class id, background first where there is one.
        kind: what a label file holds: `"semantic"`, the class of each pixel; or `"instances"`, 0 for background and another
            number for each object of the one class that there is then besides the background.
        channels: 1 (colours become brightness) or 3 (grey is repeated).
        ignore: the value of pixels that shall count neither in a loss nor in a score, such as 255.
        values: value in the file → class id (or, for instances, object), where the two are not the same:
            `{0: 0, 255: 1}` for masks in black and white; or → -1, for further values that shall not count.
        suffix: what label files have at the end of their stem, such as `"_mask"`; short for `label_names="{}_mask"`.
        images, labels: the two folders; they may be one. They may also lie in folders of `path`: `train/images`,
            `train/labels`, `valid/images`, …
        image_names, label_names: how the files are called, without ending; `{}` is what an image and its label have in
            common: `"{}_leftImg8bit"` and `"{}_gtFine_labelIds"` for Cityscapes; `"{}/img"` and `"{}/label"` where each
            image has a folder of its own.
        splits: lists of names for each split. By default folders called train, val and test decide, if all images lie in
            such, and else the checksum of the name.
        group: from a name to what must stay together in one split (the slices of a patient, the frames of a drive):
            a function, or a regular expression whose match is the group.
        skip: leave out what cannot be used, and keep the report, instead of raising.
        check: read all files of all splits first. Off for a large folder that has been checked before.

    Returns:
        A `Dataset` with the samples in the order of their names; its `report` says what was found. Images are float32
        `(height, width, channels)` in 0..1 and may be of different sizes.

    Raises:
        FolderProblems: if any file cannot be used; lists all of them, with what is wrong and what to do.
        ValueError: if an argument is not one of the above, or the split is empty.
    """
    return folder_source(path, class_names, **options).dataset(split, skip, check)


@options_of(folder_source)
def check_folder(path: str | Path, class_names: Sequence[str], **options) -> Report:
    """Read every file of a folder and say all that is wrong; the arguments are those of `folder`.

    Returns:
        A `Report`; `print` it.

    Raises:
        ValueError: if an argument is not one that `folder` takes; a bad file is no error here.
    """
    return folder_source(path, class_names, **options).report()


def _checked_ignore(ignore: int) -> int:
    if isinstance(ignore, (list, tuple, set, np.ndarray)):
        raise TypeError(
            f"ignore is {ignore!r}; it must be one number. Map further values to -1: values={{…: -1}}."
        )
    return whole_number("ignore", ignore)


def _checked_values(values: Mapping[int, int]) -> dict[int, int]:
    if not isinstance(values, Mapping):
        raise TypeError(
            f"values is {values!r}; it must map values in the file to ids, such as {{0: 0, 255: 1}}."
        )
    return {
        whole_number("values: a value in the file", value): whole_number(f"values[{value!r}]", number)
        for value, number in values.items()
    }


def roots_of(place: Path, argument: str, part: str) -> dict[str, Path]:
    """Where a part lies: `{"": place/part}`, or what lies in folders of `place`, such as `{"train/": place/train/part}`; a
    `ValueError` with the folders that there are, if it is nowhere."""

    def folders(path: Path) -> list[Path]:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not _of_a_system(entry.name))

    if (place / part).is_dir():
        return {"": place / part}
    below = folders(place)
    for entry in below:  # the disk may have the name in another Unicode form
        if composed(entry.name) == composed(part):
            return {"": entry}
    if inside := {f"{entry.name}/": entry / part for entry in below if (entry / part).is_dir()}:
        return inside
    if (place.parent / part).resolve() == place.resolve():
        raise ValueError(
            f"path is the folder of {argument} itself, {place.name}; it must be the folder above it."
        )
    there = ", ".join(f"{entry.name}/" for entry in below[:5]) or "none"
    if deeper := folders(below[0]) if below else []:
        there += f"; in {below[0].name}/: {', '.join(f'{entry.name}/' for entry in deeper[:5])}"
    raise ValueError(
        f"{argument} is {part!r}; {place.name} has no such folder (it has: {there}); name the right one, {argument}=…. "
        "Where images and labels lie in one folder: images='.', labels='.', label_names='{}_mask'."
    )


def _of_a_system(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in OF_SYSTEMS


def _looks_like_an_image(file: Path) -> bool:
    """By its ending, or by what it holds if it has none."""
    return file.suffix.lower() in ENDINGS or (not file.suffix and reading.pixel_count(file) is not None)


def _shown(file: Path, place: Path) -> str:
    return (file.relative_to(place) if file.is_relative_to(place) else file).as_posix()


def _folded(name: str) -> str:
    """The last part of a name, without what the eye does not tell apart."""
    return unicodedata.normalize("NFKC", name.split("/")[-1]).casefold().strip()


def files_below(root: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """All files below a folder, in order; links to folders are gone into, but for those that lead back to one `above`."""
    real, files = root.resolve(), []
    for entry in root.iterdir() if real not in above else ():
        if entry.is_dir() and not _of_a_system(entry.name):
            files += files_below(entry, (*above, real))
        elif not _of_a_system(entry.name):
            files.append(entry)
    return sorted(files)


def _files(
    place: Path,
    roots: Mapping[str, Path],
    other_roots: Mapping[str, Path],
    pattern: str,
    other_pattern: str,
    problems: list[Problem],
) -> tuple[dict[str, Path], list[Path]]:
    """name → file of the images below folders, in order, and the files that are none; two of one name are told of."""
    found: dict[str, Path] = {}
    left = []
    before, after = (composed(affix) for affix in pattern.split("{}"))
    others = set(other_roots.values())
    # Small and capital letters are told apart: on some systems a.png and A.png are two files.
    for prefix, root, file in ((*pair, file) for pair in roots.items() for file in files_below(pair[1])):
        if any(other != root and root in other.parents and other in file.parents for other in others):
            continue
        whole = composed(prefix + file.relative_to(root).with_suffix("").as_posix())
        # A pattern with a slash is one of folders too.
        parent = "" if "/" in pattern else whole[: whole.rfind("/") + 1]
        stem = whole[len(parent) :]
        fits = stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after)
        if root in others and pattern == "{}" and other_pattern != "{}":  # images and labels in one folder
            first, last = map(composed, other_pattern.split("{}"))
            if stem.startswith(first) and stem.endswith(last):
                continue
        if not _looks_like_an_image(file) or not fits:
            left.append(file)
            continue
        name = parent + stem[len(before) : len(stem) - len(after)]
        if not file.is_file():
            what = "is a link to a file that is not there" if file.is_symlink() else "is no ordinary file"
            problems.append(Problem(_shown(file, place), what, "Put the file there, or remove it", (name,)))
        elif name in found:
            what = f"has the same name as {found[name].name}"
            fix = "Rename or remove one; files belong together by their names without ending"
            problems.append(Problem(_shown(file, place), what, fix, (name,)))
        else:
            found[name] = file
    return found, left


def _drawn(beside_images: Sequence[Path], beside_labels: Sequence[Path]) -> dict[str, str]:
    """The last part of a name → what to do with the file of that name that is no image."""
    fixes = {}
    for file in (*beside_images, *beside_labels):
        if _looks_like_an_image(file):
            continue
        stem = Path(composed(file.stem))
        name = stem.stem if stem.suffix.lower() in ENDINGS else stem.name  # Supervisely: a.png.json
        if file.suffix.lower() in OUTLINES:
            fixes[name] = (
                f"Export the outlines of {file.name} as PNG masks, or as COCO's JSON for datasets.coco"
            )
        elif file in beside_labels:
            fixes[name] = f"Save {file.name} as a PNG or TIFF of ids"
    return fixes


def _pattern_hint(images: Sequence[str], labels: Sequence[str]) -> str:
    """What to pass so that most images find their labels, if one pattern does: "Pass label_names='{}_mask'"."""
    images = images[:20]
    votes: Counter = Counter()
    for image in images:
        votes.update({_patterns(image, label) for label in labels[:2000]} - {("{}", "{}")})
    # What two names have in common by accident is no pattern; that one holds the other whole is.
    found = [
        patterns
        for patterns, count in votes.items()
        if count == max(votes.values())
        and 2 * count >= len(images)
        and (patterns[0] == "{}" != patterns[1] or count > 1)
    ]
    if not found:
        return ""
    (image_names, label_names), *others = sorted(found)
    first = f"image_names={image_names!r}, " if image_names != "{}" else ""
    also = ", ".join(repr(other) for names, other in others[:3] if names == image_names)
    return f"Pass {first}label_names={label_names!r}" + (f" (or {also})" if also else "")


def _patterns(image: str, label: str) -> tuple[str, str]:
    """The patterns by which two names have their longest beginning or end in common, or the first all of itself."""
    if image in label:
        return "{}", label.replace(image, "{}", 1)
    first = len(os.path.commonprefix([image, label]))
    last = len(os.path.commonprefix([image[::-1], label[::-1]]))
    if first >= last:
        return "{}" + image[first:], "{}" + label[first:]
    return image[:-last] + "{}", label[:-last] + "{}"


# Label files --------------------------------------------------------------------------------------------------


def read_ground_truth(
    path: Path,
    size: tuple[int, int],
    num_classes: int,
    kind: str,
    ignore: int | None,
    values: Mapping[int, int] | None,
) -> GroundTruth:
    """The ground truth in a label file, for an image of `(height, width)`; raises `Unusable` with all that is wrong."""
    known = None
    if values is not None or kind == "semantic":
        known = {*(range(num_classes) if values is None else values), ignore}
    ids, faults = reading.read_labels(path, known, values is not None), []
    if ids.shape != size:
        advice = "Export image and labels in one size, the labels without interpolation"
        if ids.shape == size[::-1]:
            advice = "One of the two is turned by 90 degrees; images are turned as their EXIF data says: turn labels too"
        faults.append(
            (
                f"is {ids.shape[0]} × {ids.shape[1]} pixels (height × width), its image {size[0]} × {size[1]}",
                advice,
            )
        )
    ignored = np.zeros(ids.shape, bool) if ignore is None else ids == ignore
    if values is not None:
        mentioned = np.isin(ids, list(values)) | ignored
        if not mentioned.all():
            fix = "Add it to values, or correct the file"
            faults.append((f"holds {_listed(ids[~mentioned])}, which values does not mention", fix))
        mapped = np.zeros_like(ids)
        for value, number in values.items():
            mapped[ids == value] = number
        ignored |= mapped == IGNORE
        ids = mapped
    outside = (ids < 0) & ~ignored
    if kind == "semantic":
        outside |= (ids >= num_classes) & ~ignored
    if outside.any():
        most = f"with {num_classes} class names labels run from 0 to {num_classes - 1}"
        most = most if kind == "semantic" else "objects are numbered from 1 on"
        faults.append((f"holds {_listed(ids[outside])}, but {most}", _advice(ids, outside)))
    if faults:
        raise Unusable(*faults[0], *faults[1:])
    if kind == "semantic":
        return GroundTruth(np.where(ignored, IGNORE, ids).astype(np.int32), None, np.zeros(0, np.int32))
    numbers, instances = np.unique(np.where(ignored, 0, ids), return_inverse=True)
    instances = (instances.reshape(ids.shape) + (numbers[0] != 0)).astype(np.int32)
    semantic = np.where(ignored, IGNORE, instances > 0).astype(np.int32)
    note = ""
    if instances.max() == 1 and ndimage.label(instances, np.ones((3, 3)))[1] > 1:
        note = "one number in several pieces; if each piece is an object, number them: skimage.measure.label"
    return GroundTruth(semantic, instances, np.ones(instances.max(), np.int32), note=note)


def _advice(ids: np.ndarray, outside: np.ndarray) -> str:
    if set(np.unique(ids)) <= {0, 255}:
        return "If it is a mask in black and white, pass values={0: 0, 255: 1}"
    if np.unique(ids[outside]).tolist() == [255]:
        return "If 255 marks pixels that should not count, pass ignore=255"
    return (
        "Name the missing class, or correct the label; pixels that should not count get one value, given as ignore "
        "(or -1 in values)"
    )


def _listed(values: np.ndarray, most: int = 3) -> str:
    """`"the label 9 (12 pixels)"`, or the first few of them."""
    found, counts = np.unique(values, return_counts=True)
    named = ", ".join(
        f"{value} ({numbered(n, 'pixel')})" for value, n in zip(found[:most], counts[:most], strict=True)
    )
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"the label{'s' * (len(found) > 1)} {named}{more}"
