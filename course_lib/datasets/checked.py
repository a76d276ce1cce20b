"""What your own data sets share, a folder's and a COCO file's: every sample is read once and checked, everything that is
wrong is reported at once, and what is sound is divided into splits."""

from __future__ import annotations

import hashlib
import inspect
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from course_lib._checks import one_of
from course_lib.datasets import reading
from course_lib.datasets.disk import expanded
from course_lib.datasets.errors import DataError
from course_lib.datasets.reading import Unusable
from course_lib.datasets.sample import Dataset, Sample, boxes_from_instances
from course_lib.datasets.splits import SPLITS, checksum

ALL = "all"
"""The split that holds every image."""
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders that say which split their images belong to."""
MOST = 40
"""Problems that a report prints; `Report.problems` holds all."""


# What is found ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One problem of one file.

    Attributes:
        file: the file, from the folder on, such as `"labels/a.png"`.
        what: what is wrong with it.
        fix: what to do about it.
        drops: names of the samples that cannot be used because of it.
    """

    file: str
    what: str
    fix: str
    drops: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.what}. {self.fix}."


@dataclass(frozen=True)
class Report:
    """The result of reading every file of a folder.

    Attributes:
        folder: the folder's (or the JSON file's) own name.
        problems: all that is wrong, in the order of the files.
        splits: split → names of its sound samples.
        pixels: int64 `(classes,)`: pixels of each class in the sound samples.
        ignored: pixels that do not count (-1), in the sound samples.
        notes: what is not wrong, but worth knowing.
        total: how many images there are, sound or not.
        objects: how many objects the sound samples have.
        crowds: how many regions of objects that nobody told apart (COCO's `iscrowd`) they have.
    """

    folder: str
    problems: tuple[Problem, ...]
    splits: Mapping[str, tuple[str, ...]]
    pixels: np.ndarray
    ignored: int = 0
    notes: tuple[str, ...] = ()
    total: int = 0
    objects: int = 0
    crowds: int = 0

    @property
    def sound(self) -> int:
        """How many images are left to use."""
        return sum(len(names) for names in self.splits.values())

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [
            f"{self.folder}: {numbered(self.total, 'image')}, {numbered(count, 'problem') if count else 'no problems'}"
        ]
        lines += [f"  {problem}" for problem in self.problems[:MOST]]
        if count > MOST:
            lines.append(f"  and {count - MOST} more")
        lines.append(
            "  to use: " + ", ".join(f"{split} {len(names)}" for split, names in self.splits.items())
        )
        if self.ignored or self.crowds:
            percent = 100 * self.ignored / max(self.ignored + int(self.pixels.sum()), 1)
            crowds = f", with {numbered(self.crowds, 'crowd')} in them" if self.crowds else ""
            lines.append(f"  will not count: {numbered(self.ignored, 'pixel')} ({percent:.2g} %){crowds}")
        lines += [f"  note: {note}" for note in self.notes]
        # A name from a JSON file may hold half of a surrogate pair, which no terminal prints.
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def numbered(count: int, noun: str) -> str:
    """`"1 image"`, `"2 images"`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class FolderProblems(DataError):
    """Files of a folder cannot be used. The message lists them; `report` holds the same as data."""

    def __init__(self, report: Report):
        self.report = report
        super().__init__(
            f"{report}\nFix these files and call again, or go on without them: skip=True leaves them out."
        )


class Faulty(Exception):
    """Raised while one sample is read; `problems` holds what is wrong."""

    def __init__(self, problems: Sequence[Problem]):
        super().__init__(str(problems[0]))
        self.problems = problems


# A sample's files ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroundTruth:
    """The content of the labels: `semantic`, `instances` (or `None`) and `classes` as in `Sample`, crowds in it, a
    note or `""`."""

    semantic: np.ndarray
    instances: np.ndarray | None
    classes: np.ndarray
    crowds: int = 0
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """The files of one sample.

    Attributes:
        name: the sample's name.
        image: its image file.
        image_shown, labels_shown: how messages call the image, and what holds its labels.
        read: `(height, width) -> GroundTruth`; raises `Unusable` where the labels do not fit an image of that size.
        labels: the label file, where each image has its own.
    """

    name: str
    image: Path
    image_shown: str
    labels_shown: str
    read: Callable[[tuple[int, int]], GroundTruth]
    labels: Path | None = None

    def load(self, channels: int, notes: list[str] | None = None) -> tuple[np.ndarray, GroundTruth]:
        """The image and its ground truth, or `Faulty` with all that is wrong."""
        shown = self.image_shown
        try:
            image = reading.read_image(self.image, channels, notes)
            shown = self.labels_shown
            return image, self.read(image.shape[:2])
        except Unusable as bad:
            raise Faulty([Problem(shown, *fault, (self.name,)) for fault in bad.faults]) from None


# Splits -------------------------------------------------------------------------------------------------------


def composed(name: str) -> str:
    """A name in the Unicode form NFC: macOS writes ä as a and two dots, others as one letter, and both look alike."""
    return unicodedata.normalize("NFC", name)


def grouper(group: str | Callable[[str], str] | None) -> Callable[[str], str]:
    """The function from a sample's name to its group; a text is a regular expression whose match is the group."""
    if group is None:
        return lambda name: name
    if callable(group):
        return lambda name: str(group(name))
    try:
        pattern = re.compile(composed(group))
    except (re.error, TypeError) as error:
        raise ValueError(
            f"group is {group!r}; it must be a function, or a regular expression such as 'patient[0-9]+' ({error})."
        ) from None

    def matched(name: str) -> str:
        if (found := pattern.search(name)) is None:
            raise ValueError(f"group is {group!r}; it must match every name, but it does not match {name!r}.")
        return found[0]

    return matched


def assign(
    names: Sequence[str], splits: Mapping[str, Iterable[str]] | None, group: str | Callable[[str], str] | None
) -> tuple[dict[str, str], list[Problem]]:
    """The split of each name, and what is wrong with the lists: names that are not there or in two splits, divided groups.

    Without lists, folders called train, val and test decide where all images lie in such folders, and else the checksum of
    the name (or of its group).
    """
    group_of, problems = grouper(group), []
    chosen: dict[str, str] = {}
    if splits is None:
        chosen = {name: SPLIT_FOLDERS.get(name.split("/")[0].lower(), "") for name in names if "/" in name}
        if len(chosen) < len(names) or not all(chosen.values()):
            return {name: checksum(group_of(name)) for name in names}, []
    for split, listed in (splits or {}).items():
        if split not in SPLITS:
            raise ValueError(f"splits has the key {split!r}; it must be one of {', '.join(SPLITS)}.")
        if isinstance(listed, str):
            raise ValueError(f"splits[{split!r}] is a string; it must be a list of names.")
    there = set(names)
    for split in SPLITS:
        for name in (composed(str(name)) for name in (splits or {}).get(split, ())):
            if name not in there:
                what = f"is listed in {split}, but there is no such image"
                problems.append(
                    Problem(name, what, "List names without their ending, as the files are called")
                )
                continue
            if chosen.get(name, split) != split:
                what = f"is listed in {chosen[name]} and in {split}"
                problems.append(
                    Problem(name, what, "List it once; what is learned must not be what is scored")
                )
            chosen[name] = split  # the later of train, val, test keeps it
    if group is not None:
        problems += _divided(
            chosen, {name: f"the group {group_of(name)}" for name in chosen}, "belongs to {}"
        )
    return chosen, problems


def _divided(chosen: Mapping[str, str], keys: Mapping[str, str], said: str) -> list[Problem]:
    """A problem for each sample whose like (the same key) lies in a split that is scored later than its own."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in chosen:
        if name in keys:
            members[keys[name]].append(name)
    problems = []
    for key, names in members.items():
        last = max((chosen[name] for name in names), key=SPLITS.index)
        keeper = next(name for name in names if chosen[name] == last)
        fix = "Keep them in one split, or the score tells how well the network remembers"
        for name in names:
            if chosen[name] != last:
                what = f"{said.format(key)}, in {chosen[name]}, as {keeper} is, in {last}"
                problems.append(Problem(name, what, fix, (name,)))
    return problems


# The check ----------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """What a folder or a JSON file holds, before its images are opened: entries, and problems of names and lists."""

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
        found: dict[str, tuple[np.ndarray, int, int]] = {}
        digests: dict[str, str] = {}
        remarks: dict[str, list[str]] = defaultdict(list)
        for entry in self.entries if check else ():
            said: list[str] = []
            try:
                image, ground_truth = entry.load(self.channels, said)
            except Faulty as bad:
                problems += bad.problems
                continue
            digest = hashlib.sha256(repr(image.shape).encode())
            digest.update(np.ascontiguousarray(image))
            digests[entry.name] = digest.hexdigest()
            counts = np.bincount(ground_truth.semantic.ravel() + 1, minlength=len(self.class_names) + 1)
            found[entry.name] = counts, len(ground_truth.classes), ground_truth.crowds
            for remark in said:
                remarks[remark].append(entry.image_shown)
            if ground_truth.note:
                remarks[ground_truth.note].append(entry.labels_shown)
        problems += _divided(self.chosen, digests, "is pixel by pixel the same image")
        dropped = {name for problem in problems for name in problem.drops}
        usable = [entry.name for entry in self.entries if entry.name not in dropped]
        splits = {split: tuple(name for name in usable if self.chosen.get(name) == split) for split in SPLITS}
        kept = [found[name] for names in splits.values() for name in names if name in found]
        counts = sum((counts for counts, _, _ in kept), np.zeros(len(self.class_names) + 1, int))
        for remark, files in remarks.items():
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            notes.append(f"{files[0]}{more}: {remark}")
        if left_out := len(self.entries) - len(self.chosen):
            notes.append(f"{numbered(left_out, 'image')} in none of the lists of splits")
        if kept:
            same = defaultdict(list)
            for name in (name for names in splits.values() for name in names):
                same[digests[name]].append(name)
            notes += [f"{', '.join(names)} are the same image" for names in same.values() if len(names) > 1]
            empty = [k for k in range(len(self.class_names)) if not counts[k + 1]]
            notes += [f"no pixel of the class {self.class_names[k]} ({k}) anywhere" for k in empty]
        return Report(
            self.title, tuple(problems), splits, counts[1:], int(counts[0]), tuple(notes), self.total or len(self.entries),
            sum(objects for _, objects, _ in kept), sum(crowds for _, _, crowds in kept),
        )  # fmt: skip

    def dataset(self, split: str, skip: bool, check: bool) -> FolderDataset:
        """The data set of one split, or `FolderProblems`."""
        one_of("split", split, (*SPLITS, ALL))
        report = self.report(check)
        if report.problems and not skip:
            raise FolderProblems(report)
        names = set(report.splits[split] if split != ALL else sum(report.splits.values(), ()))
        if not names:
            sizes = ", ".join(f"{other} {len(found)}" for other, found in report.splits.items())
            raise ValueError(
                f"split is {split!r}; it contains no image of {self.title} ({sizes}). A checksum of the name decides "
                "the split, and with few images a split may stay empty: give splits={'train': [names], 'val': [names]}, or "
                "sort the files of a folder into train/ and val/ within images/ and labels/."
            )
        return FolderDataset(self, split, [entry for entry in self.entries if entry.name in names], report)


class FolderDataset(Dataset):
    """Your own samples, read from their files on access.

    Attributes:
        report: what the check has found, a `Report`.
        files: the image and label files of all splits.
    """

    def __init__(self, source: Source, split: str, entries: Sequence[Entry], report: Report):
        self.name, self.split, self.report = source.title, split, report
        self.class_names, self.channels = source.class_names, source.channels
        self._entries = tuple(entries)
        self.files = tuple(
            file for entry in source.entries for file in (entry.image, entry.labels) if file is not None
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The samples' names, in order."""
        return tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self._entries[self.checked_index(index)]
        try:
            image, ground_truth = entry.load(self.channels)
        except Faulty as bad:
            raise DataError(f"{self.name}: {bad}") from None
        boxes = np.zeros((0, 4), np.float32)
        if ground_truth.instances is not None:
            boxes = boxes_from_instances(ground_truth.instances)
        return Sample(
            image, ground_truth.semantic, ground_truth.instances, boxes, ground_truth.classes, entry.name
        )


# Arguments ----------------------------------------------------------------------------------------------------


def options_of(source: Callable) -> Callable:
    """A decorator: the function's `**options` are the keyword arguments of `source`, and `help` shows them as its own."""

    def shown(function: Callable) -> Callable:
        own = inspect.signature(function)
        taken = [one for one in inspect.signature(source).parameters.values() if one.kind is one.KEYWORD_ONLY]
        kept = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        order = [one for one in kept if one.kind is not one.KEYWORD_ONLY] + taken
        order += [one for one in kept if one.kind is one.KEYWORD_ONLY]
        function.__signature__ = own.replace(parameters=order)
        return function

    return shown


def checked_class_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """`class_names` as a tuple of at least two different names, or a `ValueError`."""
    names = () if isinstance(class_names, str) else tuple(class_names)
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            f"class_names is {class_names!r}; it must be at least two different names, "
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
    place = expanded(path)
    if not place.is_dir():
        raise ValueError(
            f"{name} is {str(path)!r}; it must be a folder, but it {'is a file' if place.exists() else 'does not exist'}."
        )
    return place
