"""The reader of images and label maps: every encoding that Pillow and tifffile write, and the table of docs/formats.md."""

import io
import os
import re
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from course_lib.datasets.reading import LUMINANCE, LargeImage, Unusable, pixel_count, read_image, read_labels

Image.init()
ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (24, 20), np.uint8)
RGB = RNG.integers(0, 256, (24, 20, 3), np.uint8)
IDS = RNG.integers(0, 3, (24, 20)).astype(np.uint8)
SMOOTH = np.tile(np.linspace(40, 220, 20).astype(np.uint8), (24, 1))
PALETTE = RNG.integers(0, 256, 768).tolist()
EVERYDAY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def endings(monkeypatch):
    """Pillow's writer of SPIDER files takes over the ending of what it writes, for the whole process."""
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))


def brightness(colours):
    return colours.astype(float) @ np.array(LUMINANCE)


def in_mode(mode, grey):
    """An image of a mode of Pillow, and its colours as everybody sees them, in 0..1 `(height, width, 3)`, or `None`."""
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., None] / 255, 3, -1)
    if mode in ("I", "F"):
        return Image.fromarray(grey).convert(mode), None
    source = Image.fromarray(np.stack([grey, grey[::-1], 255 - grey], -1))
    if mode in ("LAB", "PA", "La", "RGBa", "HSV"):
        return Image.merge(mode, [Image.fromarray(grey)] * len(Image.new(mode, (1, 1)).getbands())), None
    image = source.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else source.convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(200)
    return image, np.asarray(image.convert("RGB")) / 255


# Every encoding -----------------------------------------------------------------------------------------------

LOSSY = {"JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "PDF"}
TIFF_BY_PILLOW = (
    None,
    "tiff_lzw",
    "jpeg",
    "tiff_adobe_deflate",
    "group3",
    "group4",
    "packbits",
    "lzma",
    "zstd",
    "tiff_ccitt",
)


@EVERYDAY
@given(
    kind=st.sampled_from(sorted(Image.SAVE)),
    mode=st.sampled_from(
        ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F", "PA", "HSV"]
    ),
    compression=st.sampled_from(TIFF_BY_PILLOW),
    orientation=st.integers(0, 9),
    channels=st.sampled_from([1, 3]),
)
def test_what_pillow_writes_is_read_as_it_looks_or_refused(
    tmp_path, kind, mode, compression, orientation, channels
):
    image, seen = in_mode(mode, SMOOTH)
    path = tmp_path / "a.dat"
    options = {"compression": compression} if kind == "TIFF" else {}
    if kind in ("TIFF", "JPEG", "PNG", "WEBP", "MPO"):
        options["exif"] = Image.Exif()
        options["exif"][274] = orientation
    stderr = os.dup(2)
    with open(os.devnull, "w") as silence:  # libtiff's own complaints
        os.dup2(silence.fileno(), 2)
        try:
            image.save(path, kind, **options)
        except Exception:
            assume(False)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    try:
        found = read_image(path, channels)
    except Unusable as refused:
        assert str(refused).count(". ") >= 1 and all(what and fix for what, fix in refused.faults)
        common = kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF") or (
            kind == "TIFF" and mode not in ("YCbCr", "PA")
        )
        assert not (common and mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16")), refused
        return
    assert mode != "LAB" or kind != "TIFF", "no brightness"
    if seen is None or (
        mode == "I;16" and kind not in ("PNG", "TIFF", "JPEG2000")
    ):  # or it is cut off as it is written
        return
    expected = upright(seen, orientation if "exif" in options else 1)
    expected = expected if channels == 3 else brightness(expected)[..., None]
    # Lossy files, GIFs of colours (a palette) and YCbCr round.
    exact = kind not in LOSSY | {"GIF"} and mode != "YCbCr" and compression != "jpeg"
    assert found.shape == expected.shape and found.dtype == np.float32
    if exact:
        np.testing.assert_allclose(found, expected, atol=2e-6)
    else:
        assert np.abs(found - expected).mean() < 0.06
    large = LargeImage(path, channels)
    assert large.shape == found.shape
    np.testing.assert_allclose(large[3:9, 4:], found[3:9, 4:], atol=1e-6)
    assert pixel_count(path) == found.shape[0] * found.shape[1]


TIFFS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            ["bool", "u1", "u2", "rgb1", "rgb2", "rgba", "f2", "f4", "f8", "i1", "i2", "u4", "i8", "u8"]
        ),
        "photometric": st.sampled_from(["minisblack", "miniswhite", "rgb", "palette", "cielab", "separated"]),
        "compression": st.sampled_from(
            [None, "lzw", "zlib", "packbits", "lzma", "zstd", "jpeg2000", "png", "jpegxl", "lerc"]
        ),
        "predictor": st.booleans(),
        "planarconfig": st.sampled_from(["contig", "separate"]),
        "byteorder": st.sampled_from(["<", ">"]),
        "bigtiff": st.booleans(),
        "tile": st.sampled_from([None, (16, 16)]),
        "extrasamples": st.sampled_from([None, "unassalpha", "assocalpha", "unspecified"]),
        "orientation": st.integers(1, 8),
    }
)


def written(path, how):
    """A TIFF of this kind, by tifffile, and its array; what tifffile does not write is not asked for."""
    kind, photometric = how["kind"], how["photometric"]
    coloured = kind.startswith("rgb")
    # tifffile hands big-endian numbers to the codec as if they were little-endian: the file itself holds others.
    assume(not (how["compression"] == "jpeg2000" and how["byteorder"] == ">"))
    assume(coloured == (photometric in ("rgb", "cielab", "separated")))
    if kind == "bool":
        array = GREY > 128
    elif coloured:
        array = np.dstack([RGB, np.full_like(GREY, 100)])[
            ..., : 4 if kind == "rgba" or photometric == "separated" else 3
        ]
        array = array.astype(np.uint16) * 257 if kind == "rgb2" else array
    else:
        array = (GREY / 255).astype(kind) if kind[0] == "f" else GREY.astype(kind)
    options = {name: how[name] for name in ("compression", "byteorder", "bigtiff", "tile")}
    if photometric == "palette":
        assume(kind == "u1")
        options["colormap"] = (np.array(PALETTE, np.uint16) * 257).reshape(256, 3).T
    if coloured:
        options["planarconfig"] = how["planarconfig"]
        if how["planarconfig"] == "separate":
            array = np.moveaxis(array, -1, 0)
    if kind == "rgba" and photometric == "rgb" and how["extrasamples"]:
        options["extrasamples"] = [how["extrasamples"]]
    try:
        tifffile.imwrite(
            path, array, photometric=photometric,
            predictor=how["predictor"] and how["compression"] in ("lzw", "zlib", "zstd"),
            extratags=[(274, 3, 1, how["orientation"], True)], **options,
        )  # fmt: skip
    except Exception:
        assume(False)
    return np.moveaxis(array, 0, -1) if coloured and how["planarconfig"] == "separate" else array


def upright(array, orientation):
    turned = array.swapaxes(0, 1) if 4 < orientation < 9 else array
    return {2: turned[:, ::-1], 3: turned[::-1, ::-1], 4: turned[::-1], 6: turned[:, ::-1], 7: turned[::-1, ::-1],
            8: turned[::-1]}.get(orientation, turned)  # fmt: skip


@EVERYDAY
@given(how=TIFFS)
def test_what_tifffile_writes_is_read_as_it_looks_or_refused(tmp_path, how):
    path = tmp_path / "a.png"  # the ending says nothing
    array = upright(written(path, how), how["orientation"])
    kind, photometric = how["kind"], how["photometric"]
    try:
        found = read_image(path, 3)
    except Unusable:
        assert kind in ("i1", "i2", "u4", "i8", "u8") or photometric == "cielab", how
        return
    scale = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    pixels = array.astype(float) / scale
    if photometric == "palette":
        pixels = np.array(PALETTE).reshape(256, 3)[array] / 255
    elif photometric == "separated":
        pixels = (1 - pixels[..., :3]) * (1 - pixels[..., 3:])
    elif photometric == "miniswhite":
        pixels = 1 - pixels
    if how["extrasamples"] == "assocalpha" and kind == "rgba" and photometric == "rgb":
        pixels = np.clip(pixels / pixels[..., 3:], 0, 1)
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels[..., :3]
    np.testing.assert_allclose(found, pixels, atol=1e-3 if kind == "f2" else 2e-6)
    if kind[0] != "f":
        np.testing.assert_allclose(LargeImage(path, 3)[2:9, 5:], found[2:9, 5:], atol=1e-6)


@EVERYDAY
@given(how=TIFFS)
def test_labels_of_a_tiff_are_the_stored_numbers_or_refused(tmp_path, how):
    path = tmp_path / "a.jpg"
    array = upright(written(path, how), how["orientation"])
    try:
        found = read_labels(path)
    except Unusable:
        sound = how["compression"] not in ("jpeg2000", "jpegxl", "lerc") and how["photometric"] in (
            "minisblack",
            "palette",
        )
        assert not sound or how["kind"][0] == "f", how
        return
    assert how["photometric"] != "miniswhite" or how["kind"] == "bool"
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.int64


@EVERYDAY
@given(
    kind=st.sampled_from(sorted(Image.SAVE)),
    mode=st.sampled_from(["1", "L", "P", "I;16", "LA", "RGB"]),
    compression=st.sampled_from(TIFF_BY_PILLOW),
    bits=st.sampled_from([None, 1, 2, 4]),
)
def test_labels_that_pillow_writes_are_the_same_or_refused(tmp_path, kind, mode, compression, bits):
    path, ids = tmp_path / "a.tif", IDS > 0 if mode == "1" else IDS
    image = Image.fromarray(ids.astype(np.uint16) if mode == "I;16" else ids)
    if mode == "P":
        image = Image.fromarray(ids).convert("P")
        image.putdata(ids.ravel().tolist())
        image.putpalette(PALETTE)
    elif mode in ("LA", "RGB"):
        image = image.convert(mode)
    options = {"compression": compression} if kind == "TIFF" else {}
    if kind == "PNG" and mode == "P" and bits:
        options = {"bits": bits}
    try:
        image.save(path, kind, **options)
    except Exception:
        assume(False)
    if (kind in ("PNG", "GIF") and mode == "P") or (
        kind == "GIF" and mode == "1"
    ):  # programs may renumber a palette as they write it
        with Image.open(path) as file:
            ids = np.asarray(file)
    try:
        found = read_labels(path, range(3))
    except Unusable as refused:
        assert not (
            kind in ("PNG", "BMP")
            and mode in ("1", "L", "P", "I;16")
            and not (mode == "I;16" and kind == "BMP")
        ), refused
        return
    assert kind not in LOSSY and not (kind == "TIFF" and compression == "jpeg")
    np.testing.assert_array_equal(found, ids)


# The table of docs/formats.md ---------------------------------------------------------------------------------


def png(array, **options):
    return lambda path: Image.fromarray(array).save(path, "PNG", **options)


def pillow(image, kind, **options):
    return lambda path: image.save(path, kind, **options)


def tiff(array, **options):
    def write(path):
        if {"compression", "bitspersample"} & set(options):  # tifffile cannot write these by itself
            pytest.importorskip("imagecodecs")
        tifffile.imwrite(path, array, **options)

    return write


def coded(data):
    return lambda path: path.write_bytes(data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(depth, colour, rows, width):
    """A PNG of rows that are packed already."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def nibbles(ids):
    return [bytes(row[::2] << 4 | row[1::2]) for row in ids]


def with_palette(palette, ids=IDS):
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(palette)
    return image


def without_adobe(image):
    """A JPEG whose segment APP14 has become a comment."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue().replace(b"\xff\xee", b"\xff\xfe", 1)


def rare(codec, array, **options):
    def write(path):
        imagecodecs = pytest.importorskip("imagecodecs")
        path.write_bytes(getattr(imagecodecs, f"{codec}_encode")(array, **options))

    return write


def tail_cut(write):
    return lambda path: (write(path), os.truncate(path, path.stat().st_size * 3 // 5))


def changed(write, tag, value):
    """A TIFF with another value in one of its tags."""

    def changed_file(path):
        write(path)
        with tifffile.TiffFile(path) as file:
            place = file.pages[0].tags[tag].valueoffset
        data = bytearray(path.read_bytes())
        data[place : place + 2] = struct.pack("<H", value)
        path.write_bytes(data)

    return changed_file


def several(kind, **options):
    first = Image.fromarray(RGB)
    return lambda path: first.save(path, kind, save_all=True, append_images=[first.rotate(90)], **options)


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def pyramid(path):
    with tifffile.TiffWriter(path) as file:
        file.write(IDS, photometric="minisblack", metadata=None)
        file.write(IDS[::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)


def raw_of_a_camera(path):
    """A preview, and below it an image of another kind."""
    with tifffile.TiffWriter(path) as file:
        file.write(IDS[::2, ::2], subfiletype=1, subifds=1, photometric="minisblack", metadata=None)
        file.write(IDS.astype(np.uint16), photometric="cfa", metadata=None)


def zeros_of(side):
    def write(path):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(path, "PNG")

    return write


COLOUR = Image.fromarray(RGB)
ROWS = {
    "PNG, grey, 8 or 16 bits": [png(IDS), png(IDS.astype(np.uint16))],
    "PNG, grey, 1, 2 or 4 bits": [coded(raw_png(4, 0, nibbles(IDS), 20)), png(IDS > 0)],
    "PNG, palette": [pillow(with_palette(PALETTE), "PNG"), pillow(with_palette(PALETTE), "PNG", bits=2)],
    "PNG, palette of greys that may be ids too, or in another order": [
        pillow(with_palette(palette), "PNG") for palette in ([0, 0, 0, 2, 2, 2, 1, 1, 1], [255] * 3 + [9] * 3 + [0] * 3)
    ],
    "PNG, colours, 8 bits": [png(RGB)],
    "PNG, colours, 16 bits": [coded(raw_png(16, 2, [(row.astype(">u2") * 257).tobytes() for row in RGB], 20))],
    "PNG with transparency": [png(np.dstack([RGB, GREY])), pillow(Image.fromarray(GREY).convert("LA"), "PNG"),
        coded(raw_png(16, 4, [row.astype(">u2").tobytes() for row in np.dstack([GREY, GREY])], 20))],
    "PNG, animated": [several("PNG")],
    "JPEG, grey or colours": [pillow(COLOUR, "JPEG"), pillow(Image.fromarray(GREY), "JPEG")],
    "JPEG, CMYK": [pillow(COLOUR.convert("CMYK"), "JPEG")],
    "JPEG, CMYK without Adobe's mark": [coded(without_adobe(COLOUR.convert("CMYK")))],
    "JPEG of 12 bits, lossless JPEG, JPEG-LS": [rare("jpeg8", GREY.astype("u2") * 16, bitspersample=12),
        rare("ljpeg", GREY.astype("u2") * 257), rare("jpegls", GREY)],
    "JPEG turned by EXIF": [pillow(COLOUR, "JPEG", exif=turned())],
    "JPEG called .png": [pillow(Image.fromarray(IDS), "JPEG")],
    "GIF, one image": [pillow(with_palette(PALETTE), "GIF"), pillow(Image.fromarray(IDS), "GIF")],
    "GIF, animated": [several("GIF")],
    "BMP, grey": [pillow(Image.fromarray(IDS), "BMP")],
    "BMP, colours": [pillow(COLOUR, "BMP")],
    "WebP": [pillow(COLOUR, "WEBP"), pillow(COLOUR, "WEBP", lossless=True)],
    "JPEG 2000": [pillow(COLOUR, "JPEG2000"), pillow(Image.fromarray(IDS), "JPEG2000")],
    "PGM, PPM, PBM": [pillow(Image.fromarray(IDS), "PPM"), coded(b"P5 20 24 15\n" + IDS.tobytes())],
    "TIFF, grey, 1 to 16 bits": [tiff(IDS), tiff(IDS > 0), tiff(IDS, bitspersample=4),
        tiff(IDS.astype("u2"), bitspersample=12)],
    "TIFF, 12 bits in 16": [tiff(GREY.astype(np.uint16) * 16)],
    "TIFF, whole numbers of 32 or 64 bits, or signed": [
        tiff(IDS.astype(kind)) for kind in (">u4", "<i8", "u8", "i1", ">i2")],
    "TIFF, floats in 0..1": [tiff((GREY / 255).astype(kind)) for kind in ("f2", "f4", ">f8")],
    "TIFF, floats outside 0..1, or NaN": [tiff(GREY.astype("f4")), tiff(np.full((4, 5), np.nan, "f4"))],
    "TIFF, MinIsWhite, 1 bit": [pillow(Image.fromarray(IDS > 0), "TIFF", tiffinfo={262: 0})],
    "TIFF, a boolean array of tifffile": [tiff(IDS > 0), tiff(IDS > 0, compression="zlib")],
    "TIFF, MinIsWhite, 8 or 16 bits": [tiff(IDS, photometric="miniswhite"),
        tiff(IDS.astype("u2"), photometric="miniswhite")],
    "TIFF, palette, or with an ImageJ look-up table": [
        pillow(with_palette(PALETTE), "TIFF"),
        tiff(IDS, photometric="palette", colormap=np.tile(np.arange(256, dtype=np.uint16) << 8, (3, 1))),
    ],
    "TIFF, with look-up tables in ImageJ's metadata": [
        tiff(IDS.astype(kind), imagej=True, metadata={"LUTs": [np.tile(np.arange(255, -1, -1, np.uint8), (3, 1))]})
        for kind in ("u1", "u2")],
    "TIFF, RGB, 8 or 16 bits, by pixel or by plane": [
        tiff(RGB), tiff(RGB.astype("u2")), tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
    ],
    "TIFF, RGB and alpha": [
        tiff(np.dstack([RGB, GREY]), photometric="rgb", extrasamples=[kind]) for kind in ("unassalpha", "assocalpha")
    ],
    "TIFF, RGB and further bands": [tiff(np.dstack([RGB, RGB]), photometric="rgb", planarconfig="contig")],
    "TIFF, CMYK": [pillow(COLOUR.convert("CMYK"), "TIFF")],
    "TIFF, YCbCr": [pillow(COLOUR.convert("YCbCr"), "TIFF"), tiff(RGB, photometric="ycbcr", compression="jpeg")],
    "TIFF, LAB": [tiff(RGB, photometric="cielab")],
    "TIFF, 2 or 4 bands without a meaning": [
        tiff(np.dstack([GREY] * number), photometric="minisblack", planarconfig="contig") for number in (2, 3, 4)
    ],
    "TIFF, several images, or an ImageJ stack": [tiff(np.stack([IDS] * 5)), tiff(np.stack([IDS] * 3), imagej=True)],
    "TIFF, one image and smaller copies of it": [pyramid],
    "TIFF turned by its orientation tag": [tiff(IDS, extratags=[(274, 3, 1, 6, True)])],
    "TIFF, LZW, deflate, PackBits, LZMA, Zstandard or CCITT": [
        *(tiff(IDS, compression=kind) for kind in ("lzw", "zlib", "packbits", "lzma", "zstd")),
        *(pillow(Image.fromarray(IDS > 0), "TIFF", compression=kind) for kind in ("group3", "group4", "tiff_ccitt")),
    ],
    "TIFF, JPEG compression": [tiff(GREY, compression="jpeg"), pillow(COLOUR, "TIFF", compression="jpeg")],
    "TIFF, JPEG 2000, JPEG XL, WebP or LERC compression": [
        *(tiff(GREY, compression=kind) for kind in ("jpeg2000", "jpegxl", "lerc")), tiff(RGB, compression="webp"),
    ],
    "BigTIFF, tiled TIFF, big-endian TIFF": [tiff(IDS, bigtiff=True), tiff(IDS, tile=(16, 16)), tiff(IDS, byteorder=">")],
    "a file over 40 million pixels": [zeros_of(6400), lambda path: tifffile.memmap(path, shape=(20000, 20000), dtype="u1")],
    "TGA, PCX, ICO and other formats of Pillow": [pillow(COLOUR, kind) for kind in ("TGA", "PCX", "ICO", "SGI", "DDS")],
    "HEIC, PDF, SVG, DICOM, CZI, NumPy array, Git LFS pointer": [
        coded(b"\0\0\0\x18ftypheic" + bytes(20)), coded(b"%PDF-1.4 "), coded(b'\xef\xbb\xbf<?xml version="1.0"?><svg/>'),
        coded(bytes(128) + b"DICM" + bytes(20)), coded(b"ZISRAWFILE" + bytes(20)),
        lambda path: np.save(path.open("wb"), GREY),
        coded(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ],
    "empty, cut short, or no image": [coded(b""), coded(b"no image"), lambda path: (png(RGB)(path), os.truncate(path, 400)),
        lambda path: (tiff(RGB)(path), os.truncate(path, 900)), coded(b"II*\0\x08\0\0\0"), coded(b"\x89PNG\r\n\x1a\n")],
}  # fmt: skip
TABLE = dict(
    (row[0].strip(), (row[1].strip(), row[2].strip()))
    for line in (ROOT / "docs" / "formats.md")
    .read_text(encoding="utf-8")
    .split("## How files")[0]
    .splitlines()
    if line.startswith("| ") and len(row := line.strip("|").split(" | ")) == 3 and row[0].strip() != "A file"
)


def test_the_table_has_a_row_for_every_file_tried_here():
    assert list(TABLE) == list(ROWS)


@pytest.mark.parametrize("row", TABLE)
def test_a_row_of_the_table(tmp_path, row):
    for number, write in enumerate(ROWS.get(row, ())):
        path = tmp_path / f"{number}.png"
        write(path)
        image, labels = (cell.split(":")[0].split()[0].rstrip(",") for cell in TABLE[row])
        for expected, read in (
            (image, lambda path: read_image(path, 1)),
            (labels, lambda path: read_labels(path, range(3))),
        ):
            try:
                read(path)
                happened = "read"
            except Unusable as error:
                happened = "refused"
                assert re.fullmatch(r".*: .+\. .+\.", str(error), re.DOTALL)
            assert happened == expected, (row, number, read)


# What the values are ------------------------------------------------------------------------------------------


def save(tmp_path, write, name="a.png"):
    write(tmp_path / name)
    return tmp_path / name


def test_one_image_in_ten_encodings_is_one_array(tmp_path):
    grey = Image.fromarray(GREY)
    ways = [
        png(GREY), png(GREY.astype(np.uint16) * 257), png(np.dstack([GREY] * 3)),
        tiff(GREY), tiff(255 - GREY, photometric="miniswhite"), tiff(GREY, compression="lzw", predictor=True),
        tiff((GREY / 255).astype(np.float32)), tiff(GREY.astype(">u2") * 257, byteorder=">", bigtiff=True),
        pillow(grey.convert("P"), "PNG"), pillow(grey, "GIF"), pillow(grey, "WEBP", lossless=True),
        pillow(grey.convert("LA"), "PNG"), pillow(grey, "BMP"),
        pillow(Image.merge("CMYK", [Image.new("L", grey.size)] * 3 + [Image.fromarray(255 - GREY)]), "TIFF"),
        tiff(np.dstack([GREY] * 3), planarconfig="contig", tile=(16, 16), compression="zlib"),
    ]  # fmt: skip
    for number, write in enumerate(ways):
        found = read_image(save(tmp_path, write, f"{number}.jpg"), 1)[..., 0]
        np.testing.assert_allclose(found, GREY / 255, atol=3e-6, err_msg=str(number))


def test_bits_are_counted_and_not_stretched(tmp_path):
    four = save(tmp_path, coded(raw_png(4, 0, nibbles(IDS), 20)))
    np.testing.assert_array_equal(read_labels(four), IDS)
    np.testing.assert_allclose(read_image(four, 1)[..., 0], IDS / 15, atol=1e-6)
    twelve = (GREY.astype(np.uint16) * 16).clip(0, 4095)
    packed = save(tmp_path, tiff(twelve, bitspersample=12), "b.tif")
    np.testing.assert_allclose(read_image(packed, 1)[..., 0], twelve / 4095, atol=1e-6)
    notes = []
    found = read_image(save(tmp_path, tiff(twelve), "c.tif"), 1, notes)
    np.testing.assert_allclose(found[..., 0], twelve / 65535, atol=1e-6)
    assert "12 of their 16 bits" in notes[0] and "16 times too dark" in notes[0]
    read_image(save(tmp_path, tiff(GREY.astype(np.uint16) * 257), "d.tif"), 1, notes)
    assert len(notes) == 1


def test_a_palette_of_greys_is_looked_up_where_only_its_levels_can_be_ids(tmp_path):
    mask = (IDS > 0) * np.uint8(255)
    carvana = save(tmp_path, pillow(Image.fromarray(mask), "GIF"))
    np.testing.assert_array_equal(read_labels(carvana, {0, 255}), mask)
    np.testing.assert_array_equal(read_labels(carvana, range(2)), IDS > 0)
    gaps = np.where(IDS == 2, 7, IDS).astype(np.uint8)  # a GIF renumbers its levels 0, 1, 7 as 0, 1, 2
    path = save(tmp_path, pillow(Image.fromarray(gaps), "GIF"), "b.gif")
    np.testing.assert_array_equal(read_labels(path, {0, 1, 7}), gaps)
    with pytest.raises(Unusable, match="either may be ids"):
        read_labels(path, range(8))


def test_a_palette_of_greys_in_another_order_is_not_guessed(tmp_path):
    """What a program made of a grey image may number its levels in any order: 0 may be the white object."""
    mask = Image.fromarray((IDS > 0) * np.uint8(255))
    for name, image in (
        ("q.png", mask.convert("RGB").quantize(2)),
        ("q.gif", Image.fromarray(IDS * np.uint8(60)).convert("RGB")),
        ("q.bmp", with_palette([255, 255, 255, 0, 0, 0], (IDS > 0).astype(np.uint8))),
    ):
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as file:
            indices = np.asarray(file)
        assert indices[IDS == 0].min() > 0 or name == "q.bmp", "the case is not the one that is meant"
        for known in (range(3), None):
            with pytest.raises(Unusable, match="either may be ids"):
                read_labels(tmp_path / name, known)
    np.testing.assert_array_equal(read_labels(tmp_path / "q.png", {0, 255}, told=True), np.asarray(mask))
    np.testing.assert_array_equal(read_labels(tmp_path / "q.bmp", {0, 1}, told=True), IDS > 0)
    # Levels in order are a way to show ids.
    shown = save(tmp_path, pillow(with_palette([0, 0, 0, 90, 90, 90, 200, 200, 200]), "PNG"), "s.png")
    for known in (range(3), None):
        np.testing.assert_array_equal(read_labels(shown, known), IDS)


def test_a_boolean_array_of_tifffile_is_that_array_as_labels(tmp_path):
    """tifffile, and imageio with it, call it MinIsWhite: read as it looks, object and background would change places."""
    import imageio.v3 as imageio

    mask = IDS > 0
    for number, write in enumerate([
        tiff(mask), tiff(mask, compression="zlib"), tiff(mask, metadata=None), tiff(mask, ome=True),
        lambda path: imageio.imwrite(path, mask), tiff(mask, photometric="minisblack"),
    ]):  # fmt: skip
        path = save(tmp_path, write, f"{number}.tif")
        np.testing.assert_array_equal(read_labels(path, range(2)), mask)
        notes = []
        read_image(path, 1, notes)
        assert [note.split(" of ")[0] for note in notes] == ["a boolean array"] * (number < 5)
    # Other programs show the file that they write.
    for number, options in enumerate(
        ({"tiffinfo": {262: 0}}, {"compression": "group4"}, {"compression": "tiff_lzw"})
    ):
        path = save(tmp_path, pillow(Image.fromarray(mask), "TIFF", **options), f"p{number}.tif")
        with Image.open(path) as file:
            np.testing.assert_array_equal(read_labels(path, range(2)), np.asarray(file))
        assert read_image(path, 1)[..., 0].tolist() == read_labels(path, range(2)).tolist()


def test_grey_and_alpha_of_sixteen_bits_is_grey(tmp_path):
    rows = [row.astype(">u2").tobytes() for row in np.dstack([GREY.astype(int) * 257, GREY[::-1]])]
    path = save(tmp_path, coded(raw_png(16, 4, rows, 20)))
    for channels in (1, 3):
        found = read_image(path, channels)
        assert found.shape == (24, 20, channels)
        np.testing.assert_allclose(found, np.repeat(GREY[..., None] / 255, channels, -1), atol=2e-3)
    np.testing.assert_array_equal(LargeImage(path, 3)[:, :], read_image(path, 3))


def test_transparency_is_told_of(tmp_path):
    clear = np.full_like(GREY, 255)
    clear[:5] = 0
    for alpha, said in ((clear, 1), (np.full_like(GREY, 255), 0)):
        for number, write in enumerate([
            png(np.dstack([RGB, alpha])), png(np.dstack([GREY, alpha])), tiff(np.dstack([RGB, alpha]), photometric="rgb"),
            tiff(np.dstack([GREY, alpha]), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"),
            pillow(Image.fromarray(np.dstack([RGB, alpha])), "WEBP", lossless=True, exact=True),
            coded(raw_png(16, 4, [row.astype(">u2").tobytes() for row in np.dstack([GREY, alpha]).astype(int) * 257], 20)),
        ]):  # fmt: skip
            notes = []
            read_image(save(tmp_path, write, f"{number}.png"), 1, notes)
            assert len([note for note in notes if "transparent in places" in note]) == said, (number, notes)


def test_floats_that_are_rounded_past_one_are_read(tmp_path):
    array = (GREY / 255).astype(np.float32)
    array[0, 0], array[0, 1] = np.nextafter(np.float32(1), np.float32(2)), -1e-6
    found = read_image(save(tmp_path, tiff(array)), 1)
    assert found.max() <= 1 and found.min() >= 0
    for wrong in (1.01, -0.01, np.inf, -np.inf, np.nan):
        array[0, 0] = wrong
        with pytest.raises(Unusable, match="floats outside 0..1"):
            read_image(save(tmp_path, tiff(array)), 1)


def test_tables_of_imagej_are_told_of(tmp_path):
    green = np.zeros((3, 256), np.uint8)
    green[1] = np.arange(256)
    plain = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    for table, said in ((green, 1), (plain[:, ::-1], 1), (plain, 0), (None, 0)):
        metadata = {} if table is None else {"LUTs": [table]}
        for array in (GREY, GREY.astype(np.uint16) * 257):
            notes = []
            path = save(tmp_path, tiff(array, imagej=True, metadata=metadata), "a.tif")
            np.testing.assert_allclose(read_image(path, 1, notes)[..., 0], GREY / 255, atol=1e-6)
            assert len(notes) == said and all(
                "look-up table for ImageJ, which is not applied" in n for n in notes
            )
            np.testing.assert_array_equal(read_labels(path), array)


def test_the_only_image_of_a_file_is_read_even_if_it_is_called_a_copy(tmp_path):
    path = save(tmp_path, tiff(IDS, subfiletype=1))
    np.testing.assert_array_equal(read_labels(path), IDS)
    assert read_image(path, 1).shape == (24, 20, 1)


def test_whole_numbers_come_out_whatever_their_type(tmp_path):
    for kind in ("<i8", ">i8", "<u4", ">u4", "i1", "u8"):
        order = kind[0] if kind[0] in "<>" else None
        path = save(tmp_path, tiff(IDS.astype(kind), byteorder=order), "a.tif")
        np.testing.assert_array_equal(read_labels(path), IDS)
    with pytest.raises(Unusable, match=f"the label {2**64 - 1}"):
        read_labels(save(tmp_path, tiff(np.full((4, 5), 2**64 - 1, np.uint64)), "b.tif"))


def test_words_say_what_a_file_is(tmp_path):
    for write, message in (
        (
            pillow(Image.fromarray(IDS), "JPEG"),
            "is a JPEG, which changes values .* Export the labels again as PNG",
        ),
        (tiff(IDS, compression="jpeg"), "is a TIFF with JPEG compression, which changes values"),
        (tiff(RGB, photometric="cielab"), "holds colours as CIELAB. Save it as RGB"),
        (tiff(np.stack([IDS] * 5)), "holds 5 images. Save each"),
        (
            coded(b"\0\0\0\x18ftypheic" + bytes(20)),
            "is an HEIC or AVIF photograph, which is not read here. Save it as PNG",
        ),
        (
            coded(b"version https://git-lfs\n"),
            "is a pointer of Git LFS, not the file itself. Fetch it: git lfs pull",
        ),
        (pillow(COLOUR, "TGA"), "is a file of the format TGA, which is not read here"),
        (
            rare("jpegls", GREY),
            "is a damaged JPEG, or one of a rare kind .12 bits, lossless, JPEG-LS., which is not read",
        ),
        (
            coded(without_adobe(COLOUR.convert("CMYK"))),
            "is a CMYK JPEG without Adobe's mark, so it is not clear .* Save it as RGB",
        ),
        (coded(b"\x1f\x8b" + bytes(30)), "is a gzip archive, which is not read here"),
        (coded(b"gimp xcf v011"), "is a GIMP file, which is not read here"),
        (
            tail_cut(pillow(COLOUR, "TIFF", compression="tiff_lzw")),
            "is cut short: its directory is missing",
        ),
        (
            raw_of_a_camera,
            "contains only small copies of an image, as raw files of cameras do",
        ),
        (changed(tiff(IDS), 259, 9999), "cannot be decoded as a TIFF with 9999 compression"),
        (pillow(COLOUR, "AVIF"), "is an AVIF, which changes values"),
        (coded(b""), r"is empty \(0 bytes\)"),
        (
            lambda path: (tiff(RGB)(path), os.truncate(path, 900)),
            r"is cut short: 900 of \d+ bytes are there. Copy it again",
        ),
        (lambda path: (png(GREY)(path), os.truncate(path, 300)), "cannot be decoded .* Copy it again"),
        (
            zeros_of(6400),
            r"is 6400 × 6400 pixels \(height × width\), more than 40 million. Split it into pieces",
        ),
        (lambda path: os.mkfifo(path), "is not an ordinary file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "there is no such file"),
    ):
        path = tmp_path / f"{message[:9]}.png"
        path.unlink(missing_ok=True)
        write(path)
        with pytest.raises(Unusable, match=message):
            read_labels(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path, zeros_of(6400))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(Unusable, match="Split it into pieces"):
        read_image(path, 1)
    assert Image.MAX_IMAGE_PIXELS == 100
    data = raw_png(8, 0, [bytes(20)], 20)
    path.write_bytes(data[:16] + b"\x7f\xff\xff\xff" * 2 + data[24:])
    with pytest.raises(Unusable):
        read_image(path, 1)


def test_broken_exif_is_no_reason_to_refuse_an_image(tmp_path):
    path = save(tmp_path, pillow(COLOUR, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "a.jpg")
    assert read_image(path, 3).shape == (24, 20, 3)


WITHOUT = """
    import sys
    sys.modules["imagecodecs"] = None
    from pathlib import Path
    from course_lib.datasets.reading import read_image, read_labels
    for path in sorted(Path(sys.argv[1]).iterdir()):
        notes = []
        try:
            print(path.stem, "image", round(float(read_image(path, 1, notes).mean()), 3), *notes)
        except ValueError as error:
            print(path.stem, "refused", str(error).split(": ", 1)[1])
"""


def test_without_imagecodecs_pillow_decodes_or_the_package_is_named(tmp_path):
    mean = round(GREY.mean() / 255, 3)
    files = {
        "lzw": tiff(GREY, compression="lzw", predictor=True),
        "zstd": tiff(GREY, compression="zstd"),
        "white": tiff(255 - GREY, photometric="miniswhite", compression="lzw"),
        "jpeg": tiff(np.full_like(GREY, 51), compression="jpeg"),
        "group4": pillow(Image.fromarray(IDS > 0), "TIFF", compression="group4", tiffinfo={262: 0}),
        "deflate": tiff(RGB.astype(np.uint16) * 257, compression="zlib"),
        "deep": tiff(RGB.astype(np.uint16) * 257, compression="lzw"),
        "xl": tiff(GREY, compression="jpegxl"),
        "png": coded(raw_png(16, 2, [(row.astype(">u2") * 257).tobytes() for row in RGB], 20)),
    }
    for name, write in files.items():
        write(tmp_path / f"{name}.tif")
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT), str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    for name, value in (("lzw", mean), ("zstd", mean), ("white", mean), ("jpeg", 0.2)):
        assert f"{name} image {value}\n" in said
    assert f"group4 image {round((IDS > 0).mean(), 3)}\n" in said
    colours = f"{brightness(RGB).mean() / 255:.3f}"
    assert f"deflate image {float(colours)}\n" in said
    assert f"png image {float(colours)} 16-bit colours are read with 8 bits" in said
    for name, kind in (("deep", "LZW"), ("xl", "JPEGXL")):
        assert (
            f"{name} refused is a TIFF with {kind} compression, for which a package is missing. Install it: pip install"
            in said
        )


def test_sixteen_bits_of_a_colour_png_are_all_read(tmp_path):
    deep = RNG.integers(0, 65536, (6, 5, 3), np.uint16)
    path = save(tmp_path, coded(raw_png(16, 2, [row.astype(">u2").tobytes() for row in deep], 5)))
    pytest.importorskip("imagecodecs")
    np.testing.assert_allclose(read_image(path, 3), deep / 65535, atol=1e-6)


def test_a_damaged_file_of_every_kind_is_an_image_or_one_sentence(tmp_path):
    rng = np.random.default_rng(3)
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
    ):
        buffer = io.BytesIO()
        COLOUR.save(buffer, kind, **options)
        for _ in range(60):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(0, len(data), 3):
                data[place] ^= 1 << int(rng.integers(8))
            path = tmp_path / "a.png"
            path.write_bytes(data[: int(rng.integers(1, len(data) + 1))] if rng.random() < 0.3 else data)
            try:
                assert read_image(path, 3).dtype == np.float32
            except Unusable as error:
                assert "\n" not in str(error)
