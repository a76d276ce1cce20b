"""One's own pictures: a folder of images and label files as a data set, checked whole before anything is trained.

    mine/
      images/  a.png  b.jpg  c.tif
      labels/  a.png  b.png  c.png      the class (or the object) of each pixel, as a number

A label file is a picture that is no picture: its values are ids. Most of what goes wrong with it (another size, colours in
place of ids, a lossy format, an id that does not exist) trains without an error and shows weeks later as a poor score. So
all files are read once, and everything that is wrong is said at once, file by file. COCO's JSON is read by
`course_lib.datasets.coco_json`, with the same checks and the same report.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from skimage.segmentation import relabel_sequential

from course_lib.datasets import reading
from course_lib.datasets.errors import DataError
from course_lib.datasets.reading import ENDINGS, Unusable
from course_lib.datasets.sample import IGNORE, Dataset, Sample, boxes_from_instances
from course_lib.datasets.splits import SPLITS

KINDS = ("semantic", "instances")
ALL = "all"
"""The split that holds every picture."""


# What is found ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file.

    Attributes:
        file: the file, from the folder on, such as `"labels/a.png"`.
        what: what is wrong with it.
        mend: what to do about it.
        drops: names of the samples that cannot be used because of it.
    """

    file: str
    what: str
    mend: str
    drops: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.mend}."


@dataclass(frozen=True)
class Report:
    """What a look at every file of a folder has shown.

    Attributes:
        folder: the folder's (or the JSON file's) own name.
        problems: all that is wrong, in the order of the files.
        splits: split → names of its sound samples.
        pixels: int64 `(classes,)`: pixels of each class in the sound samples.
        ignored: pixels that do not count, in the sound samples.
        notes: what is not wrong, but worth knowing.
        total: how many pictures there are, sound or not.
    """

    folder: str
    problems: tuple[Problem, ...]
    splits: Mapping[str, tuple[str, ...]]
    pixels: np.ndarray
    ignored: int = 0
    notes: tuple[str, ...] = ()
    total: int = 0

    @property
    def sound(self) -> int:
        """How many pictures are left to use."""
        return sum(len(names) for names in self.splits.values())

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [
            f"{self.folder}: {self.total} picture{'s' * (self.total != 1)}, "
            f"{count or 'no'} problem{'s' * (count != 1)}"
        ]
        lines += [f"  {problem}" for problem in self.problems]
        lines.append(
            "  to use: " + ", ".join(f"{split} {len(names)}" for split, names in self.splits.items())
        )
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


class FolderProblems(DataError):
    """Files of a folder cannot be used. The message lists all of them; `report` holds the same as data."""

    def __init__(self, report: Report):
        self.report = report
        super().__init__(
            f"{report}\nMend these files and call again, or go on without them: skip=True leaves them out."
        )


# A sample's files ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What a label file says: `semantic`, `instances` (or `None`) and `classes` as in `Sample`, and a note or `""`."""

    semantic: np.ndarray
    instances: np.ndarray | None
    classes: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """The files of one sample.

    Attributes:
        name: the sample's name.
        picture: its picture file.
        picture_shown, labels_shown: how messages call the picture, and what holds its labels.
        read: `(height, width) -> Truth`; raises `Unusable` where the labels do not belong to a picture of that size.
    """

    name: str
    picture: Path
    picture_shown: str
    labels_shown: str
    read: Callable[[tuple[int, int]], Truth]


def read_labels(
    path: Path,
    size: tuple[int, int],
    num_classes: int,
    kind: str,
    ignore: int | None,
    values: Mapping[int, int] | None,
) -> Truth:
    """The truth in a label file, for a picture of `(height, width)`; raises `Unusable` with all that is wrong with it."""
    known = range(num_classes) if values is None else set(values)
    if kind == "instances" and values is None:
        known = None
    elif ignore is not None:
        known = {*known, ignore}
    ids, faults = reading.read_labels(path, known), []
    if ids.shape != size:
        advice = "Export picture and labels in one size, the labels without interpolation"
        if ids.shape == size[::-1]:
            advice = "One of the two is turned by 90 degrees; cameras keep that in the file's EXIF data: turn it for good"
        faults.append(
            (
                f"is {ids.shape[0]} × {ids.shape[1]} pixels (height × width), its picture {size[0]} × {size[1]}",
                advice,
            )
        )
    ignored = np.zeros(ids.shape, bool) if ignore is None else ids == ignore
    if values is not None:
        known = np.isin(ids, list(values)) | ignored
        if not known.all():
            faults.append(
                (
                    f"holds {_listed(ids[~known])}, which values does not mention",
                    "Add it to values, or mend the file",
                )
            )
        mapped = np.zeros_like(ids)
        for value, number in values.items():
            mapped[ids == value] = number
        ids = mapped
    if kind == "instances":
        if faults:
            raise Unusable(*faults[0], *faults[1:])
        instances = relabel_sequential(np.where(ignored, 0, ids))[0].astype(np.int32)
        semantic = np.where(ignored, IGNORE, instances > 0).astype(np.int32)
        return Truth(semantic, instances, np.ones(instances.max(), np.int32))
    outside = ((ids < 0) | (ids >= num_classes)) & ~ignored
    if outside.any():
        faults.append((f"holds {_listed(ids[outside])}, but {_range(num_classes)}", _advice(ids, outside)))
    if faults:
        raise Unusable(*faults[0], *faults[1:])
    return Truth(np.where(ignored, IGNORE, ids).astype(np.int32), None, np.zeros(0, np.int32))


def _range(num_classes: int) -> str:
    return f"with {num_classes} class names labels run from 0 to {num_classes - 1}"


def _advice(ids: np.ndarray, outside: np.ndarray) -> str:
    if set(np.unique(ids)) <= {0, 255}:
        return "If it is a mask in black and white, say values={0: 0, 255: 1}"
    if np.unique(ids[outside]).tolist() == [255]:
        return "If 255 marks pixels that should not count, say ignore=255"
    return "Name the missing class, or mend the label; pixels that should not count get one value, given as ignore"


def _listed(values: np.ndarray, most: int = 3) -> str:
    """`"the label 9 (12 pixels)"`, or the first few of them."""
    found, counts = np.unique(values, return_counts=True)
    named = ", ".join(f"{value} ({n} pixels)" for value, n in zip(found[:most], counts[:most], strict=True))
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"the label{'s' * (len(found) > 1)} {named}{more}"


# Splits -------------------------------------------------------------------------------------------------------


def checksum_split(group: str) -> str:
    """The split of a group of pictures by the checksum of its name: 2 in 10 are test, 1 in 10 is val, as for `nuclei`.

    The same name always falls into the same split: pictures that come later move none of the earlier ones.
    """
    return {0: "test", 1: "test", 2: "val"}.get(zlib.crc32(group.encode()) % 10, "train")


def grouper(group: str | Callable[[str], str] | None) -> Callable[[str], str]:
    """The function from a sample's name to its group; a text is a regular expression whose match is the group."""
    if group is None:
        return lambda name: name
    if callable(group):
        return lambda name: str(group(name))
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"group is {group!r}; give a function, or a regular expression such as 'patient[0-9]+' ({error})."
        ) from None

    def matched(name: str) -> str:
        if (found := pattern.search(name)) is None:
            raise ValueError(f"group is {group!r}, which does not occur in the name {name!r}.")
        return found[0]

    return matched


def assign(
    names: Sequence[str],
    splits: Mapping[str, Iterable[str]] | None,
    group: str | Callable[[str], str] | None,
) -> tuple[dict[str, str], list[Problem]]:
    """The split of each name, and what is wrong with the lists: names that are not there, or in two splits, torn groups."""
    group_of = grouper(group)
    if splits is None:
        return {name: checksum_split(group_of(name)) for name in names}, []
    if unknown := [split for split in splits if split not in SPLITS]:
        raise ValueError(f"splits: there is no {unknown[0]!r}; its keys are {', '.join(SPLITS)}.")
    if text := [split for split, listed in splits.items() if isinstance(listed, str)]:
        raise ValueError(f"splits: {text[0]} is a text; give a list of names.")
    there, chosen, problems = set(names), {}, []
    for split in SPLITS:
        for name in splits.get(split, ()):
            if name not in there:
                problems.append(
                    Problem(
                        str(name),
                        f"is listed in {split}, but there is no such picture",
                        "List names without their ending, as the files are called",
                    )
                )
            elif chosen.get(name, split) != split:
                problems.append(
                    Problem(
                        name,
                        f"is listed in {chosen[name]} and in {split}",
                        "List it once; what is learned must not be what is scored",
                    )
                )
                chosen[name] = split  # the later of train, val, test keeps it
            else:
                chosen[name] = split
    if group is not None:
        problems += _torn(chosen, {name: f"the group {group_of(name)}" for name in chosen}, "belongs to {}")
    return chosen, problems


def _torn(chosen: Mapping[str, str], keys: Mapping[str, str], said: str) -> list[Problem]:
    """A problem for each sample whose like (the same key) lies in a split that is scored later than its own."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in chosen:
        if name in keys:
            members[keys[name]].append(name)
    problems = []
    for key, names in members.items():
        last = max((chosen[name] for name in names), key=SPLITS.index)
        keeper = next(name for name in names if chosen[name] == last)
        problems += [
            Problem(
                name,
                f"{said.format(key)}, in {chosen[name]}, as {keeper} is, in {last}",
                "Keep them in one split, or the score tells how well the net remembers",
                (name,),
            )
            for name in names
            if chosen[name] != last
        ]
    return problems


# The check ----------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """What a folder or a JSON file holds, before its pictures are opened: entries, and problems of names and lists."""

    title: str
    class_names: tuple[str, ...]
    channels: int
    entries: list[Entry]
    chosen: dict[str, str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    total: int = 0

    def report(self, check: bool = True) -> Report:
        """Read every file (without `check` none) and say what is wrong."""
        problems, notes = list(self.problems), list(self.notes)
        pixels, ignored = {}, Counter()
        digests: dict[str, str] = {}
        for entry in self.entries if check else ():
            try:
                image = reading.read_image(entry.picture, self.channels, notes)
            except Unusable as bad:
                problems += [Problem(entry.picture_shown, *fault, (entry.name,)) for fault in bad.faults]
                continue
            digests[entry.name] = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
            try:
                truth = entry.read(image.shape[:2])
            except Unusable as bad:
                problems += [Problem(entry.labels_shown, *fault, (entry.name,)) for fault in bad.faults]
                continue
            counts = np.bincount(truth.semantic.ravel() + 1, minlength=len(self.class_names) + 1)
            pixels[entry.name], ignored[entry.name] = counts[1:], int(counts[0])
            if truth.note:
                notes.append(f"{entry.labels_shown}: {truth.note}")
        problems += _torn(self.chosen, digests, "is pixel by pixel the same picture")
        dropped = {name for problem in problems for name in problem.drops}
        splits = {
            split: tuple(
                entry.name
                for entry in self.entries
                if entry.name not in dropped and self.chosen.get(entry.name) == split
            )
            for split in SPLITS
        }
        kept = [name for names in splits.values() for name in names]
        total = sum((pixels[name] for name in kept if name in pixels), np.zeros(len(self.class_names), int))
        if left_out := len(self.entries) - len(self.chosen):
            notes.append(f"{left_out} picture{'s' * (left_out != 1)} in none of the lists of splits")
        if check and kept:
            notes += _twins(kept, digests)
            notes += [
                f"no pixel of the class {name} ({number}) anywhere"
                for number, name in enumerate(self.class_names)
                if not total[number]
            ]
        return Report(
            self.title,
            tuple(problems),
            splits,
            total,
            sum(ignored[name] for name in kept),
            tuple(notes),
            self.total or len(self.entries),
        )

    def dataset(self, split: str, skip: bool, check: bool) -> FolderDataset:
        """The data set of one split, or `FolderProblems`."""
        if split not in (*SPLITS, ALL):
            raise ValueError(f"split: there is no {split!r}; choose one of {', '.join((*SPLITS, ALL))}.")
        report = self.report(check)
        if report.problems and not skip:
            raise FolderProblems(report)
        names = set(report.splits[split] if split != ALL else sum(report.splits.values(), ()))
        if not names:
            sizes = ", ".join(f"{other} {len(found)}" for other, found in report.splits.items())
            raise ValueError(
                f"split: no picture of {self.title} is in {split!r} ({sizes}). Names decide by their checksum, and with "
                "few pictures a split may stay empty: give splits={'train': [names], 'val': [names]}."
            )
        return FolderDataset(self, split, [entry for entry in self.entries if entry.name in names], report)


def _twins(names: Sequence[str], digests: Mapping[str, str]) -> list[str]:
    """A note for each picture that is there several times within one split."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name in digests:
            members[digests[name]].append(name)
    return [f"{', '.join(same)} are the same picture" for same in members.values() if len(same) > 1]


class FolderDataset(Dataset):
    """Samples of one's own, read from their files on access.

    Attributes:
        report: what the check has found, a `Report`.
    """

    def __init__(self, source: Source, split: str, entries: Sequence[Entry], report: Report):
        self.name, self.split, self.report = source.title, split, report
        self.class_names, self.channels = source.class_names, source.channels
        self._entries = tuple(entries)

    @property
    def names(self) -> tuple[str, ...]:
        """The samples' names, in order."""
        return tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[self.checked_index(index)]
        shown = entry.picture_shown
        try:
            image = reading.read_image(entry.picture, self.channels)
            shown = entry.labels_shown
            truth = entry.read(image.shape[:2])
        except Unusable as bad:
            what, mend = bad.faults[0]
            raise DataError(f"{self.name}: {Problem(shown, what, mend)}") from None
        boxes = np.zeros((0, 4), np.float32)
        if truth.instances is not None:
            boxes = boxes_from_instances(truth.instances)
        return Sample(image, truth.semantic, truth.instances, boxes, truth.classes, entry.name)


# A folder of pictures and labels ------------------------------------------------------------------------------


def folder(
    split: str,
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
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
    skip: bool = False,
    check: bool = True,
) -> FolderDataset:
    """One's own pictures with label files of the same names, as a data set like the others.

    Args:
        split: `"train"`, `"val"`, `"test"`, or `"all"`.
        path: the folder that holds the folders of `images` and of `labels`.
        class_names: one name for each class id, background first where there is one.
        kind: what a label file holds: `"semantic"`, the class of each pixel; or `"instances"`, 0 for background and another
            number for each object of the one class that there is then besides the background.
        channels: 1 (colours become brightness) or 3 (grey is repeated).
        ignore: the value of pixels that shall count neither in a loss nor in a score, such as 255.
        values: value in the file → class id (or, for instances, object), where the two are not the same:
            `{0: 0, 255: 1}` for masks in black and white.
        suffix: what label files have at the end of their stem, such as `"_mask"`.
        images, labels: names of the two folders. Pictures are PNG, JPEG, TIFF or BMP; labels PNG, TIFF or BMP, of 8 or 16
            bits, of a palette the index.
        splits: lists of names (without ending) for each split. By default the checksum of the name decides.
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
    source = _folder_source(
        path, class_names, kind, channels, ignore, values, suffix, images, labels, splits, group
    )
    return source.dataset(split, skip, check)


def check_folder(
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
    splits: Mapping[str, Iterable[str]] | None = None,
    group: str | Callable[[str], str] | None = None,
) -> Report:
    """Look at every file of a folder and say all that is wrong; the arguments are those of `folder`.

    Returns:
        A `Report`; `print` it.

    Raises:
        ValueError: if an argument is not one that `folder` takes; a bad file is no error here.
    """
    source = _folder_source(
        path, class_names, kind, channels, ignore, values, suffix, images, labels, splits, group
    )
    return source.report()


def checked_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """`class_names` as a tuple of at least two different names, or a `ValueError`."""
    names = () if isinstance(class_names, str) else tuple(class_names)
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            f"class_names is {class_names!r}; give at least two different names, "
            "the first for id 0, such as ('background', 'cell')."
        )
    return names


def checked_channels(channels: int) -> int:
    """`channels` if it is 1 or 3, or a `ValueError`."""
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; it must be 1 (grey) or 3 (colour).")
    return int(channels)


def existing_folder(path: str | Path, name: str = "path") -> Path:
    """`path` as a `Path` that is a folder, or a `ValueError`."""
    place = Path(path).expanduser()
    if not place.is_dir():
        state = "is a file" if place.exists() else "does not exist"
        raise ValueError(f"{name} is {str(path)!r}, which {state}; give a folder.")
    return place


def _folder_source(
    path, class_names, kind, channels, ignore, values, suffix, images, labels, splits, group
) -> Source:
    names = checked_class_names(class_names)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(map(repr, KINDS))}.")
    if kind == "instances" and len(names) != 2:
        raise ValueError(
            f"class_names has {len(names)} names; a label file that numbers objects knows one class besides the "
            "background. For objects of several classes use COCO's JSON (datasets.coco)."
        )
    place = existing_folder(path)
    for argument, part in (("images", images), ("labels", labels)):
        if not (place / part).is_dir():
            there = ", ".join(sorted(entry.name + "/" for entry in place.iterdir() if entry.is_dir()))
            raise ValueError(
                f"{argument}: {place.name} has no folder {part!r} (it has: {there or 'none'}); "
                f"name the right one, {argument}=…"
            )
    problems, notes = [], []
    pictures = _by_stem(place / images, images, problems, notes)
    maps = _by_stem(place / labels, labels, problems, notes)
    if not pictures:
        problems.append(Problem(f"{images}/", "holds no picture", f"Put files there: {', '.join(ENDINGS)}"))
    entries = []
    for stem, file in pictures.items():
        label = maps.pop(stem + suffix, None)
        if label is None:
            problems.append(
                Problem(
                    f"{images}/{file.name}",
                    f"has no label: there is no {labels}/{stem}{suffix}.png",
                    "Draw it, or move the picture elsewhere; a picture without objects has a label of zeros",
                    (stem,),
                )
            )
            continue

        def read(size, label=label):
            return read_labels(label, size, len(names), kind, ignore, values)

        entries.append(Entry(stem, file, f"{images}/{file.name}", f"{labels}/{label.name}", read))
    problems += [
        Problem(
            f"{labels}/{file.name}",
            f"belongs to no picture: there is no {stem.removesuffix(suffix)!r} in {images}/",
            "Name both alike, or move the label elsewhere",
        )
        for stem, file in maps.items()
    ]
    chosen, wrong = assign([entry.name for entry in entries], splits, group)
    return Source(
        place.resolve().name,
        names,
        checked_channels(channels),
        entries,
        chosen,
        problems + wrong,
        notes,
        len(pictures),
    )


def _by_stem(place: Path, shown: str, problems: list[Problem], notes: list[str]) -> dict[str, Path]:
    """The pictures in a folder by their stems, in order; two of one stem, and files of other kinds, are told of."""
    found: dict[str, Path] = {}
    others = []
    # Small and capital letters are told apart: on some systems a.png and A.png are two files.
    for file in sorted(place.iterdir()):
        if file.name.startswith(".") or file.name == "Thumbs.db":
            continue  # what systems leave behind
        if not file.is_file() or file.suffix.lower() not in ENDINGS:
            others.append(file.name)
        elif file.stem in found:
            problems.append(
                Problem(
                    f"{shown}/{file.name}",
                    f"has the same stem as {found[file.stem].name}",
                    "Rename or remove one; files belong together by their stems",
                    (file.stem,),
                )
            )
        else:
            found[file.stem] = file
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.append(f"{shown}/: not read, no picture: {', '.join(others[:3])}{more}")
    return found
