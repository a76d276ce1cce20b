"""A user's own picture files, and label maps as files."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in brightness (ITU-R BT.709, as scikit-image's `rgb2gray`)."""


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
    if pixels.ndim != 3 or pixels.shape[-1] > 4:
        raise ValueError(
            f"{path}: has shape {pixels.shape}; give one picture (height, width) or (height, width, 3)."
        )
    if pixels.dtype == bool:
        pixels = pixels.astype(np.float32)
    elif pixels.dtype in (np.uint8, np.uint16):
        pixels = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    elif (
        pixels.dtype.kind != "f"
        or not (0 <= np.nanmin(pixels) and np.nanmax(pixels) <= 1)
        or np.isnan(pixels).any()
    ):
        raise ValueError(
            f"{path}: holds {pixels.dtype} outside 0..1; save it with 8 or 16 bits, or as floats in 0..1."
        )
    if pixels.shape[-1] in (2, 4):
        pixels = pixels[..., :-1]
    if channels == 1 and pixels.shape[-1] == 3:
        pixels = (pixels @ np.array(LUMINANCE, np.float32))[..., None]
    elif channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return np.clip(pixels, 0, 1).astype(np.float32)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A label map `(height, width)` as a 16-bit grey PNG.

    Raises:
        ValueError: if a label is negative or does not fit into 16 bits.
    """
    if labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"labels: from {labels.min()} to {labels.max()}; a 16-bit PNG holds 0 to 65535.")
    imageio.imwrite(path, labels.astype(np.uint16), extension=".png")
