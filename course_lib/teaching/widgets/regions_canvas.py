"""What the widget of RoI Align computes and draws: where it reads, and what comes out, beside RoI Pool."""

import numpy as np

from course_lib.ops import by_hand
from course_lib.teaching.widgets.canvas import BLACK, BLUE, DARK, ORANGE, PINK, WHITE, Answer, Canvas, Plane


def slope(size: int = 12) -> np.ndarray:
    """A map that rises to the right, with a bright bump, float32 `(size, size)` in 0..1."""
    row, column = np.mgrid[:size, :size] / (size - 1)
    bump = np.exp(-((row - 0.4) ** 2 + (column - 0.4) ** 2) / 0.015)
    return (0.5 * column + 0.5 * bump).astype(np.float32)


def roi_answer(
    feature_map: np.ndarray, columns: tuple[float, float], rows: tuple[float, float], cells: int, points: int
) -> Answer:
    """One region read by RoI Align and by RoI Pool.

    Args:
        feature_map: `(height, width)`; a value lies at each whole position.
        columns: left and right edge of the region, in positions.
        rows: top and bottom edge.
        cells: the region becomes cells × cells values.
        points: RoI Align reads points × points times in each cell.

    Returns:
        The answer; its numbers are `align` and `pool`, `(cells, cells)` each, and `points`, row and column of each point,
        `(cells² · points², 2)`.
    """
    # The loops of ops.by_hand: on one small map they are ready before a backend has begun.
    features = np.asarray(feature_map, np.float32)[..., None]
    box = (columns[0], rows[0], columns[1], rows[1])
    align = by_hand.roi_align(features, box, cells, 1, points)[..., 0]
    pool = by_hand.roi_pool(features, box, cells, 1)[..., 0]
    grid = by_hand.sample_points(box, cells, 1, points).reshape(-1, 2)
    y, x = grid[0]
    read = float(by_hand.bilinear(features, y, x)[0])
    whole = [int(np.floor(edge + 0.5)) for edge in (*columns, *rows)]
    numbers = {"align": align, "pool": pool, "points": grid}
    words = (
        f"The region is {columns[1] - columns[0]:.1f} positions wide and {rows[1] - rows[0]:.1f} high. RoI Align reads it "
        f"at {len(grid)} points, {points * points} in each of {cells} × {cells} cells. The first lies at row {y:.2f}, "
        f"column {x:.2f}, and reads {read:.2f} from the four positions around it. RoI Pool takes columns {whole[0]} to "
        f"{whole[1]} and rows {whole[2]} to {whole[3]}, whole."
    )
    return Answer(numbers, words, _draw(feature_map, columns, rows, whole, numbers, cells))


def _draw(feature_map, columns, rows, whole, numbers, cells) -> Canvas:
    canvas = Canvas(900, 410)
    height, width = np.shape(feature_map)
    unit = 372 / max(height, width)
    # A square is drawn around each whole position, so position 0 lies half a square from the edge.
    plane = Plane(canvas, 15 + unit / 2, 30 + unit / 2, unit)
    shade = _shades(feature_map)
    canvas.image(shade(feature_map), (*plane.at(-0.5, -0.5), *plane.at(width - 0.5, height - 0.5)))
    canvas.text(15, 14, "dots: RoI Align reads here    blue frame: RoI Pool's squares", 13, DARK)
    plane.box((whole[0] - 0.5, whole[2] - 0.5, whole[1] + 0.5, whole[3] + 0.5), edge=BLUE, width=4)
    # As RoI Align has it: a region is at least one position wide and high.
    right, bottom = max(columns[1], columns[0] + 1), max(rows[1], rows[0] + 1)
    for k in range(cells + 1):
        x, y = (near + k * (far - near) / cells for near, far in ((columns[0], right), (rows[0], bottom)))
        edge = 3 if k in (0, cells) else 1.5
        canvas.line([plane.at(x, rows[0]), plane.at(x, bottom)], ORANGE, edge)
        canvas.line([plane.at(columns[0], y), plane.at(right, y)], ORANGE, edge)
    for y, x in numbers["points"]:
        plane.dot(x, y, 4, WHITE, BLACK)
    y, x = numbers["points"][0]
    for row in (np.floor(y), np.ceil(y)):
        for column in (np.floor(x), np.ceil(x)):
            plane.dot(column, row, 3.5, PINK)
    plane.dot(x, y, 5, PINK, BLACK)
    for place, (title, key) in enumerate((("RoI Align", "align"), ("RoI Pool", "pool"))):
        _draw_values(canvas, 430 + 235 * place, 60, 215, numbers[key], shade, title)
    canvas.text(430, 310, "pink: the first point and the four positions that it is read from", 13, DARK)
    return canvas


def _draw_values(canvas: Canvas, left: float, top: float, side: float, values, shade, title: str) -> None:
    canvas.text(left, top - 18, title, 17, bold=True)
    canvas.image(shade(values), (left, top, left + side, top + side))
    cell = side / len(values)
    if cell < 30:  # no room for numbers
        return
    for (row, column), value in np.ndenumerate(values):
        colour = WHITE if shade(value) < 0.5 else BLACK
        x, y = left + (column + 0.5) * cell, top + (row + 0.5) * cell
        canvas.text(x, y, f"{value:.2f}", 15 if cell > 45 else 12, colour, at="mm")


def _shades(feature_map):
    """From a value of the map to a grey: the lowest pale, the highest dark."""
    low, high = float(np.min(feature_map)), float(np.max(feature_map))
    return lambda values: 0.95 - 0.75 * (np.asarray(values) - low) / max(high - low, 1e-9)
