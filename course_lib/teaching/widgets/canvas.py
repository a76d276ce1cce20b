"""A small drawing board for images that have to be ready while a slider is being dragged.

Pillow draws them; a Matplotlib figure with two axes takes several times as long. Lengths are in pixels of the page; the
image has twice as many, so that letters are sharp on every screen. The font is the one that Matplotlib brings, so that
an image is the same wherever it is drawn.
"""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib.plot import COLOURS

SCALE = 2
"""Pixels of the image for one of the page."""

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
BLACK, DARK, GREY, PALE, WHITE = "#000000", "#444444", "#999999", "#DDDDDD", "#FFFFFF"


@dataclass(frozen=True)
class Answer:
    """What a widget says to one setting of its controls.

    Attributes:
        numbers: what was computed, by name.
        words: the same as a sentence or two, for those who do not see the image.
        drawing: the image, with `markup(shows)` for a page, and `png`, `width` and `height`.
    """

    numbers: dict[str, object]
    words: str
    drawing: Canvas


class Canvas:
    """A white board, `width` × `height` pixels of the page."""

    def __init__(self, width: int, height: int):
        from PIL import Image, ImageDraw

        self.width, self.height = width, height
        self._image = Image.new("RGB", (SCALE * width, SCALE * height), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def box(
        self,
        edges: Sequence[float],
        fill: str | None = None,
        edge: str | None = None,
        width: float = 1,
        dash: float = 0,
    ) -> None:
        """A rectangle `x1, y1, x2, y2`: filled, framed on its inside, or both; `dash`: the length of a dash."""
        x1, y1, x2, y2 = edges
        whole = _scaled((x1, y1, x2, y2), far=1)
        if whole[2] < whole[0] or whole[3] < whole[1]:  # thinner than a pixel
            return
        if fill:
            self._draw.rectangle(whole, fill=fill)
        if edge and not dash:
            self._draw.rectangle(whole, outline=edge, width=max(round(SCALE * width), 1))
        elif edge:
            self.line([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], edge, width, dash)

    def line(self, points: Sequence[Sequence[float]], colour: str, width: float = 1, dash: float = 0) -> None:
        """A line through points `(x, y)`; with a `dash`, dashes of that length and gaps of the same."""
        pen = max(round(SCALE * width), 1)
        if not dash:
            self._draw.line([_scaled(point) for point in points], fill=colour, width=pen, joint="curve")
            return
        for (x1, y1), (x2, y2) in zip(points[:-1], points[1:], strict=True):
            length = max(np.hypot(x2 - x1, y2 - y1), 1e-9)
            for start in np.arange(0, length, 2 * dash):
                ends = np.array([start, min(start + dash, length)])[:, None] / length
                self._draw.line(
                    [_scaled(point) for point in np.array([x1, y1]) + ends * np.array([x2 - x1, y2 - y1])],
                    fill=colour,
                    width=pen,
                )

    def dot(self, x: float, y: float, radius: float, colour: str, edge: str | None = None) -> None:
        """A disc around a point."""
        corners = _scaled((x - radius, y - radius, x + radius, y + radius))
        self._draw.ellipse(corners, fill=colour, outline=edge, width=SCALE)

    def text(
        self, x: float, y: float, words: str, size: int = 15, colour: str = BLACK, at: str = "lm", bold=False
    ) -> None:
        """Words at a point, which is their left (l), middle (m) or right (r), and top (a), middle (m) or bottom (s)."""
        self._draw.text(_scaled((x, y)), words, fill=colour, font=_font(size, bold), anchor=at)

    def image(self, values: np.ndarray, edges: Sequence[float]) -> None:
        """An array as an image over a rectangle, its pixels as squares: float `(height, width[, 3])` in 0..1."""
        from PIL import Image

        pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        x1, y1, x2, y2 = _scaled(edges)
        image = Image.fromarray(pixels).convert("RGB").resize((x2 - x1, y2 - y1), Image.Resampling.NEAREST)
        self._image.paste(image, (x1, y1))

    def bar(
        self,
        edges: Sequence[float],
        value: float,
        limits: tuple[float, float] = (0.0, 1.0),
        colour: str = BLUE,
    ) -> None:
        """A bar from 0 to `value` in a pale track from the lower to the upper limit; no bar for a NaN."""
        x1, y1, x2, y2 = edges
        self.box(edges, fill=PALE)
        if np.isnan(value):
            return
        low, high = limits
        ends = [x1 + (np.clip(end, low, high) - low) / (high - low) * (x2 - x1) for end in (0.0, value)]
        self.box((min(ends), y1, max(ends), y2), fill=colour)

    def markup(self, shows: str) -> str:
        """The image as part of a page, with `shows` for those who do not see it."""
        # An img of ours, for ipywidgets.Image has no alternative text. Decoded at once, so that it does not flicker.
        return (
            f'<img alt="{html.escape(shows)}" width="{self.width}" height="{self.height}" decoding="sync" '
            f'style="max-width: 100%; object-fit: contain" '
            f'src="data:image/png;base64,{base64.b64encode(self.png).decode()}">'
        )

    @functools.cached_property
    def png(self) -> bytes:
        """The image as a PNG file, `SCALE` times as large as it is shown."""
        file = io.BytesIO()
        self._image.save(file, "png", compress_level=2)
        return file.getvalue()


class Plane:
    """Part of a canvas with units of its own: `at(x, y)` is the point on the canvas, y downwards.

    Args:
        canvas: to draw on.
        left, top: where the point (0, 0) lies.
        unit: pixels of the page for one unit.
    """

    def __init__(self, canvas: Canvas, left: float, top: float, unit: float):
        self.canvas, self.left, self.top, self.unit = canvas, left, top, unit

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + self.unit * x, self.top + self.unit * y

    def box(self, edges: Sequence[float], **style) -> None:
        """A rectangle in the plane's units; see `Canvas.box`."""
        self.canvas.box((*self.at(*edges[:2]), *self.at(*edges[2:])), **style)

    def dot(self, x: float, y: float, radius: float, colour: str, edge: str | None = None) -> None:
        """A disc around a point of the plane, its radius in pixels of the page."""
        self.canvas.dot(*self.at(x, y), radius, colour, edge)

    def grid(self, columns: int, rows: int, colour: str = PALE, every: int = 0) -> None:
        """Lines around every unit, and numbers below and to the left of every few of them."""
        for x in range(columns + 1):
            self.canvas.line([self.at(x, 0), self.at(x, rows)], colour)
        for y in range(rows + 1):
            self.canvas.line([self.at(0, y), self.at(columns, y)], colour)
        if every:
            for x in range(0, columns + 1, every):
                self.canvas.text(self.at(x, rows)[0], self.at(x, rows)[1] + 4, str(x), 12, DARK, at="ma")
            for y in range(0, rows + 1, every):
                self.canvas.text(self.at(0, y)[0] - 6, self.at(0, y)[1], str(y), 12, DARK, at="rm")


def rgb(colour: str) -> np.ndarray:
    """A colour such as "#0072B2" as three floats in 0..1."""
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255


def _scaled(lengths: Sequence[float], far: int = 0) -> tuple[int, ...]:
    """Lengths in pixels of the image; Pillow's far edges are inclusive, so those of a filled box are one less."""
    whole = [round(SCALE * float(length)) for length in lengths]
    return tuple(whole[:2] + [value - far for value in whole[2:]])


@functools.cache
def _font(size: int, bold: bool):
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = f"{matplotlib.get_data_path()}/fonts/ttf/{name}"
    return ImageFont.truetype(path, SCALE * size, layout_engine=ImageFont.Layout.BASIC)
