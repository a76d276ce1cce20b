"""A page to draw networks on: blocks, arrows and words at measured places, written as vectors with real text."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_lib.plot import COLOURS

if TYPE_CHECKING:
    import keras

TITLE = 0.45
"""Height of the line above a drawing, in inches."""
SMALLEST = 10
"""Size in points of the smallest words on a drawing that is 12 inches wide."""


@dataclass(frozen=True)
class Level:
    """A feature map as it was built: its layer's name, its rows and columns in pixels (`None` = any), its channels."""

    name: str
    rows: int | None
    columns: int | None
    channels: int

    @property
    def size(self) -> str:
        """Rows and columns in words: `572²`, `96 × 128`, or `any`."""
        if self.rows is None or self.columns is None:
            return "any"
        return f"{self.rows}²" if self.rows == self.columns else f"{self.rows} × {self.columns}"

    def __str__(self) -> str:
        return f"{self.size} × {self.channels}"


def read_map(model: keras.Model, name: str) -> Level:
    """The map that a layer of a functional model gives."""
    _, rows, columns, channels = model.get_layer(name).output.shape
    return Level(name, rows, columns, channels)


@dataclass(frozen=True)
class Look:
    """How a kind of thing is painted: its colour, and a hatching that tells it apart where there is no colour."""

    face: str
    hatch: str = ""


DOWN = Look(COLOURS[4])
"""Maps on the way to fewer and deeper pixels: encoder, backbone."""
DEEP = Look("#8FCFB9", "...")
"""The deepest maps, and those made of them."""
UP = Look("#F3C66B", "////")
"""Maps on the way back up."""
ANSWER = Look("white", "xxxx")
"""What comes out: logits, scores."""
PLAIN = Look("white")

CONVOLUTION = {"line": 1.4, "head": 9}
POINTWISE = {"line": 1.6, "head": 9, "linestyle": (0, (1, 1))}
POOL = {"line": 2.6, "head": 13, "color": COLOURS[5]}
CLIMB = {"line": 3.4, "head": 13, "color": COLOURS[2], "hollow": True}
SKIP = {"line": 2.2, "head": 12, "color": COLOURS[0], "linestyle": (0, (4, 1.5))}
"""Arrows: a convolution, one of 1 × 1, down to fewer pixels, up to more, and past what lies between."""


class Canvas:
    """A rectangle of a figure, measured from its top left corner in inches of a drawing that is `width` wide.

    Drawn smaller or larger, all of it, words and lines too, shrinks or grows alike.

    Args:
        figure: to draw in.
        rectangle: left, bottom, width and height of the place in the figure, as fractions of the figure.
        width, height: of the drawing, in its own inches.
    """

    def __init__(self, figure, rectangle: Sequence[float], width: float, height: float):
        self.figure, self.width, self.height = figure, width, height
        self.axis = figure.add_axes(
            rectangle, xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], frame_on=False
        )
        self.scale = rectangle[2] * figure.get_figwidth() / width

    def text(self, x: float, y: float, words: str, size: float = 11, **style):
        """Words around a point; `style` is Matplotlib's (`ha`, `va`, `color`, `weight`, `rotation`)."""
        style = {"ha": "center", "va": "center", "linespacing": 1.25} | style
        return self.axis.text(x, y, words, fontsize=size * self.scale, **style)

    def block(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        look: Look = PLAIN,
        corner: float = 0.0,
        line: float = 1.0,
        **style,
    ):
        """A rectangle, its corners rounded by `corner` inches."""
        import matplotlib as mpl
        from matplotlib.patches import FancyBboxPatch, Rectangle

        style = {"facecolor": look.face, "hatch": look.hatch, "edgecolor": "black"} | style
        style["linewidth"] = line * self.scale
        with mpl.rc_context({"hatch.linewidth": 0.6 * self.scale}):
            if corner:
                kind = f"round,pad=0,rounding_size={corner}"
                return self.axis.add_patch(FancyBboxPatch((left, top), width, height, boxstyle=kind, **style))
            return self.axis.add_patch(Rectangle((left, top), width, height, **style))

    def middle(self, x: float, y: float, width: float, height: float, look: Look = PLAIN, **style):
        """A rectangle around a point."""
        return self.block(x - width / 2, y - height / 2, width, height, look, **style)

    def arrow(self, *points: tuple[float, float], line: float = 1.6, head: float = 11, **style):
        """An arrow along points, with its head at the last; `head=0` is a line without one.

        `hollow=True` is a double line, which is told from a single one without its colour.
        """
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        hollow = style.pop("hollow", False)
        if head and (hollow or "linestyle" in style):
            # A head that is dashed or hollow, too, would be torn: that part of the line ends where it begins.
            (x, y), (end_x, end_y) = points[-2:]
            length = ((end_x - x) ** 2 + (end_y - y) ** 2) ** 0.5
            fraction = max(0.0, 1 - 0.9 * head / 72 / max(length, 1e-9))
            neck = (x + fraction * (end_x - x), y + fraction * (end_y - y))
            self.arrow(*points[:-1], neck, line=line, head=0, **style)
            if hollow:
                self.arrow(*points[:-1], neck, line=0.4 * line, head=0, color="white")
            points = (neck, points[-1])
            style = {key: value for key, value in style.items() if key != "linestyle"}
            line = min(line, 2.0)
        style = {"color": "black", "joinstyle": "miter", "capstyle": "butt"} | style
        arrow = FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>" if head else "-",
            mutation_scale=max(head, 1) * self.scale,
            linewidth=line * self.scale,
            **style,
        )
        return self.axis.add_patch(arrow)

    def circle(self, x: float, y: float, radius: float, look: Look = PLAIN, line: float = 1.2, **style):
        from matplotlib.patches import Circle

        style = {"facecolor": look.face, "edgecolor": "black"} | style
        return self.axis.add_patch(Circle((x, y), radius, linewidth=line * self.scale, **style))

    def map(
        self,
        x: float,
        y: float,
        level: Level,
        height: float,
        width: float,
        look: Look,
        bars: int = 1,
        name: str = "",
    ) -> tuple[float, float]:
        """A feature map around a point, as `bars` bars side by side: below it its shape, above it a name.

        Returns:
            Where its left and its right edge are.
        """
        left = x - width * bars / 2
        for index in range(bars):
            self.block(left + width * index, y - height / 2, width, height, look)
        self.text(x, y + height / 2 + 0.06, two_lines(level), SMALLEST, va="top", linespacing=1.05)
        if name:
            self.text(x, y - height / 2 - 0.06, name, SMALLEST, va="bottom")
        return left, left + width * bars

    def legend(
        self, entries: Sequence[tuple[str | Look | Callable, dict, str]], top: float, columns: int = 3
    ) -> None:
        """What arrows and blocks mean, in rows 0.3 inches high.

        Args:
            entries: `"right"`, `"down"` or `"up"` with the arrow's style; `"plus"`; a `Look`, for a block; a function that
                paints from `(x, y)` on, half an inch wide; or `""`, for nothing but words; each with its words.
            top: of the first row.
            columns: entries in a row.
        """
        for index, (kind, style, words) in enumerate(entries):
            x = 0.35 + index % columns * (self.width - 0.5) / columns
            y = top + 0.2 + index // columns * 0.3
            if kind == "right":
                self.arrow((x, y), (x + 0.5, y), **style)
            elif kind in ("down", "up"):
                ends = [(x + 0.25, y - 0.13), (x + 0.25, y + 0.13)]
                self.arrow(*(ends if kind == "down" else ends[::-1]), **style)
            elif kind == "plus":
                self.plus(x + 0.25, y, 0.1)
            elif isinstance(kind, Look):
                self.middle(x + 0.25, y, 0.32, 0.2, kind)
            elif callable(kind):
                kind(x, y)
            self.text(x + 0.62 if kind else x, y, words, 10.5, ha="left")

    def plus(self, x: float, y: float, radius: float = 0.12):
        """A sum."""
        self.circle(x, y, radius)
        for ends in (
            ((x - 0.6 * radius, y), (x + 0.6 * radius, y)),
            ((x, y - 0.6 * radius), (x, y + 0.6 * radius)),
        ):
            self.arrow(*ends, head=0)


def new_canvas(width: float, height: float, of: float = 12.0) -> Canvas:
    """A figure `width` inches wide that holds a drawing of `of` × `height` inches, and nothing else."""
    import matplotlib.pyplot as plt

    # Placed by hand: a layout engine would draw everything twice, and a slider may be waiting.
    figure = plt.figure(figsize=(width, height * width / of), layout="none")
    return Canvas(figure, (0, 0, 1, 1), of, height)


def titled(plan, parameters: int, page: tuple[float, float], paint: Callable, width: float):
    """A figure `width` inches wide: name and number of parameters above what `paint(canvas, plan, top)` draws."""
    canvas = new_canvas(width, page[1] + TITLE, page[0])
    canvas.text(page[0] / 2, TITLE / 2, f"{plan.name}: {parameters:,} parameters", 14)
    paint(canvas, plan, TITLE)
    return canvas.figure


def blocks_of(names: Sequence[str]) -> tuple[int, ...]:
    """How many blocks each of the four stages of a residual backbone has, by the names of its layers (`layer1-0-conv1`)."""
    return tuple(
        len({name.split("-")[1] for name in names if name.startswith(f"layer{stage}-")})
        for stage in range(1, 5)
    )


def two_lines(level: Level) -> str:
    """The shape of a map for a narrow place: its size, and below that its channels."""
    size = level.size.replace(" × ", " ×\n") if len(level.size) > 9 else level.size
    return f"{size}\n× {level.channels}"


def lines(level: Level) -> int:
    """How many lines `two_lines` are."""
    return 1 + two_lines(level).count("\n")


def scaled(levels: dict[str, Level], least: float, most: float):
    """How high maps are drawn, by the logarithm of their rows: a function of a map, from `least` to `most` inches."""
    import math

    rows = [level.rows for level in levels.values() if level.rows]
    low, high = math.log2(min(rows)), math.log2(max(rows))

    def height(level: Level) -> float:
        fraction = (math.log2(level.rows) - low) / (high - low) if high > low else 1.0
        return least + (most - least) * fraction

    return height


def read_maps(model: keras.Model, image_size: tuple[int, int] | None) -> dict[str, Level]:
    """Every map of a functional model by the name of its layer, for an image of a size (rows, columns); nothing is run.

    Args:
        model: with one input.
        image_size: where the model leaves rows or columns open: by default 512 of each.
    """
    from course_lib.models.analysis import costs

    _, rows, columns, channels = model.input_shape
    if image_size is None:
        image_size = (rows or 512, columns or 512)
    maps = {"image": Level("image", *image_size, channels)}
    for layer in costs(model, image_size).layers:
        if len(layer.shape) == 3:
            maps[layer.name] = Level(layer.name, *layer.shape)
    return maps


def to_svg(figure, title: str = "") -> str:
    """A figure as SVG: text is text, and the same figure gives the same characters every time.

        >>> IPython.display.SVG(to_svg(draw_unet(model)))       # in a notebook, sharp at every size

    Args:
        figure: of Matplotlib.
        title: what programs that read the page aloud call it.
    """
    return _save(figure, "svg", {"Date": None, "Creator": None, "Title": title or None}).decode("utf8")


def to_pdf(figure, title: str = "") -> bytes:
    """A figure as PDF of one page, with its fonts within; the same figure gives the same bytes every time."""
    return _save(figure, "pdf", {"CreationDate": None, "Title": title or None})


def _save(figure, kind: str, metadata: dict) -> bytes:
    import matplotlib as mpl

    # Text stays text (searched, read aloud, copied); names inside an SVG are counted from a fixed salt, not by chance.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "course_lib", "pdf.fonttype": 42}
    buffer = io.BytesIO()
    with mpl.rc_context(settings):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
