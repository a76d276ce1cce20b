"""A user's own picture files, and label maps as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import tifffile
from PIL import Image

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in brightness (ITU-R BT.709, as scikit-image's `rgb2gray`)."""


LARGE = 40_000_000
"""Pixels; a picture of more is read and predicted a window at a time (see `LargePicture`)."""


def read_picture(path: Path | str, channels: int) -> np.ndarray:
    """One picture file as a net takes it.

    Args:
        path: PNG, JPEG, TIFF or whatever else imageio reads; 8 or 16 bits, or floats in 0..1.
        channels: 1 (colours become brightness) or 3 (grey is repeated). Transparency is dropped.

    Returns:
        float32 `(height, width, channels)` in 0..1.

    Raises:
        ValueError: if the file is missing, no picture, a stack of several, or of numbers whose range is unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        pixels = np.asarray(imageio.imread(path))
    except Exception as error:  # imageio's plugins raise what they like, plain OSError to struct.error
        raise ValueError(
            f"{path}: cannot be read as a picture ({type(error).__name__}); give a PNG, JPEG or TIFF."
        ) from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    _check_pixels(path, pixels.shape, pixels.dtype)
    if pixels.dtype.kind == "f" and not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(f"{path}: {OUT_OF_RANGE.format(pixels.dtype)}")
    return _as_channels(pixels, channels)


OUT_OF_RANGE = "holds {} outside 0..1; save it with 8 or 16 bits, or as floats in 0..1."


def _check_pixels(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 3 or shape[-1] > 4:
        raise ValueError(
            f"{path}: has shape {shape}; give one picture (height, width) or (height, width, 3)."
        )
    if dtype not in (bool, np.uint8, np.uint16) and np.dtype(dtype).kind != "f":
        raise ValueError(f"{path}: {OUT_OF_RANGE.format(dtype)}")


def _as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pixels `(height, width, 1 to 4)` as float32 in 0..1 with 1 or 3 channels."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.float32)
    elif pixels.dtype in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    if channels == 1 and pixels.shape[-1] == 3:
        pixels = (pixels @ np.array(LUMINANCE, np.float32))[..., None]
    elif channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return np.clip(pixels, 0, 1).astype(np.float32)


def picture_size(path: Path | str) -> tuple[int, int] | None:
    """Height and width of a picture file, from its first bytes; `None` where they cannot be read."""
    try:
        if Path(path).suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                return file.pages[0].imagelength, file.pages[0].imagewidth
        with _any_size(), Image.open(path) as file:
            return file.height, file.width
    except Exception:  # whoever reads the file whole says what is wrong with it
        return None


class LargePicture:
    """A picture file of which windows are read, for pictures that should not be in memory as floats.

    An uncompressed TIFF stays on disk, whatever its size. Any other file has to be decoded whole, and is kept as it is
    decoded: a PNG or JPEG takes 1 byte of memory per pixel in grey and 4 in colour, a compressed TIFF what it holds.

    Args:
        path: PNG, JPEG or TIFF of 8 or 16 bits.
        channels: as for `read_picture`.

    Attributes:
        shape: `(height, width, channels)`.

    `picture[rows, columns]`, two slices or what `np.ix_` makes of two vectors, is what `read_picture` would have there:
    float32 `(rows, columns, channels)` in 0..1.

    Raises:
        ValueError: if the file is missing, no picture, a stack of several, or not of 8 or 16 bits.
    """

    def __init__(self, path: Path | str, channels: int):
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file.")
        try:
            self._pixels = _read_tiff(path) if path.suffix.lower() in TIFF else _Decoded(path)
        except Exception as error:  # as in `read_picture`
            raise ValueError(
                f"{path}: cannot be read as a picture ({type(error).__name__}); give a PNG, JPEG or TIFF."
            ) from error
        window = self._pixels[:1, :1]
        shape = (*self._pixels.shape[:2], *(window.shape[2:] or (1,)))
        _check_pixels(
            path,
            (*shape[:2], *self._pixels.shape[2:]) if len(self._pixels.shape) > 3 else shape,
            window.dtype,
        )
        if window.dtype.kind == "f":
            raise ValueError(
                f"{path}: holds {window.dtype}; save a picture as large as this with 8 or 16 bits."
            )
        self.shape = (*shape[:2], channels)

    def __getitem__(self, key) -> np.ndarray:
        rows, columns = (
            np.arange(side)[part] if isinstance(part, slice) else np.ravel(part)
            for part, side in zip(key, self.shape, strict=False)
        )
        top, left = rows.min(), columns.min()
        block = self._pixels[top : rows.max() + 1, left : columns.max() + 1]
        block = np.asarray(block[np.ix_(rows - top, columns - left)])
        return _as_channels(block if block.ndim == 3 else block[..., None], self.shape[-1])


TIFF = (".tif", ".tiff")


def _read_tiff(path: Path):
    try:
        return _Mapped(tifffile.memmap(path, mode="r"))
    except ValueError:  # compressed, or in pieces
        return tifffile.imread(path)


class _Mapped:
    """An array in a file, mapped anew for each window: pages that were read count as this process's memory no longer than
    the window is looked at."""

    def __init__(self, array: np.memmap):
        self._where = {"filename": array.filename, "dtype": array.dtype, "offset": array.offset}
        self.shape = array.shape

    def __getitem__(self, key) -> np.ndarray:
        return np.memmap(**self._where, mode="r", shape=self.shape)[key]


class _Decoded:
    """What Pillow decodes of a file, cut out without a second copy of the whole."""

    def __init__(self, path: Path):
        with _any_size():
            self._image = Image.open(path)
            if self._image.mode == "P":
                self._image = self._image.convert("RGB")
            self._image.load()
        self.shape = (self._image.height, self._image.width)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (part.indices(side) for part, side in zip(key, self.shape, strict=True))
        return np.asarray(self._image.crop((columns[0], rows[0], columns[1], rows[1])))


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's limit of 89 million pixels. It guards servers against small files that unpack to enormous pictures;
    here somebody names a file of their own, and a slide scan has four times as many."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A label map `(height, width)` as a 16-bit grey PNG.

    Raises:
        ValueError: if a label is negative or does not fit into 16 bits.
    """
    if labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"labels: from {labels.min()} to {labels.max()}; a 16-bit PNG holds 0 to 65535.")
    imageio.imwrite(path, labels.astype(np.uint16), extension=".png")
