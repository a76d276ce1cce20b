"""Three real data sets, each one call: fluorescence nuclei, electron-microscopy membranes, street scenes.

The archives come from `course_lib.datasets.archive`: a folder of archives (`COURSE_DATA`), the user's cache,
or the public archive. Anyone who reports a number on them uses these splits; they are determined by the image's name
and never drawn anew.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.measure import block_reduce

from course_lib._checks import one_of
from course_lib.datasets import archive
from course_lib.datasets.disk import progress_bar, replacing
from course_lib.datasets.errors import ArchiveDamaged
from course_lib.datasets.sample import IGNORE, Dataset, Sample, boxes_from_instances, fingerprint, merge_masks
from course_lib.datasets.splits import SPLITS, checksum, split_of

NUCLEI_CLASSES = ("background", "nucleus")
MEMBRANE_CLASSES = ("membrane", "cell")
CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)
CAMVID_UNLABELLED = 11
CAMVID_SIZE = (360, 480)
IMAGES = "data/membrane/train/image/"
"""Where the membranes lie in their archive."""
PACKED = "packed-1"
"""The folder of decoded nuclei. Its number rises when what is written there changes."""
DARK = 128
"""Fluorescence images are bright nuclei on black: their mean grey value stays below this one of 256."""


def nuclei(split: str = "train", held_out: tuple[int, int] | None = None) -> Dataset:
    """Nuclei under the fluorescence microscope: the 2018 Data Science Bowl, with its labels mended.

    Images `(height, width, 1)`, most 256 x 256, up to 1040 x 1388; classes `("background", "nucleus")`; one
    instance per nucleus. The archive holds one mask file per nucleus. Where two masks overlap, the smaller
    nucleus keeps the pixel (else it could vanish beneath the larger one; of two of one size, the one whose
    file name comes later); a mask that is empty is left out. Ids follow the order of the mask files' names,
    which is unrelated to location and size.

    Only the fluorescence images are used: the three colour channels equal, and a mean grey value below 128.
    Split by `zlib.crc32(image_id.encode()) % 10`: 0 and 1 test, 2 val, the rest train.

    With `held_out` the split is by source instead, as far as the size of an image tells its source: the images of
    `train` that have this size are test, those of the other sizes stay in train and val.

    Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
    Nature Methods 16 (2019); labels mended by K. Lopuhin and others. Licence: CC0.

    Args:
        split: `"train"`, `"val"` or `"test"`.
        held_out: height and width in pixels, such as `(520, 696)`.

    Raises:
        ValueError: if there is no split of that name, or no image of the size `held_out`.
        DataUnavailable: if the archive is not here and cannot be downloaded.
        SplitUnavailable: if the archive that is here does not hold the split.
        ArchiveDamaged: if the archive is not what it should be.
    """
    one_of("split", split, SPLITS)
    if held_out is not None:
        return _by_source(split, tuple(held_out))
    root = archive.ensure("nuclei", split)
    packed = root / PACKED / split
    if not packed.is_dir():
        with archive.locked("nuclei"):
            if not packed.is_dir():  # another process may just have packed it
                _pack(root / "stage1_train", split, packed)
    return _Packed("nuclei", split, NUCLEI_CLASSES, packed)


def _by_source(split: str, size: tuple[int, int]) -> Dataset:
    """`nuclei` with the images of one size held out."""
    found = nuclei("train" if split == "test" else split)
    sizes = {tuple(entry[1:3]) for entry in found._index}
    if split != "val" and size not in sizes:
        known = ", ".join(map(str, sorted(sizes)))
        raise ValueError(f"held_out is {size}; it must be one of the sizes of the training images, {known}.")
    found.split = split
    found._index = [entry for entry in found._index if (tuple(entry[1:3]) == size) == (split == "test")]
    return found


def membranes(split: str = "train") -> Dataset:
    """Nerve tissue under the electron microscope: the ISBI 2012 challenge, on which U-Net was published.

    Images `(512, 512, 1)`; classes `("membrane", "cell")`; an instance is a connected piece of cell. Pieces
    connect over edges alone (4-connected): a membrane may be one pixel wide, and a diagonal step must not
    leak through it. Slices 0 to 19 are train, 20 to 23 val, 24 to 29 test; a sample's name is the number of
    its slice.

    Source: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for
    connectomics", Frontiers in Neuroanatomy 9:142 (2015); Cardona et al., PLoS Biology 8(10): e1000502
    (2010). Licence: the set's own terms.

    Args:
        split: `"train"`, `"val"` or `"test"`.

    Raises:
        ValueError: if there is no split of that name.
        DataUnavailable: if the archive is not here and cannot be downloaded.
        SplitUnavailable: if the archive that is here does not hold the split.
        ArchiveDamaged: if the archive is not what it should be.
    """
    one_of("split", split, SPLITS)
    folder = archive.ensure("membranes", split) / "data" / "membrane" / "train"
    images = (
        path
        for path in (folder / "image").iterdir()
        if split_of("membranes", f"{IMAGES}{path.name}") == split
    )
    names = sorted((path.stem for path in images), key=int)

    def read(name: str) -> Sample:
        image = _grey(folder / "image" / f"{name}.png")
        cell = _grey(folder / "label" / f"{name}.png") > 127
        instances, _ = ndimage.label(cell)  # its default structure is the 4-connected cross
        return _sample(image, cell, instances, name)

    return _Lazy("membranes", split, MEMBRANE_CLASSES, 1, names, read)


def camvid(split: str = "train", shrink: int = 1, held_out: str | None = None) -> Dataset:
    """Street scenes from a driving car: CamVid in the form that SegNet was trained on.

    Images `(360, 480, 3)`, or smaller by `shrink`; eleven classes, `CAMVID_CLASSES`; unlabelled pixels are -1. There are no
    instances. The splits are the three lists of the archive, in which all of "val" comes from a drive that most of "train"
    comes from too. With `held_out`, "val" is a drive of its own: all its labelled frames, and "train" leaves them out.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video: a high-definition ground truth
    database", Pattern Recognition Letters 30 (2009); Badrinarayanan, Kendall, Cipolla, "SegNet",
    arXiv:1511.00561.
    Licence: CC BY-NC 4.0, so not for commercial use.

    Args:
        split: `"train"`, `"val"` or `"test"`.
        shrink: a divisor of both sides, such as 2 for `(180, 240)`: a pixel of the image is the mean of a block of
            `shrink` × `shrink`, its label the one near the block's middle (labels cannot be averaged).
        held_out: a drive of the archive's training set, such as `"0006R0"`; `None` for the archive's own split.

    Raises:
        ValueError: if there is no split or no drive of that name, or `shrink` does not divide the sides.
        DataUnavailable: if the archive is not here and cannot be downloaded.
        SplitUnavailable: if the archive that is here does not hold the split.
        ArchiveDamaged: if the archive is not what it should be.
    """
    one_of("split", split, SPLITS)
    if (
        isinstance(shrink, bool)
        or not isinstance(shrink, int)
        or shrink < 1
        or math.gcd(*CAMVID_SIZE) % shrink
    ):
        raise ValueError(
            f"shrink is {shrink!r}; it must be a whole number that divides {CAMVID_SIZE[0]} and {CAMVID_SIZE[1]}, "
            "such as 1, 2 or 4."
        )
    files = {}
    for part in (split,) if held_out is None or split == "test" else ("train", "val"):
        folder = archive.ensure("camvid", part) / "CamVid"
        # A pair for each image, "/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png".
        with _unpacked_file(folder / f"{part}.txt") as listing:
            entries = [entry.rpartition("/")[2] for entry in listing.read_text(encoding="utf-8").split()]
            for image, label in zip(entries[::2], entries[1::2], strict=True):
                files[Path(image).stem] = folder / part / image, folder / f"{part}annot" / label
    if held_out is not None and split != "test":
        drives = sorted({name.partition("_")[0] for name in files})
        if held_out not in drives:
            raise ValueError(
                f"held_out is {held_out!r}; the drives of the training set are {', '.join(drives)}."
            )
        files = {
            name: paths
            for name, paths in files.items()
            if (name.partition("_")[0] == held_out) == (split == "val")
        }

    def read(name: str) -> Sample:
        image, label = files[name]
        semantic = np.asarray(_open(label), np.int32)
        semantic = np.where(semantic == CAMVID_UNLABELLED, IGNORE, semantic)
        pixels = np.asarray(_open(image).convert("RGB"), np.float32) / 255
        if shrink > 1:
            pixels = block_reduce(pixels, (shrink, shrink, 1), np.mean).astype(np.float32)
            semantic = semantic[shrink // 2 :: shrink, shrink // 2 :: shrink]
        return Sample(
            image=pixels,
            semantic=semantic,
            instances=None,
            boxes=np.zeros((0, 4), np.float32),
            classes=np.zeros(0, np.int32),
            name=name,
        )

    # The name of the part is in the data's fingerprint: other drives are other data.
    part = split if held_out is None else f"{split}, {held_out} held out"
    return _Lazy("camvid", part, CAMVID_CLASSES, 3, list(files), read)


def _open(path: Path) -> Image.Image:
    with _unpacked_file(path):
        image = Image.open(path)
        image.load()
        return image


@contextmanager
def _unpacked_file(path: Path) -> Iterator[Path]:
    """Say what to do when a file of the cache has gone or was changed since it was unpacked and verified."""
    try:
        yield path
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
    ):  # Pillow's ways of saying that it cannot read an image
        folder = next((parent for parent in path.parents if (parent / archive.MARKER).is_file()), path.parent)
        raise ArchiveDamaged(
            f"{path.relative_to(folder)} in the cache is missing or unreadable. "
            f"Delete the folder {folder}; the next call creates it again."
        ) from None


def _grey(path: Path) -> np.ndarray:
    return np.asarray(_open(path).convert("L"))


def _sample(grey: np.ndarray, foreground: np.ndarray, instances: np.ndarray, name: str) -> Sample:
    boxes = boxes_from_instances(instances)
    return Sample(
        image=grey[..., None].astype(np.float32) / 255,
        semantic=foreground.astype(np.int32),
        instances=instances.astype(np.int32),
        boxes=boxes,
        classes=np.ones(len(boxes), np.int32),
        name=name,
    )


def _read_nuclei(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Grey image and instance map of one image's folder; `None` where it is no fluorescence image."""
    colour = np.asarray(_open(folder / "images" / f"{folder.name}.png").convert("RGB"))
    grey = colour[..., 0]
    if (colour != grey[..., None]).any() or grey.mean() >= DARK:
        return None
    masks = (_grey(path) > 127 for path in sorted((folder / "masks").glob("*.png")))
    return grey, merge_masks(masks, grey.shape)[0]


def _pack(images: Path, split: str, folder: Path) -> None:
    """Decode a split once and for all: half a minute for its thousands of small mask files, then none."""
    sources = sorted(source for source in images.iterdir() if checksum(source.name) == split)
    index, offset = [], 0
    with (
        replacing(folder) as partial,
        progress_bar(f"nuclei {split}: reading the masks", len(sources), "images") as bar,
    ):
        with open(partial / "images.bin", "wb") as greys, open(partial / "instances.bin", "wb") as maps:
            for source in sources:
                if (found := _read_nuclei(source)) is not None:
                    grey, instances = found
                    greys.write(grey.tobytes())
                    maps.write(instances.astype("<u2").tobytes())
                    index.append((source.name, *grey.shape, offset))
                    offset += grey.size
                bar.update()
        (partial / "index.json").write_text(json.dumps(index), encoding="utf-8")


class _Pinned(Dataset):
    """A set whose every file was compared with the archive's manifest."""

    def fingerprint(self) -> str:
        manifest = archive.MANIFEST.parent / "manifests" / f"{self.name}.json"
        facts = self.name, self.split, len(self), manifest.read_text(encoding="utf-8")
        return fingerprint([self[0]] if len(self) else [], *facts)


class _Packed(_Pinned):
    """Samples of one object class in the files that `_pack` wrote, read on access."""

    def __init__(self, name: str, split: str, class_names: tuple[str, ...], folder: Path):
        self.name, self.split, self.class_names, self.channels = name, split, class_names, 1
        with _unpacked_file(folder / "index.json") as index:
            self._index = json.loads(index.read_text(encoding="utf-8"))
            pixels = sum(height * width for _, height, width, _ in self._index)
        with _unpacked_file(folder / "images.bin") as images:
            self._images = np.memmap(images, np.uint8, "r", shape=(pixels,))
        with _unpacked_file(folder / "instances.bin") as instances:
            self._instances = np.memmap(instances, "<u2", "r", shape=(pixels,))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:
        name, height, width, offset = self._index[self.checked_index(index)]
        span = slice(offset, offset + height * width)
        instances = np.array(self._instances[span], np.int32).reshape(height, width)
        return _sample(np.array(self._images[span]).reshape(height, width), instances > 0, instances, name)


class _Lazy(_Pinned):
    """Samples that are read from their own files on access, so that the set never lies in memory whole."""

    def __init__(
        self,
        name: str,
        split: str,
        class_names: tuple[str, ...],
        channels: int,
        names: Sequence[str],
        read: Callable[[str], Sample],
    ):
        self.name, self.split, self.class_names, self.channels = name, split, class_names, channels
        self._names, self._read = tuple(names), read

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        return self._read(self._names[self.checked_index(index)])
