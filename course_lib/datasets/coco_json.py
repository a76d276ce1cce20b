"""Objects in the format of COCO (Lin et al., "Microsoft COCO: Common Objects in Context", 2014): one JSON for a folder of
images, as most annotation tools export it.

`images` lists the files, `categories` the classes, `annotations` one object each: its image, its category, and its outline,
as polygons or as run lengths (RLE, plain or as COCO's strings). Such a file comes from outside, so nothing in it is
trusted: types, ids, file names and numbers of pixels are checked, and each fault is reported with its location. What tools
write in different ways (ids as text, images beside or below or above the JSON, a byte order mark) is read all the same.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from skimage.draw import polygon as pixels_of_polygon

from course_lib.datasets.checked import (
    Entry,
    FolderDataset,
    FolderProblems,
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
from course_lib.datasets.disk import expanded
from course_lib.datasets.reading import ENDINGS, Unusable
from course_lib.datasets.sample import IGNORE, merge_masks
from course_lib.datasets.splits import SPLITS

BACKGROUND = "background"
SLACK = 1.0
"""Pixels by which an outline or a box may reach over the edge: tools round."""
OF_LABELME = "__ignore__"
"""labelme's name for what does not count."""
EXPORT = "Export it as COCO instances"
AGAIN = "Export the file again"


def coco_source(
    path: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    images: str | Path | None = None,
    channels: int = 3,
    ignore: Sequence[str] = (),
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
) -> Source:
    """What a JSON file lists; the arguments are those of `coco`."""
    file = expanded(path)
    if file.is_dir():
        there = ", ".join(sorted(one.name for one in file.rglob("*.json"))[:4])
        raise ValueError(
            f"path is {str(path)!r}, a folder; give the JSON file in it ({there or 'it holds none'})."
        )
    if not file.is_file():
        raise ValueError(f"path is {str(path)!r}; it must be a JSON file, but there is no such file.")
    beside, above = (
        file.parent / "images",
        file.parent.parent / "images",
    )  # above: annotations/instances.json of CVAT
    if images is not None:
        roots = [existing_folder(images, "images")]
    else:
        roots = [beside] if beside.is_dir() else [file.parent, above] if above.is_dir() else [file.parent]
    content = _parsed(file)
    problems: list[Problem] = []

    def fault(where: str, what: str, fix: str, *drops: str) -> None:
        problems.append(Problem(f"{file.name}, {where}", what, fix, drops))

    notes: list[str] = []
    used = {
        _id(annotation.get("category_id"))
        for annotation in content["annotations"]
        if isinstance(annotation, dict)
    }
    ids = _categories(content["categories"], used, fault, notes)
    void = {composed(name) for name in ([ignore] if isinstance(ignore, str) else ignore)}
    if unknown := sorted(void - {*ids.values()}):
        there = ", ".join(ids.values()) or "none"
        raise ValueError(
            f"ignore has {unknown[0]!r}; it must hold categories of {file.name}, which has {there}."
        )
    void.add(OF_LABELME)
    if class_names is None:
        own = dict.fromkeys(
            ids[number] for number in sorted(ids, key=_order) if ids[number] not in {BACKGROUND, *void}
        )
        names = checked_class_names((BACKGROUND, *own)) if own else ()
    else:
        names = tuple(map(composed, checked_class_names(class_names)))
        if missing := [name for name in names[1:] if name not in ids.values()]:
            there = ", ".join(ids.values()) or "none"
            raise ValueError(
                f"class_names has {missing[0]!r}; it must be a category of {file.name}, which has {there}."
            )
        if names[0] in ids.values() and names[0] != BACKGROUND:
            raise ValueError(
                f"class_names begins with {names[0]!r}, a category of {file.name}, whose objects would become background; "
                f"call the background 'background': ('background', {names[0]!r}, …)."
            )
        if both := void.intersection(names):
            raise ValueError(f"class_names and ignore both have {min(both)!r}; it must be in one of them.")

    listed, refused = _images(content["images"], _finder(roots), roots, fault, problems)
    objects, left_out = _annotations(content["annotations"], listed, refused, ids, names, void, fault)
    notes += [
        f"{numbered(count, 'object')} of {name}, which class_names does not name"
        for name, count in left_out.items()
    ]
    entries = []
    for number, (name, image, shown, size) in listed.items():

        def read(actual, found=objects[number], size=size):
            return _ground_truth(actual, size, found)

        entries.append(Entry(name, image, shown, f"{file.name}, {shown}", read))
    chosen, wrong = assign([entry.name for entry in entries], splits, group)
    problems += wrong
    total = len(content["images"])
    if not names or not entries:
        what, where = ("a category", "categories") if not names else ("an image", "images")
        fault(where, f"holds no {what.split()[1]} that can be used", f"There has to be at least {what}")
        raise FolderProblems(_unreadable(file, problems, total))
    return Source(file.name, names, checked_channels(channels), entries, chosen, problems, notes, total)


@options_of(coco_source)
def coco(
    split: str, path: str | Path, class_names: Sequence[str] | None = None, *, skip: bool = False, check: bool = True,
    **options,
) -> FolderDataset:  # fmt: skip
    """Your own images with objects in COCO's JSON, as a data set like the others.

    Where two objects claim a pixel, the smaller one keeps it, as for `nuclei`. A region that is marked as a crowd
    (`iscrowd`) is one whose objects nobody has told apart: its pixels become -1 in the semantic map, so that they count
    neither in a loss nor in a score, and belong to no object. The report says how many there are. The same goes for an
    object with `"ignore": 1`, a mark that some tools set.

    Args:
        split: `"train"`, `"val"`, `"test"`, or `"all"`.
        path: the JSON file.
        class_names: background first, then names of categories in the order of the ids that they shall have; objects of
            other categories are left out. By default all categories in the order of their ids in the file.
        images: the folder of the images; by default `images` beside the JSON file or beside its folder, or else that
            file's own folder. A file that is not where its name says is looked for by its last part.
        ignore: names of categories whose objects do not count, as those of a crowd.
        channels, splits, group, skip, check: as for `folder`. A sample's name is the file's, without its ending.

    Returns:
        A `Dataset`; images without any object are part of it.

    Raises:
        FolderProblems: if the file or an image cannot be used; lists all that is wrong, and what to do.
        ValueError: if an argument is not one of the above, or the split is empty.
    """
    return coco_source(path, class_names, **options).dataset(split, skip, check)


@options_of(coco_source)
def check_coco(path: str | Path, class_names: Sequence[str] | None = None, **options) -> Report:
    """Read a JSON file and every image that it names (see `coco` for the arguments), and say all that is wrong.

    Raises:
        FolderProblems: if the file is no such JSON at all.
        ValueError: for bad arguments.
    """
    return coco_source(path, class_names, **options).report()


# The file -----------------------------------------------------------------------------------------------------


def _unreadable(file: Path, problems: Sequence[Problem], total: int = 0) -> Report:
    return Report(file.name, tuple(problems), dict.fromkeys(SPLITS, ()), np.zeros(0, int), total=total)


def _parsed(file: Path) -> dict[str, list]:
    """The three lists of the file; where they are not there nothing else can be said, and it is said at once."""
    wanted = ("images", "annotations", "categories")
    raw = file.read_bytes()
    try:
        content = json.loads(raw)  # bytes: with or without a byte order mark, UTF-8 or UTF-16
    except (ValueError, RecursionError) as error:  # broken JSON, another encoding, or brackets without end
        told = (file.name, f"is not JSON ({type(error).__name__}: {error})", AGAIN)
        if raw[:2] in (b"PK", b"\x1f\x8b"):
            told = (file.name, "is an archive, not JSON", "Unpack it, and give the JSON file in it")
        elif raw.lstrip()[:1] == b"<":
            told = (file.name, "is XML (Pascal VOC, or CVAT for images), not JSON", EXPORT)
        elif isinstance(error, UnicodeDecodeError):
            told = (*told[:2], "Save it in the encoding UTF-8")
        elif file.suffix.lower() == ".csv":
            told = (file.name, "is a table, not JSON", EXPORT)
        raise FolderProblems(_unreadable(file, [Problem(*told)])) from None
    problems = []
    if tool := _own_format(content):
        fixes = {
            "labelme": "Convert it with labelme2coco",
            "QuPath": "Export label images, which datasets.folder reads",
            "Cityscapes": "Take its label images, which datasets.folder reads",
        }
        fix = fixes.get(tool, f"In {tool}, export in COCO format")
        problems.append(Problem(file.name, f"is {tool}'s own format", fix))
    elif not isinstance(content, dict):
        what = f"holds {_kind(content)}, where an object with {', '.join(wanted)} should be"
        fix = f"{EXPORT}; a file of results is a list and does not describe the images"
        problems.append(Problem(file.name, what, fix))
    else:
        for key in wanted:
            if not isinstance(content.get(key), list):
                what = f"is {_kind(content[key])}, not a list" if key in content else "is missing"
                problems.append(Problem(f"{file.name}, {key}", what, EXPORT))
    if problems:
        raise FolderProblems(_unreadable(file, problems))
    return {key: content[key] for key in wanted}


def _own_format(content: Any) -> str:
    """The tool whose own format this is, or `""`."""
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    if "data" in first or "label" in first or "annotations" in first:
        return "Label Studio"
    if not isinstance(content, dict) or "images" in content:
        return ""
    regions = any(isinstance(value, dict) and "regions" in value for value in content.values())
    if (
        regions
        or any(key.startswith("_via") for key in content)
        or {"project", "metadata", "view"} <= {*content}
    ):
        return "VIA"
    keys = {"shapes": "labelme", "imgHeight": "Cityscapes", "objects": "Supervisely", "features": "QuPath"}
    return next((tool for key, tool in keys.items() if key in content), "")


def _id(value: Any) -> int | str | None:
    """An id as tools write it, in one form: 1, 1.0 and "1" are the same, any other text is itself; `None` for none."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text or None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if _whole(value) else None


def _order(number: int | str) -> tuple:
    return isinstance(number, str), number


def _categories(listed: list, used: set, fault: Callable, notes: list[str]) -> dict[int | str, str]:
    """id → name of the categories that can be used; two of one name are one class."""
    ids: dict[int | str, str] = {}
    parents: dict[int | str, Any] = {}
    twice = set()
    for position, category in enumerate(listed):
        where = f"categories[{position}]"
        category = category if isinstance(category, dict) else {}
        number, name = _id(category.get("id")), category.get("name")
        if number is None or not isinstance(name, str) or not name.strip():
            fault(where, "needs an id and a text as name", AGAIN)
            continue
        # labelme writes _background_
        name = BACKGROUND if name.strip(" _").lower() == BACKGROUND else composed(name)
        if ids.get(number, name) != name:
            fault(where, f"has the id {number!r}, which {ids[number]} has", "Give each its own")
            twice.add(number)  # nobody knows which of the two an annotation means
        else:
            ids[number], parents[number] = name, category.get("supercategory")
    # Roboflow lists the parent of its classes as a class; no object belongs to it.
    for number in [number for number in ids if number not in used and parents[number] in (None, "", "none")]:
        if ids[number] in (parents[other] for other in ids if other != number):
            name = ids.pop(number)
            if name not in ids.values():
                notes.append(f"the category {name} is the parent of others and has no objects; left out")
    return {number: name for number, name in ids.items() if number not in twice}


def _finder(roots: Sequence[Path]) -> Callable[[str], tuple[Path | None, bool]]:
    """A function from a file name in the JSON to the file, and whether it leads out of the folders of images.

    The name is tried as it stands; then in another Unicode form or as a URL; then by its last part alone, if just one file
    has it. No file outside the folders is ever taken, not even through a link.
    """
    index: dict[str, list[Path]] = defaultdict(list)
    resolved = [root.resolve() for root in roots]

    def inside(path: Path) -> bool:
        try:
            return any(map(path.resolve().is_relative_to, resolved))
        except (OSError, RuntimeError, ValueError):  # too long, a ring of links, letters that no file has
            return False

    def is_file(path: Path) -> bool:
        try:
            return path.is_file()
        except (OSError, ValueError):
            return False

    def find(file_name: str) -> tuple[Path | None, bool]:
        parts = PurePosixPath(file_name.replace("\\", "/"))
        out = parts.is_absolute() or ":" in file_name or ".." in parts.parts
        if not out:
            # Label Studio's names begin with the folder's own.
            paths = [root / parts for root in roots]
            paths += [root.parent / parts for root in roots if parts.parts[:1] == (root.name,)]
            for path in filter(is_file, paths):
                if inside(path):
                    return path, False
                out = True  # a link
        if not index:
            index[""] = []
            for root in roots:
                for path in islice(root.rglob("*"), 200_000):
                    if path.suffix.lower() in ENDINGS and is_file(path) and inside(path):
                        index["/" + composed(path.relative_to(root).as_posix())].append(path)
                        index[composed(path.name)].append(path)
        for key in ("/" + str(parts), "/" + unquote(str(parts)), parts.name, unquote(parts.name)):
            found = {path.resolve(): path for path in index.get(composed(key), ())}
            if len(found) == 1:
                return next(iter(found.values())), False
        return None, out

    return find


def _images(
    listed: list, find: Callable, roots: Sequence[Path], fault: Callable, problems: list[Problem]
) -> tuple[dict[int | str, tuple[str, Path, str, tuple[int, int] | None]], set]:
    """id → name, file, what messages call it, size (height, width) of the images that are there; and the other ids."""
    found: dict[int | str, tuple[str, Path, str, tuple[int, int] | None]] = {}
    refused: set = set()
    names: dict[str, int | str] = {}
    near = _namesakes(roots)
    for position, image in enumerate(listed):
        where = f"images[{position}]"
        number, file_name = (
            (_id(image.get("id")), image.get("file_name")) if isinstance(image, dict) else (None, None)
        )
        if number is None or number in found or number in refused:
            given = image.get("id") if isinstance(image, dict) else None
            drops = (
                [found.pop(number)[0]] if number in found else []
            )  # nobody knows whose the annotations are
            refused.add(number)
            fault(
                where,
                f"has the id {given!r}, which is invalid or already taken",
                "Give each its own id",
                *drops,
            )
            continue
        refused.add(number)
        if not isinstance(file_name, str) or not file_name.strip() or "\0" in file_name:
            fault(where, f"has the file_name {file_name!r}, which is not a name", "Name the file")
            continue
        path, out = find(file_name)
        if out:
            what = f"has the file_name {file_name!r}, which leads out of the folder of images"
            fault(where, what, "Give the name from that folder on, and images= for the folder")
            continue
        if path is None:
            fix = f"Put the file there (looked in {roots[0].name}/), or pass images= with the folder that holds it"
            if other := near(file_name):
                fix = f"{other} has nearly this name: if it is the image, name one as the other"
            problems.append(Problem(file_name[:200], "there is no such file", fix))
            continue
        root = next((root for root in roots if path.is_relative_to(root)), path.parent)
        name = composed(path.relative_to(root).with_suffix("").as_posix())
        if name in names:
            fault(where, f"names {file_name!r}, whose name another image has", "Rename one", name)
            continue
        size = _id(image.get("height")), _id(image.get("width"))
        if not all(_whole(side) and side > 0 for side in size):
            if (image.get("height"), image.get("width")) != (None, None):
                what = f"has height and width {image.get('height')!r}, {image.get('width')!r}"
                fault(where, what, "Give whole numbers", name)
            size = None
        names[name] = number
        refused.remove(number)
        found[number] = (name, path, path.relative_to(root).as_posix(), size)
    return found, refused


def _namesakes(roots: Sequence[Path]) -> Callable[[str], str]:
    """A function from the name of a file that is not there to one that may be meant, or `""`: it differs in the ending, in
    capital letters, spaces, or in the eight letters that Label Studio puts before the name of what is uploaded."""

    def plain(name: str) -> str:
        stem = unquote(composed(name)).replace("\\", "/").split("/")[-1].rpartition(".")[0]
        return "".join(filter(str.isalnum, stem.casefold()))

    @cache
    def known() -> dict[str, str]:
        files = (path for root in roots for path in islice(root.rglob("*"), 200_000))
        return {plain(path.name): path.name for path in files if path.suffix.lower() in ENDINGS}

    def near(file_name: str) -> str:
        wanted = plain(file_name)
        found = known().get(wanted) or known().get(wanted[8:] or wanted, "")
        return "" if found == PurePosixPath(file_name).name else found

    return near


def _annotations(
    listed: list,
    images: Mapping,
    refused: set,
    ids: Mapping[int | str, str],
    names: Sequence[str],
    void: set[str],
    fault: Callable,
) -> tuple[dict[int | str, list[tuple[str, dict, int]]], Counter]:
    """image id → where each object stands, its annotation and class; and how many objects each other category has."""
    objects: dict[int | str, list[tuple[str, dict, int]]] = defaultdict(list)
    seen: set = set()
    left_out: Counter = Counter()
    mentioned, orphans = set(), []
    for position, annotation in enumerate(listed):
        where = f"annotations[{position}]"
        if not isinstance(annotation, dict):
            orphans.append((where, f"is {_kind(annotation)}, not an object", AGAIN))
            continue
        if (given := annotation.get("id")) is not None:
            number = _id(given)
            if number is None or number in seen:
                fault(
                    where, f"has the id {given!r}, which is invalid or already taken", "Give each its own id"
                )
            seen.add(number)
        image, category = _id(annotation.get("image_id")), _id(annotation.get("category_id"))
        mentioned.add(image)
        if image is not None and image in refused:
            continue  # that image's own fault is told already
        if image not in images:
            given = annotation.get("image_id")
            orphans.append(
                (where, f"has image_id {given!r}, and no image has that id", "List the image, or remove it")
            )
        elif category is None or category not in ids:
            there = ", ".join(f"{key} {ids[key]}" for key in sorted(ids, key=_order)) or "none"
            what = f"({images[image][0]}) has category_id {annotation.get('category_id')!r}, and no category has that id"
            fault(where, what, f"There are {there}", images[image][0])
        elif (name := ids[category]) in names[1:]:
            objects[image].append((where, annotation, names.index(name)))
        elif name in void:
            objects[image].append((where, annotation, 0))
        else:
            left_out[name] += 1
    # An image without any annotation may be the one whose objects could not be told to be its own.
    alone = [name for number, (name, *_) in images.items() if number not in mentioned]
    for orphan in orphans:
        fault(*orphan, *alone)
    return objects, left_out


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    """What a value of a JSON file is, for people."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


# The objects --------------------------------------------------------------------------------------------------


def _ground_truth(
    actual: tuple[int, int], size: tuple[int, int] | None, found: Sequence[tuple]
) -> GroundTruth:
    """The maps of one image of `actual` pixels (height, width), of which the file says that it has `size`."""
    if size is not None and size != actual:
        fix = "Take the images that were annotated, in the size in which they were"
        if size == actual[::-1]:
            fix = (
                "It was annotated before it was turned as its EXIF data says: remove that tag from the image; or height "
                "and width are swapped in the file"
            )
        what = f"the file says {size[0]} × {size[1]} pixels (height × width), the image has {actual[0]} × {actual[1]}"
        raise Unusable(what, fix)
    faults, masks, classes, crowds = [], [], [], []
    for where, annotation, number in found:
        try:
            mask = _mask(annotation, actual)
            marks = [_is_marked(annotation, mark) for mark in ("iscrowd", "ignore")]
        except Unusable as bad:
            faults += [(f"{where} {what}", fix) for what, fix in bad.faults]
            continue
        if number == 0 or any(marks):
            crowds.append(mask)
        else:
            masks.append(mask)
            classes.append(number)
    if faults:
        raise Unusable(*faults[0], *faults[1:])
    instances, kept = merge_masks(masks, actual)
    classes = np.asarray(classes, np.int32)[kept]
    semantic = np.concatenate([[0], classes]).astype(np.int32)[instances]
    for crowd in crowds:
        semantic[crowd & (instances == 0)] = IGNORE
    hidden = len(masks) - len(kept)
    note = f"{hidden} object{'s' * (hidden != 1)} without a pixel of their own, left out" if hidden else ""
    return GroundTruth(semantic, instances, classes, len(crowds), note)


def _is_marked(annotation: Mapping, mark: str) -> bool:
    """A mark, which tools write as 0 or 1, as true or false, or in words."""
    value = annotation.get(mark)
    words = dict.fromkeys(("1", "true", "yes"), True) | dict.fromkeys(("0", "false", "no", "", "none"), False)
    key = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if key not in words:
        raise Unusable(f"has {mark} {value!r}", "It must be 0 or 1")
    return words[key]


def _mask(annotation: Mapping, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an object, bool `(height, width)`, or `Unusable`."""
    _check_box(annotation.get("bbox"), size)
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return decode_runs(outline, size)
    if not isinstance(outline, list) or not outline:
        raise Unusable(
            "has no segmentation",
            "Draw its outline; a bounding box alone does not say which pixels belong to the object",
        )
    if not isinstance(outline[0], list):  # VIA writes a single polygon without the list around it
        outline = [outline]
    mask = np.zeros(size, bool)
    for part in outline:
        if not isinstance(part, list) or len(part) < 6 or len(part) % 2 or not all(map(_finite, part)):
            what = "has a polygon that is not a list x, y, x, y, … of at least three points"
            raise Unusable(what, f"Draw it again, or {AGAIN.lower()}")
        points = np.asarray(part, float).reshape(-1, 2)
        over = (points < -SLACK) | (points > np.array(size[::-1]) + SLACK)
        if over.any():
            x, y = points[over.any(axis=1)][0]
            what = (
                f"has a polygon that reaches to x {x:g}, y {y:g}, outside the image of {size[1]} × {size[0]}"
            )
            raise Unusable(
                f"{what} (width × height)", "Check whether the image was resized after it was annotated"
            )
        # Polygons run along the edges of pixels, and a pixel belongs to one if its centre does.
        if points.max() <= 1 < min(size):
            raise Unusable(
                "has a polygon with all numbers from 0 to 1, as fractions of the image",
                "Give x and y in pixels",
            )
        rows, columns = pixels_of_polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, size)
        mask[rows, columns] = True
    return mask


def _check_box(box: Any, size: tuple[int, int]) -> None:
    if box is None or box == []:
        return
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        raise Unusable("has a bbox that is not x, y, width, height", AGAIN)
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise Unusable(f"has a bbox of {width:g} × {height:g} pixels", "Remove it or draw it again")
    if min(x, y) < -SLACK or x + width > size[1] + SLACK or y + height > size[0] + SLACK:
        what = f"has a bbox from x {x:g}, y {y:g} to x {x + width:g}, y {y + height:g}, outside the image of "
        fix = "bbox is x, y, width, height; check whether it holds x1, y1, x2, y2, or whether the image was resized"
        raise Unusable(f"{what}{size[1]} × {size[0]} (width × height)", fix)


def _finite(number: Any) -> bool:
    if not isinstance(number, Real) or isinstance(number, bool):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:  # JSON's whole numbers have no largest
        return False


def decode_runs(runs: Mapping, size: tuple[int, int]) -> np.ndarray:
    """The mask that COCO keeps as lengths of runs, column by column: first of background, then of object, in turn.

    Pycocotools would read the letters too, but in C and without looking whether they make sense.

    Args:
        runs: `size` as `[height, width]`, and `counts`: a list of lengths, or COCO's letters for them.
        size: `(height, width)` of the image.

    Returns:
        bool `(height, width)`.

    Raises:
        Unusable: if the runs are none, or do not fill an image of this size.
    """
    counts = runs.get("counts")
    if runs.get("size") != list(size):
        raise Unusable(f"has runs for an image of size {runs.get('size')!r}, not {list(size)}", AGAIN)
    if isinstance(counts, str):
        counts = _counts_from_letters(counts)
    if not isinstance(counts, list) or not all(_whole(number) and number >= 0 for number in counts):
        raise Unusable("has runs that are neither a list of lengths nor a COCO string", AGAIN)
    if sum(counts) != size[0] * size[1]:
        raise Unusable(f"has runs over {sum(counts)} pixels, but the image has {size[0] * size[1]}", AGAIN)
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
