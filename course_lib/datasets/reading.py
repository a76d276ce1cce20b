"""One reader for all image files and label maps. It relies on a file's content, never on its extension.

The first bytes and the header tell: format, photometric interpretation, palette, orientation (EXIF), alpha and
other extra samples, compression, number type, byte order, bits per sample. What follows from that is either an image as
everybody sees it, or one sentence that names what the reader cannot take and the way out. `docs/formats.md` has the table.

Pillow reads everything but TIFF. A TIFF is described by tifffile and decoded by tifffile or Pillow; for what neither can,
`pip install imagecodecs` helps.
"""

import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

try:
    import imagecodecs
except ImportError:
    imagecodecs = None

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in brightness (ITU-R BT.709, as scikit-image's `rgb2gray`)."""

SLACK = 1e-3
"""How far floats may lie outside 0..1: programs round."""

LARGE = 40_000_000
"""Pixels; an image of more is read and predicted a window at a time (see `LargeImage`)."""

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".jfif", ".jpe", ".avif"),
)
"""Endings of the files in a folder that are taken for images, in small or capital letters."""


class Unusable(ValueError):
    """A file cannot be used as an image or as a label map.

    Attributes:
        faults: pairs of what is wrong and how to fix it.
    """

    def __init__(self, what: str, fix: str, *more: tuple[str, str], file: Path | str = ""):
        self.faults = ((what, fix), *more)
        said = " ".join(f"{what}. {fix}." for what, fix in self.faults)
        super().__init__(f"{file}: {said}" if file else said)


# Arrays from files --------------------------------------------------------------------------------------------


def read_image(path: Path | str, channels: int, notes: list[str] | None = None) -> np.ndarray:
    """One image file as a network takes it.

    Args:
        path: the file, of any format in `docs/formats.md`; of 1 to 16 bits a sample, or floats in 0..1.
        channels: 1 (colours become brightness) or 3 (grey is repeated). Transparency is dropped.
        notes: a list to which is added what a user should know about the file, such as 12-bit numbers in 16 bits.

    Returns:
        float32 `(height, width, channels)` in 0..1, turned as the file says that it is to be seen.

    Raises:
        Unusable: if the file cannot be read, is larger than `LARGE`, or holds several images or other numbers.
    """
    with _named(path):
        opened = _opened(Path(path))
        opened.check_size()
        opened.check_numbers()
        samples = opened.load()[:, :]
        if opened.top is None and not ((samples > -SLACK) & (samples < 1 + SLACK)).all():
            numbers = (
                "NaN" if np.isnan(samples).any() else f"numbers from {samples.min():g} to {samples.max():g}"
            )
            raise Unusable(f"contains {numbers}, floats outside 0..1", RESCALE)
        if notes is not None:
            notes += opened.notes
            if opened.alpha and samples[..., opened.alpha].min() < (opened.top or 1):
                notes.append("transparent in places; transparency is dropped, so what lies beneath is read")
            bits = int(samples.max(initial=0)).bit_length() if opened.top == 65535 else 16
            if 0 < bits < 14:
                notes.append(
                    f"its values need {bits} of their 16 bits: if the camera has no more, the image is read "
                    f"{2 ** (16 - bits)} times too dark; multiply them, or train with normalization 'stretch'"
                )
        return opened.finish(samples, channels)


def read_labels(path: Path | str, known: Container[int] | None = None, told: bool = False) -> np.ndarray:
    """The ids in a label file: the stored numbers; of a palette image the indices, not the colours.

    Args:
        path: a grey or palette PNG, TIFF, BMP or GIF of whole numbers, losslessly compressed.
        known: the ids that may occur. Programs that write a grey image as a GIF renumber its levels and keep them in a
            palette of greys; where that has been done, `known` decides whether indices or grey levels are the ids.
        told: whether a user has named the ids in `known`, one by one.

    Returns:
        int64 `(height, width)`, turned as the file says that it is to be seen.

    Raises:
        Unusable: if the file cannot be read, is lossy, larger than `LARGE`, or holds colours or fractions.
    """
    with _named(path):
        opened = _opened(Path(path))
        if opened.no_labels:
            raise Unusable(*opened.no_labels)
        if opened.meaning not in ("grey", "palette") or opened.bands > 1:
            colours = "grey and alpha" if opened.meaning == "grey" else opened.shown
            raise Unusable(
                f"holds colours ({colours}), where each pixel should be the number of its class",
                "Save it as a grey or palette PNG of ids; coloured labels have to be looked up colour by colour first",
            )
        if opened.inverted and opened.top != 1:
            raise Unusable(
                "says that 0 is white (MinIsWhite), so it is not clear whether its ids count from black or from white",
                "Save it as a grey PNG of ids",
            )
        opened.check_size()
        samples = opened.load()[:, :]
        if samples.dtype.kind not in "biu":
            raise Unusable(
                f"contains {samples.dtype}, not whole numbers", "Save it with 8 or 16 bits as whole numbers"
            )
        if samples.dtype == np.uint64 and samples.max(initial=0) > np.iinfo(np.int64).max:
            raise Unusable(f"holds the label {samples.max()}", "Number the objects from 1 on")
        white = opened.inverted and not opened.boolean
        ids = (~samples if white else samples // opened.step).astype(np.int64)
        return ids if opened.palette is None else _of_palette(ids, opened.palette, known, told)


def pixel_count(path: Path | str) -> int | None:
    """How many pixels an image file has, from its header; `None` where that cannot be read."""
    try:
        with _named(path):
            height, width = _opened(Path(path)).size
    except Unusable:  # whoever reads the file whole says what is wrong with it
        return None
    return height * width


class LargeImage:
    """An image file of which windows are read, for images that should not be in memory as floats.

    An uncompressed TIFF stays on disk, whatever its size. Any other file has to be decoded whole, and is kept as it is
    decoded: a PNG or JPEG takes 1 byte of memory per pixel in grey and 4 in colour, a compressed TIFF what it holds.

    Args:
        path: a file of at most 16 bits a sample.
        channels: as for `read_image`.

    Attributes:
        shape: `(height, width, channels)`.

    `image[rows, columns]`, two slices or what `np.ix_` makes of two vectors, is what `read_image` would have there:
    float32 `(rows, columns, channels)` in 0..1.

    Raises:
        Unusable: if the file cannot be read, holds several images, or other numbers than those of 1 to 16 bits.
    """

    def __init__(self, path: Path | str, channels: int):
        with _named(path):
            self._opened = _opened(Path(path))
            self._opened.check_numbers()
            if self._opened.top is None:
                raise Unusable("holds floats", "Save an image of this size with 8 or 16 bits")
            self._samples = self._opened.load(in_windows=True)
        self.shape = (*self._samples.shape[:2], channels)

    def __getitem__(self, key) -> np.ndarray:
        rows, columns = (
            np.arange(side)[part] if isinstance(part, slice) else np.ravel(part)
            for part, side in zip(key, self.shape, strict=False)
        )
        top, left = rows.min(), columns.min()
        block = self._samples[top : rows.max() + 1, left : columns.max() + 1]
        return self._opened.finish(np.asarray(block[np.ix_(rows - top, columns - left)]), self.shape[-1])


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A label map `(height, width)` as a 16-bit grey PNG.

    Raises:
        ValueError: if a label is negative or does not fit into 16 bits.
    """
    if labels.min() < 0 or labels.max() > 65535:
        raise ValueError(f"labels: from {labels.min()} to {labels.max()}; a 16-bit PNG holds 0 to 65535.")
    imageio.imwrite(path, labels.astype(np.uint16), extension=".png")


# What a file says of itself -----------------------------------------------------------------------------------

RESCALE = "Save it with 8 or 16 bits, or as floats in 0..1"
COPY_AGAIN = "Copy it again from where it came; it may have been cut short"

OTHERS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "WEBP", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of the formats that are read, besides TIFF."""

ORIENTATION = 274
"""The tag that says how an image is turned, in EXIF as in TIFF."""

TURNS = dict(enumerate([
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
], start=2))  # fmt: skip
"""What makes an image of each orientation upright."""

LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WebP", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
"""Formats that may change values, by Pillow's names, and what people call them."""

MODES = {
    **{mode: ("grey", 255) for mode in ("L", "LA", "La")},
    **{mode: ("grey", 65535) for mode in ("I", "I;16", "I;16B", "I;16L")},
    **{mode: ("rgb", 255) for mode in ("RGB", "RGBA", "RGBX", "RGBa", "YCbCr")},
    **{mode: ("palette", 255) for mode in ("P", "PA")},
    "1": ("grey", 1),
    "F": ("grey", None),
    "CMYK": ("cmyk", 255),
}
"""What Pillow's modes mean, and the sample of full brightness."""

PHOTOMETRIC = {
    0: ("grey", 1),
    1: ("grey", 1),
    2: ("rgb", 3),
    3: ("palette", 1),
    5: ("cmyk", 4),
    6: ("rgb", 3),
}
"""What a TIFF's photometric interpretations mean, and of how many samples: MinIsWhite, MinIsBlack, RGB, palette,
separated, YCbCr (which the decoder makes RGB)."""

BUILT_IN = (1, 8, 32773, 32946, 34925)
"""Compressions of TIFF that tifffile decodes without imagecodecs: none, deflate (twice), PackBits, LZMA."""

LOSSLESS = (*BUILT_IN, 2, 3, 4, 5, 32771, 34926, 34933, 50000)
"""These, CCITT, LZW, PNG, and Zstandard."""

LIBTIFF = (2, 3, 4, 5, 6, 7, 50000)
"""Further ones that Pillow can decode: CCITT, LZW, JPEG, Zstandard."""

FOREIGN = {
    b"%PDF": "a PDF", b"\x93NUMPY": "a NumPy array", b"PK\3\4": "a zip archive", b"\x89HDF": "an HDF5 file",
    b"ZISRAWFILE": "a CZI file of ZEN", b"8BPS": "a Photoshop file", b"SIMPLE  =": "a FITS file", b"{": "a text in JSON",
    b"\xff\xd8\xff": "a damaged JPEG, or one of a rare kind (12 bits, lossless, JPEG-LS)",
    b"v/1\1": "an OpenEXR file", b"\x1f\x8b": "a gzip archive", b"NRRD": "an NRRD file", b"MATLAB": "a MATLAB file",
    b"gimp xcf": "a GIMP file", b"%!PS": "a PostScript file",
    b"\xda\xce\xbe\n": "an ND2 file", b"#?RADIANCE": "an HDR file",
    b"\xff\n": "a JPEG XL", b"\0\0\0\x0cJXL ": "a JPEG XL", b"<": "a text in XML, HTML or SVG",
}  # fmt: skip
"""First bytes of files that people take for images."""


@dataclass
class _Opened:
    """An image file whose header has been read.

    Attributes:
        size: height and width as they are stored.
        load: gives the samples, `(height, width)` or `(height, width, bands)`; with `in_windows=True`, what can be cut
            like such an array.
        meaning: "grey", "palette", "rgb" or "cmyk".
        top: the sample that stands for full brightness; `None` for floats.
        dtype: of the samples.
        bands: samples of a pixel.
        shown: what messages call its colours.
        palette: uint8 `(n, 3)`.
        inverted: whether 0 is white.
        boolean: whether it is a boolean array of tifffile, whose numbers as labels are the stored ones all the same.
        alpha: the band that says how opaque a pixel is; 0 if there is none.
        premultiplied: whether the colours are already multiplied by the alpha that follows them.
        step: by how much the decoder has multiplied samples of less than 8 bits.
        no_labels: why it cannot hold labels, and how to fix it.
        notes: what a user should know.
    """

    size: tuple[int, int]
    load: Callable[..., Any]
    meaning: str
    top: int | None
    dtype: np.dtype
    bands: int = 1
    shown: str = ""
    palette: np.ndarray | None = None
    inverted: bool = False
    boolean: bool = False
    alpha: int = 0
    premultiplied: bool = False
    step: int = 1
    no_labels: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def check_size(self) -> None:
        height, width = self.size
        if height * width > LARGE:
            raise Unusable(
                f"is {height} × {width} pixels (height × width), more than {LARGE / 10**6:g} million",
                "Split it into pieces of at most that size",
            )

    def check_numbers(self) -> None:
        kind, size = self.dtype.kind, self.dtype.itemsize
        if kind not in "buf" or (kind == "u" and size > 2):
            raise Unusable(f"contains {self.dtype.name} numbers, whose range is not known", RESCALE)

    def finish(self, samples: np.ndarray, channels: int) -> np.ndarray:
        """Samples `(height, width)` or `(height, width, bands)` as float32 in 0..1 with 1 or 3 channels."""
        if samples.ndim == 2:
            samples = samples[..., None]
        if self.palette is not None:
            pixels = self.palette[np.minimum(samples[..., 0], len(self.palette) - 1)].astype(np.float32) / 255
        else:
            pixels = samples.astype(np.float32) / (self.top or 1)
        if self.inverted:
            pixels[..., 0] = 1 - pixels[..., 0]
        colours = 1 if self.meaning == "grey" else 3
        if self.premultiplied:
            alpha = pixels[..., colours : colours + 1]
            pixels = np.divide(pixels, alpha, out=np.zeros_like(pixels), where=alpha > 0)
        if self.meaning == "cmyk":
            pixels = (1 - pixels[..., :3]) * (1 - pixels[..., 3:4])
        pixels = pixels[..., :colours]
        if channels == 1 and colours == 3:
            pixels = (pixels @ np.array(LUMINANCE, np.float32))[..., None]
        elif channels == 3 and colours == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        return np.clip(pixels, 0, 1).astype(np.float32)


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Every error becomes an `Unusable` that names the file."""
    try:
        yield
    except Unusable as error:
        raise Unusable(*error.faults[0], *error.faults[1:], file=path) from None
    except MemoryError:
        raise Unusable("does not fit into memory", "Split it into pieces", file=path) from None
    except Exception as error:  # decoders raise what they like, plain OSError to struct.error
        raise Unusable(f"cannot be decoded ({_short(error)})", COPY_AGAIN, file=path) from error


def _short(error: Exception) -> str:
    """An error's kind and the beginning of its text, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}".removesuffix(": ")


def _opened(path: Path) -> _Opened:
    """The file's header."""
    try:
        if path.is_dir():
            raise Unusable("is a folder", "Give an image file")
        if not path.exists():
            raise Unusable("there is no such file", "Put the file there, or remove it from the list")
        if not path.is_file():  # a pipe, a device
            raise Unusable("is not an ordinary file", "Give an image file")
        with path.open("rb") as file:
            head = file.read(512)
    except (
        OSError,
        ValueError,
    ) as error:  # a name that is too long or holds a null, a folder that may not be read
        if isinstance(error, Unusable):
            raise
        reason = getattr(error, "strerror", error)
        raise Unusable(f"cannot be opened ({reason})", "Check its name and its permissions") from None
    if not head:
        raise Unusable("is empty (0 bytes)", "Copy it again from where it came")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff(path)
    return _open_other(path, head)


def _several(count: int) -> Unusable:
    return Unusable(f"holds {count} images", "Save each image, or each slice of a stack, as a separate file")


# All formats but TIFF -----------------------------------------------------------------------------------------

_LIMIT = threading.Lock()


def _pillow(path: Path, formats: tuple[str, ...] | None) -> Image.Image:
    """`Image.open` without its limit of 89 million pixels. It guards servers against small files that unpack to enormous
    images; here the size is checked in a way of our own, and a slide scan may have four times as many."""
    Image.init()
    with _LIMIT:  # the limit is a variable of Pillow's module, and data sets are read by several threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=formats and [name for name in formats if name in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_other(path: Path, head: bytes) -> _Opened:
    try:
        file = _pillow(path, OTHERS)
    except UnidentifiedImageError:
        raise _not_read(path, head) from None
    with file:
        mode, kind = file.mode, file.format
        if kind != "MPO" and (count := getattr(file, "n_frames", 1)) > 1:  # of an MPO the others are previews
            raise _several(count)
        if mode not in MODES:
            raise Unusable(f"holds colours as {mode}", "Save it as RGB")
        meaning, top = MODES[mode]
        size = file.height, file.width
        palette = None
        if meaning == "palette":
            palette = np.asarray(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
        bands = len(file.getbands())
    step, notes, no_labels = 1, (), None
    dtype = {1: bool, 255: np.uint8, 65535: np.uint16, None: np.float32}[top]
    load = partial(_load_other, path, dtype)
    if kind == "PNG":
        depth, colour = head[24], head[25]
        if depth < 8 and mode == "L":
            step = 255 // (2**depth - 1)
        if depth == 16 and colour != 0:
            if imagecodecs is None:
                notes = ("16-bit colours are read with 8 bits; for all 16: pip install imagecodecs",)
            else:
                top, dtype, load = 65535, np.uint16, partial(_load_deep_png, path)
                if colour == 4:  # grey and alpha, of which Pillow makes colours
                    meaning, bands = "grey", 2
    if kind == "JPEG" and mode == "CMYK" and "adobe" not in file.info:
        what = "is a CMYK JPEG without Adobe's mark, so it is not clear whether 0 means full ink or none"
        raise Unusable(what, "Save it as RGB")
    if kind in LOSSY:
        no_labels = _lossy(f"{'an' if kind == 'AVIF' else 'a'} {LOSSY[kind]}")
    elif kind == "PPM":
        no_labels = (
            "is a PNM file, which programs read differently",
            "Save it as a grey PNG of ids",
        )
    return _Opened(
        size, load, meaning, top, np.dtype(dtype), bands, mode, palette,
        step=step, no_labels=no_labels, notes=notes, alpha=bands - 1 if mode[-1] in "Aa" else 0,
    )  # fmt: skip


def _load_other(path: Path, dtype: type, in_windows: bool = False):
    with _pillow(path, OTHERS) as file:
        file.load()
        turn = TURNS.get(_orientation(file))
        image = file if turn is None else file.transpose(turn)
    if image.mode == "YCbCr":
        image = image.convert("RGB")
    return _Decoded(image) if in_windows else np.asarray(image).astype(dtype, copy=False)


def _load_deep_png(path: Path, in_windows: bool = False) -> np.ndarray:
    with _pillow(path, OTHERS) as file:
        orientation = _orientation(file)
    return _turned(imagecodecs.png_decode(path.read_bytes()), orientation)


def _orientation(file: Image.Image) -> int:
    """How the image is turned; a PNG may say so at its end, so that Pillow decodes it first."""
    try:
        return file.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to refuse an image
        return 1


class _Decoded:
    """What Pillow has decoded, cut out without a second copy of the whole."""

    def __init__(self, image: Image.Image):
        self._image, self.shape = image, (image.height, image.width)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (part.indices(side) for part, side in zip(key, self.shape, strict=True))
        return np.asarray(self._image.crop((columns[0], rows[0], columns[1], rows[1])))


def _lossy(name: str) -> tuple[str, str]:
    return (
        f"is {name}, which changes values where it saves space, so that ids blur at every edge",
        "Export the labels again as PNG; converting this file does not bring them back",
    )


def _not_read(path: Path, head: bytes) -> Unusable:
    """What a file is that is none of the formats."""
    if head.startswith(b"version https://git-lfs"):
        return Unusable("is a pointer of Git LFS, not the file itself", "Fetch it: git lfs pull")
    starts = head, head.removeprefix(b"\xef\xbb\xbf").lstrip()
    name = next((name for first, name in FOREIGN.items() if any(one.startswith(first) for one in starts)), "")
    if head[4:8] == b"ftyp":
        photograph = head[8:12] in (b"heic", b"heix", b"mif1", b"avif")
        name = "an HEIC or AVIF photograph" if photograph else "a film"
        if head[8:12] == b"avif" and "AVIF" in Image.OPEN:
            name = "a damaged AVIF"
    elif head[128:132] == b"DICM":
        name = "a DICOM file"
    if not name:
        try:
            with _pillow(path, None) as file:
                name = f"a file of the format {file.format}"
        except Exception:  # none that Pillow knows either, or damaged
            return Unusable(
                "cannot be read as an image: its first bytes are of no known format",
                f"{GIVE}, or {COPY_AGAIN[0].lower()}{COPY_AGAIN[1:]}",
            )
    return Unusable(f"is {name}, which is not read here", GIVE)


GIVE = "Save it as PNG, JPEG or TIFF"


# TIFF ---------------------------------------------------------------------------------------------------------


def _turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Samples as they are seen: 2 to 4 mirror or turn them upside down, 5 to 8 exchange rows and columns before."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _whole_page(file: tifffile.TiffFile) -> tuple[int, Any]:
    """The one image in a TIFF, besides smaller copies (subfile type 1) and masks (4), and where it stands."""
    count = len(file.pages)
    whole = [k for k in range(count) if not file.pages[k].subfiletype & 5]
    if not count:
        raise Unusable("is cut short: its directory is missing", COPY_AGAIN)
    if count == 1 and 330 not in file.pages[0].tags:  # a copy, but of nothing that is here
        whole = [0]
    if not whole:
        raise Unusable("contains only small copies of an image, as raw files of cameras do", GIVE)
    if len(whole) > 1:
        raise _several(len(whole))
    page = file.pages[whole[0]]
    stack = file.series[0].size // max(page.size, 1) if file.is_imagej else 1
    if stack > 1 or page.imagedepth > 1:  # of a large stack ImageJ describes the first image alone
        raise _several(max(stack, page.imagedepth))
    end = max(
        [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)],
        default=0,
    )
    if not end:
        raise Unusable("holds no pixels", COPY_AGAIN)
    if end > file.filehandle.size:
        raise Unusable(f"is cut short: {file.filehandle.size} of {end} bytes are there", COPY_AGAIN)
    return whole[0], page


def _open_tiff(path: Path) -> _Opened:
    with tifffile.TiffFile(path) as file:
        index, page = _whole_page(file)
        bits, samples, kind = page.bitspersample, page.samplesperpixel, page.sampleformat
        photometric = page.photometric if 262 in page.tags else {1: 1, 3: 2}.get(samples, 1)
        inks = photometric == 5 and page.tags.valueof(332, 1) != 1
        if photometric not in PHOTOMETRIC or inks or (photometric == 6 and bits != 8):
            name = "inks of its own" if inks else getattr(page.photometric, "name", page.photometric)
            raise Unusable(f"holds colours as {name}", "Save it as RGB with 8 bits")
        if page.dtype is None:
            raise Unusable(f"holds samples of {bits} bits in the format {kind}", RESCALE)
        meaning, colours = PHOTOMETRIC[photometric]
        # tifffile calls every boolean array MinIsWhite, and stores it as it is: viewers show the opposite.
        boolean = photometric == 0 and bits == 1 and str(page.tags.valueof(305, "")).startswith("tifffile")
        more, extras = samples - colours, [*map(int, page.extrasamples), 0]
        if more < 0 or (more and meaning in ("grey", "palette") and (more > 1 or extras[0] not in (1, 2))):
            fix = "Save the band that matters, or three of them as RGB"
            raise Unusable(f"holds {samples} bands and does not say that they are colours", fix)
        palette = None
        if meaning == "palette":
            if page.colormap is None:
                raise Unusable("has a palette without colours", "Save it as RGB, or as grey")
            high = page.colormap.max() > 255  # some programs write 8 bits where 16 should be
            palette = (page.colormap >> (8 if high else 0)).astype(np.uint8).T
        by_pillow = page.compression in LIBTIFF and extras[0] != 1
        if bits == 32:  # of other byte orders Pillow reads wrong numbers
            by_pillow &= samples == 1 and kind in (2, 3) and file.byteorder == "<"
        else:
            by_pillow &= kind == 1 and (bits in (1, 2, 4, 8) or (bits == 16 and samples == 1))
        ways = [_tiff_by_pillow, _tiff_by_tifffile] if by_pillow else [_tiff_by_tifffile]
        if photometric == 6:  # tifffile makes colours of YCbCr only while it decodes JPEG
            ways = [_tiff_by_pillow, _tiff_by_tifffile][: 2 if page.compression == 7 else 1]
        compression = getattr(page.compression, "name", str(page.compression))
        notes: tuple[str, ...] = ()
        if meaning in ("rgb", "cmyk") and more and 0 in extras[:more]:
            notes = (f"of {samples} bands the first {colours} are read, which the file calls colours",)
        if boolean:
            notes = ("a boolean array of tifffile, which says that 0 is white: read as viewers show it",)
        if meaning == "grey" and _has_colours_of_imagej(file):
            notes += ("has a look-up table for ImageJ, which is not applied: it is read as grey",)
        plan = _Plan(
            path, index, bits, photometric == 0, page.tags.valueof(ORIENTATION, 1), tuple(ways),
            "" if page.compression in BUILT_IN else compression,
        )  # fmt: skip
        return _Opened(
            (page.imagelength, page.imagewidth), plan.load, meaning,
            None if kind == 3 else 2**bits - 1, np.dtype(page.dtype), samples, meaning.upper(), palette,
            inverted=photometric == 0,
            boolean=boolean,
            alpha=colours if more and extras[0] in (1, 2) else 0,
            premultiplied=more > 0 and extras[0] == 1,
            no_labels=None
            if page.compression in LOSSLESS or compression.isdecimal()
            else _lossy(f"a TIFF with {compression} compression"),
            notes=notes,
        )  # fmt: skip


def _has_colours_of_imagej(file: tifffile.TiffFile) -> bool:
    """Whether ImageJ's metadata has a look-up table that is not the plain one, from black to white."""
    tables = (file.imagej_metadata or {}).get("LUTs") if file.is_imagej else None
    return tables is not None and bool((np.reshape(tables, (-1, 256)) != np.arange(256)).any())


@dataclass(frozen=True)
class _Plan:
    """How the samples of a TIFF are read: its image, what it says, and the decoders in their order."""

    path: Path
    index: int
    bits: int
    inverted: bool
    orientation: int
    ways: tuple[Callable, ...]
    compression: str

    def load(self, in_windows: bool = False):
        """The samples by the first way that works, or what is missing for it."""
        for way in self.ways:
            try:
                return way(self, in_windows)
            except Exception as error:  # decoders raise what they like
                failed = error
        what = f" as a TIFF with {self.compression} compression" if self.compression else ""
        if what and imagecodecs is None:
            fix = "Install it: pip install imagecodecs; or save the file without compression"
            raise Unusable(f"is{what[3:]}, for which a package is missing", fix)
        fix = f"{COPY_AGAIN}, or save it without compression"
        raise Unusable(f"cannot be decoded{what} ({_short(failed)})", fix)


def _tiff_by_tifffile(plan: _Plan, in_windows: bool):
    with tifffile.TiffFile(plan.path) as file:
        page = file.pages[plan.index]
        planes_first = page.planarconfig == 2 and page.samplesperpixel > 1
        if in_windows and page.is_memmappable and not planes_first:
            return _Mapped(tifffile.memmap(plan.path, page=plan.index, mode="r"), plan.orientation)
        samples = page.asarray()
    return _turned(np.moveaxis(samples, 0, -1) if planes_first else samples, plan.orientation)


def _tiff_by_pillow(plan: _Plan, in_windows: bool) -> np.ndarray:
    """The stored numbers: Pillow turns an image itself, and undoes MinIsWhite up to 8 bits."""
    with _pillow(plan.path, ("TIFF",)) as file:
        file.seek(plan.index)
        image = file.convert("RGB") if file.mode == "YCbCr" else file
        samples = np.asarray(image)
    if plan.inverted and samples.dtype.itemsize == 1:
        samples = ~samples
    if samples.dtype == np.uint8 and plan.bits < 8 and image.mode == "L":
        samples = samples // (255 // (2**plan.bits - 1))
    return samples


class _Mapped:
    """An array in a file, mapped anew for each window: pages that were read count as this process's memory no longer than
    the window is looked at."""

    def __init__(self, array: np.memmap, orientation: int):
        self._where = {
            "filename": array.filename,
            "dtype": array.dtype,
            "offset": array.offset,
            "shape": array.shape,
        }
        self._orientation = orientation
        self.shape = _turned(array, orientation).shape

    def __getitem__(self, key) -> np.ndarray:
        return _turned(np.memmap(**self._where, mode="r"), self._orientation)[key]


# Palettes of label files --------------------------------------------------------------------------------------


def _of_palette(ids: np.ndarray, palette: np.ndarray, known: Container[int] | None, told: bool) -> np.ndarray:
    """The ids of a palette image: its indices, or where the palette is of greys and `known` says so, its grey levels."""
    used = np.unique(ids)
    colours = palette[np.minimum(used, len(palette) - 1)].astype(int)
    levels = colours[:, 0]
    if np.ptp(colours, axis=1).any() or (levels == used).all():
        return ids
    as_levels, as_indices = (
        known is not None and all(value in known for value in values.tolist()) for values in (levels, used)
    )
    if as_levels and not as_indices:
        return levels[np.searchsorted(used, ids)]
    if known is None:  # objects: only which number is the background matters
        open_ = ((levels == 0) != (used == 0)).any()
    else:  # a program that makes a palette of a grey image may number its levels in any order
        open_ = as_levels or (not told and (np.diff(levels) < 0).any())
    if not open_:
        return ids
    raise Unusable(
        f"has the numbers {_first(used)} with the grey levels {_first(levels)} in its palette, and either may be ids",
        "Save it as a grey PNG of ids",
    )


def _first(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:4])) + (", …" if len(values) > 4 else "")
