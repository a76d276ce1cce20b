"""Data sets: synthetic (cells, scenes), real (nuclei, membranes, camvid), photographs, and your own
(folder, coco)."""

from course_lib.datasets import collage, photographs
from course_lib.datasets.archive import DataError, DataUnavailable, SplitUnavailable
from course_lib.datasets.cells import CLASS_NAMES as CELL_CLASSES
from course_lib.datasets.cells import cells
from course_lib.datasets.checked import FolderDataset, FolderProblems, Report
from course_lib.datasets.coco_json import check_coco, coco
from course_lib.datasets.folder import check_folder, folder
from course_lib.datasets.real import (
    CAMVID_CLASSES,
    MEMBRANE_CLASSES,
    NUCLEI_CLASSES,
    camvid,
    membranes,
    nuclei,
)
from course_lib.datasets.sample import IGNORE, Dataset, Sample, boxes_from_instances
from course_lib.datasets.scenes import CLASS_NAMES as SCENE_CLASSES
from course_lib.datasets.scenes import scenes

__all__ = [
    "IGNORE",
    "DataError",
    "DataUnavailable",
    "Dataset",
    "FolderDataset",
    "FolderProblems",
    "Report",
    "Sample",
    "SplitUnavailable",
    "boxes_from_instances",
    "camvid",
    "cells",
    "channels",
    "check_coco",
    "check_folder",
    "class_names",
    "coco",
    "collage",
    "folder",
    "membranes",
    "nuclei",
    "photographs",
    "scenes",
]

CLASSES_AND_CHANNELS = {
    "cells": (CELL_CLASSES, 1),
    "scenes": (SCENE_CLASSES, 3),
    "nuclei": (NUCLEI_CLASSES, 1),
    "membranes": (MEMBRANE_CLASSES, 1),
    "camvid": (CAMVID_CLASSES, 3),
}


def class_names(name: str) -> tuple[str, ...]:
    """The class names of a data set, known without opening it: `class_names("camvid")[8]` is `"car"`."""
    return _known(name)[0]


def channels(name: str) -> int:
    """The channels of a set's images, 1 or 3."""
    return _known(name)[1]


def _known(name: str) -> tuple[tuple[str, ...], int]:
    if name not in CLASSES_AND_CHANNELS:
        raise ValueError(
            f"name is {name!r}; it must be one of {', '.join(CLASSES_AND_CHANNELS)}, whose classes and channels are "
            "known without opening them. In a recipe for your own images give class_names and channels in train_data."
        )
    return CLASSES_AND_CHANNELS[name]
