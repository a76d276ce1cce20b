"""Objects in the format of COCO (Lin et al., "Microsoft COCO: Common Objects in Context", 2014): one JSON for a folder of
pictures, as most annotation tools export it.

`images` lists the files, `categories` the classes, `annotations` one object each: its picture, its category, and its
outline, as polygons or as runs (RLE, plain or in COCO's letters). Such a file comes from elsewhere, so nothing in it is
believed: types, ids, names of files, numbers of pixels are checked, and each fault is said with where it stands.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from skimage.draw import polygon as pixels_of_polygon

from course_lib.datasets.folder import (
    Entry,
    FolderDataset,
    FolderProblems,
    Problem,
    Report,
    Source,
    Truth,
    assign,
    checked_channels,
    checked_class_names,
    existing_folder,
)
from course_lib.datasets.reading import Unusable
from course_lib.datasets.sample import IGNORE
from course_lib.datasets.splits import SPLITS

BACKGROUND = "background"
SLACK = 1.0
"""Pixels by which an outline or a box may reach over the edge: tools round."""


def coco(
    split: str,
    path: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    images: str | Path | None = None,
    channels: int = 3,
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
    skip: bool = False,
    check: bool = True,
) -> FolderDataset:
    """One's own pictures with objects in COCO's JSON, as a data set like the others.

    Where two objects claim a pixel, the smaller one keeps it, as for `nuclei`. A region that is marked as a crowd
    (`iscrowd`) is one that nobody has told apart: its pixels become -1 in the semantic map and belong to no object.

    Args:
        split: `"train"`, `"val"`, `"test"`, or `"all"`.
        path: the JSON file.
        class_names: background first, then names of categories in the order of the ids that they shall have; objects of
            other categories are left out. By default all categories in the order of their ids in the file.
        images: the folder of the pictures; by default `images` beside the JSON file, or else that file's own folder.
        channels, splits, group, skip, check: as for `folder`. A sample's name is the file's, without its ending.

    Returns:
        A `Dataset`; pictures without any object are part of it.

    Raises:
        FolderProblems: if the file or a picture cannot be used; lists all that is wrong, and what to do.
        ValueError: if an argument is not one of the above, or the split is empty.
    """
    return _coco_source(path, class_names, images, channels, splits, group).dataset(split, skip, check)


def check_coco(
    path: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    images: str | Path | None = None,
    channels: int = 3,
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
) -> Report:
    """Look at a JSON file and every picture that it names (see `coco` for the arguments), and say all that is wrong.

    Raises:
        FolderProblems: if the file is no such JSON at all.
        ValueError: for bad arguments.
    """
    return _coco_source(path, class_names, images, channels, splits, group).report()


# The file -----------------------------------------------------------------------------------------------------


def _coco_source(path, class_names, images, channels, splits, group) -> Source:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"path is {str(path)!r}, and there is no such file; give the JSON file.")
    if images is None:
        place = file.parent / "images"
        place = place if place.is_dir() else file.parent
    else:
        place = existing_folder(images, "images")
    content = _parsed(file)
    problems: list[Problem] = []

    def fault(where: str, what: str, mend: str, *drops: str) -> None:
        problems.append(Problem(f"{file.name}, {where}", what, mend, drops))

    ids = _categories(content["categories"], fault)
    if class_names is None:
        names = checked_class_names((BACKGROUND, *(ids[number] for number in sorted(ids)))) if ids else ()
    else:
        names = checked_class_names(class_names)
        if missing := [name for name in names[1:] if name not in ids.values()]:
            raise ValueError(
                f"class_names: {file.name} has no category {missing[0]!r}; it has {', '.join(ids.values()) or 'none'}."
            )
    class_of = {number: names.index(name) for number, name in ids.items() if name in names[1:]}

    listed = _images(content["images"], place, fault)
    refused = {
        image["id"] for image in content["images"] if isinstance(image, dict) and _whole(image.get("id"))
    }
    refused -= set(listed)
    objects: dict[int, list[tuple[str, dict, int]]] = defaultdict(list)
    seen: set = set()
    left_out: Counter = Counter()
    for position, annotation in enumerate(content["annotations"]):
        where = f"annotations[{position}]"
        if not isinstance(annotation, dict):
            fault(where, f"is {_kind(annotation)}, not an object", "Export the file again")
            continue
        number = annotation.get("id")
        if number is not None:
            if not isinstance(number, (int, str)) or number in seen:
                fault(where, f"has the id {number!r}, no id or one that is taken", "Give each its own number")
            else:
                seen.add(number)
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if _whole(image) and image in refused:
            continue  # that image's own fault is told already
        if not _whole(image) or image not in listed:
            fault(where, f"has image_id {image!r}, and no image has that id", "List the image, or remove it")
        elif not _whole(category) or category not in ids:
            fault(
                where,
                f"({listed[image][0]}) has category_id {category!r}, and no category has that id",
                f"There are {', '.join(f'{key} {name}' for key, name in sorted(ids.items())) or 'none'}",
                listed[image][0],
            )
        elif category in class_of:
            objects[image].append((where, annotation, class_of[category]))
        else:
            left_out[ids[category]] += 1

    entries = []
    for number, (name, picture, size) in listed.items():
        shown = picture.relative_to(place).as_posix()

        def read(actual, found=objects[number], size=size):
            return _truth(actual, size, found)

        entries.append(Entry(name, picture, shown, f"{file.name}, {shown}", read))
    notes = [
        f"{count} objects of {name}, which class_names does not name" for name, count in left_out.items()
    ]
    chosen, wrong = assign([entry.name for entry in entries], splits, group)
    source = Source(
        file.name,
        names,
        checked_channels(channels),
        entries,
        chosen,
        problems + wrong,
        notes,
        len(content["images"]),
    )
    if not ids or not entries:
        what, where = ("a category", "categories") if not ids else ("a picture", "images")
        fault(where, f"holds no {what.split()[1]} that can be used", f"There has to be at least {what}")
        raise FolderProblems(_broken(file, problems, len(content["images"])))
    return source


def _broken(file: Path, problems: Sequence[Problem], total: int = 0) -> Report:
    return Report(file.name, tuple(problems), dict.fromkeys(SPLITS, ()), np.zeros(0, int), total=total)


def _parsed(file: Path) -> dict[str, list]:
    """The three lists of the file; where they are not there nothing else can be said, and it is said at once."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # broken JSON, no UTF-8, or brackets without end
        problem = Problem(file.name, f"is no JSON ({type(error).__name__}: {error})", "Export it again")
        raise FolderProblems(_broken(file, [problem])) from None
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict):
        problem = Problem(
            file.name,
            f"holds {_kind(content)}, where an object with {', '.join(wanted)} should be",
            "Export it as COCO instances; a file of results is a list and says nothing of the pictures",
        )
        raise FolderProblems(_broken(file, [problem]))
    problems = [
        Problem(
            f"{file.name}, {key}",
            "is missing" if key not in content else f"is {_kind(content[key])}, not a list",
            "Export it as COCO instances",
        )
        for key in wanted
        if not isinstance(content.get(key), list)
    ]
    if problems:
        raise FolderProblems(_broken(file, problems))
    return {key: content[key] for key in wanted}


def _categories(listed: list, fault: Callable) -> dict[int, str]:
    """id → name of the categories that are ones."""
    ids: dict[int, str] = {}
    for position, category in enumerate(listed):
        where = f"categories[{position}]"
        number = category.get("id") if isinstance(category, dict) else None
        name = category.get("name") if isinstance(category, dict) else None
        if not _whole(number) or not isinstance(name, str) or not name:
            fault(where, "needs a whole number as id and a text as name", "Export the file again")
        elif number in ids or name in ids.values() or name == BACKGROUND:
            fault(where, f"has an id or a name that is taken ({number}, {name!r})", "Give each its own")
        else:
            ids[number] = name
    return ids


def _images(
    listed: list, place: Path, fault: Callable
) -> dict[int, tuple[str, Path, tuple[int, int] | None]]:
    """id → name, file and size (height, width) of the images that can be looked for; none may lie outside the folder."""
    found: dict[int, tuple[str, Path, tuple[int, int] | None]] = {}
    names: set[str] = set()
    root = place.resolve()
    for position, image in enumerate(listed):
        where = f"images[{position}]"
        number = image.get("id") if isinstance(image, dict) else None
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if not _whole(number) or number in found:
            fault(where, f"has the id {number!r}, no number or one that is taken", "Give each its own number")
            continue
        if not isinstance(file_name, str) or not file_name.strip() or "\0" in file_name:
            fault(where, f"has the file_name {file_name!r}, which is no name", "Name the file")
            continue
        parts = PurePosixPath(file_name.replace("\\", "/"))
        picture = place / parts
        # Resolved too: a link inside the folder may lead out of it.
        if parts.is_absolute() or ":" in file_name or ".." in parts.parts or not _inside(picture, root):
            fault(
                where,
                f"has the file_name {file_name!r}, which leads out of the folder of pictures",
                "Give the name from that folder on, and images= for the folder",
            )
            continue
        name = parts.with_suffix("").as_posix()
        if name in names:
            fault(where, f"names {file_name!r}, whose name another image has", "Rename one", name)
            continue
        size = image.get("height"), image.get("width")
        if not all(_whole(side) and side > 0 for side in size):
            if size != (None, None):
                fault(where, f"has height and width {size[0]!r}, {size[1]!r}", "Give whole numbers", name)
            size = None
        names.add(name)
        found[number] = (name, picture, size)
    return found


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a name that is too long, a ring of links
        return False


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """What a value of a JSON file is, for people."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# The objects --------------------------------------------------------------------------------------------------


def _truth(actual: tuple[int, int], size: tuple[int, int] | None, found: Sequence[tuple]) -> Truth:
    """The maps of one picture of `actual` pixels (height, width), of which the file says that it has `size`."""
    faults = []
    if size is not None and size != actual:
        faults.append(
            (
                f"the file says {size[0]} × {size[1]} pixels (height × width), the picture has {actual[0]} × {actual[1]}",
                "Take the pictures that were annotated, in the size in which they were",
            )
        )
        raise Unusable(*faults[0], *faults[1:])
    masks, classes, crowd = [], [], np.zeros(actual, bool)
    for where, annotation, number in found:
        try:
            mask = _mask(annotation, actual)
        except Unusable as bad:
            faults += [(f"{where} {what}", mend) for what, mend in bad.faults]
            continue
        if annotation.get("iscrowd"):
            crowd |= mask
        else:
            masks.append(mask)
            classes.append(number)
    if faults:
        raise Unusable(*faults[0], *faults[1:])
    instances, kept = painted(masks, actual)
    classes = np.asarray(classes, np.int32)[kept]
    semantic = np.concatenate([[0], classes]).astype(np.int32)[instances]
    semantic[crowd & (instances == 0)] = IGNORE
    hidden = len(masks) - len(kept)
    note = f"{hidden} object{'s' * (hidden != 1)} without a pixel of their own, left out" if hidden else ""
    return Truth(semantic, instances, classes, note)


def painted(masks: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One instance map from a mask for each object; where several claim a pixel, the smallest keeps it.

    Args:
        masks: bool `(height, width)` each.
        size: `(height, width)`, for when there is none.

    Returns:
        int32 `(height, width)`, 0 = background, and which masks have a pixel of their own, int `(n,)`: instance k + 1 is
        mask `kept[k]`.
    """
    instances = np.zeros(size, np.int32)
    for index in sorted(range(len(masks)), key=lambda index: -np.count_nonzero(masks[index])):
        instances[masks[index]] = index + 1
    kept = np.unique(instances[instances > 0]) - 1
    numbers = np.zeros(len(masks) + 1, np.int32)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    return numbers[instances], kept


def _mask(annotation: Mapping, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an object, bool `(height, width)`, or `Unusable`."""
    _check_box(annotation.get("bbox"), size)
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return decode_runs(outline, size)
    if not isinstance(outline, list) or not outline:
        raise Unusable("has no segmentation", "Draw its outline; a box alone does not say which pixels")
    mask = np.zeros(size, bool)
    for part in outline:
        if (
            not isinstance(part, list)
            or len(part) < 6
            or len(part) % 2
            or not all(_finite(number) for number in part)
        ):
            raise Unusable(
                "has a polygon that is not a list x, y, x, y, … of at least three points",
                "Draw it again, or export the file again",
            )
        points = np.asarray(part, float).reshape(-1, 2)
        over = (points < -SLACK) | (points > np.array(size[::-1]) + SLACK)
        if over.any():
            x, y = points[over.any(axis=1)][0]
            raise Unusable(
                f"has a polygon that reaches to x {x:g}, y {y:g}, outside the picture of {size[1]} × {size[0]} "
                "(width × height)",
                "Look whether the picture was resized after it was annotated",
            )
        # Polygons run along the edges of pixels, and a pixel belongs to one if its centre does.
        rows, columns = pixels_of_polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size)
        mask[rows, columns] = True
    return mask


def _check_box(box: Any, size: tuple[int, int]) -> None:
    if box is None:
        return
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(number) for number in box):
        raise Unusable("has a bbox that is not x, y, width, height", "Export the file again")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise Unusable(f"has a bbox of {width:g} × {height:g} pixels", "Remove it or draw it again")
    if min(x, y) < -SLACK or x + width > size[1] + SLACK or y + height > size[0] + SLACK:
        raise Unusable(
            f"has a bbox from x {x:g}, y {y:g} to x {x + width:g}, y {y + height:g}, outside the picture of "
            f"{size[1]} × {size[0]} (width × height)",
            "bbox is x, y, width, height; look whether it holds x1, y1, x2, y2, or whether the picture was resized",
        )


def _finite(number: Any) -> bool:
    if not isinstance(number, Real) or isinstance(number, bool):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # JSON's whole numbers have no largest
        return False


def decode_runs(runs: Mapping, size: tuple[int, int]) -> np.ndarray:
    """The mask that COCO keeps as lengths of runs, column by column: first of background, then of object, in turn.

    Args:
        runs: `size` as `[height, width]`, and `counts`: a list of lengths, or COCO's letters for them.
        size: `(height, width)` of the picture.

    Returns:
        bool `(height, width)`.

    Raises:
        Unusable: if the runs are none, or do not fill a picture of this size.
    """
    counts = runs.get("counts")
    if runs.get("size") != list(size):
        raise Unusable(
            f"has runs for a picture of size {runs.get('size')!r}, not {list(size)}", "Export it again"
        )
    if isinstance(counts, str):
        counts = _counts_from_letters(counts)
    if not isinstance(counts, list) or not all(_whole(number) and number >= 0 for number in counts):
        raise Unusable(
            "has runs that are neither a list of lengths nor COCO's letters", "Export the file again"
        )
    if sum(counts) != size[0] * size[1]:
        raise Unusable(
            f"has runs over {sum(counts)} pixels, the picture has {size[0] * size[1]}", "Export it again"
        )
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(size[::-1]).T


def _counts_from_letters(letters: str) -> list[int] | None:
    """The lengths in COCO's letters, or `None`: each letter holds five bits, the lowest first, and whether more follow;
    from the fourth length on it is the difference to the last but one that is kept."""
    counts: list[int] = []
    value = shift = 0
    for letter in letters:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 50:  # no length has that many bits
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if shift == 0 else None
