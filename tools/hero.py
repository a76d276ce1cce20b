"""Draw README's images: at its head one photograph as each task sees it, in its table a figure of each chapter.

Usage: python tools/hero.py (writes docs/_static/hero.png and docs/_static/thumbnails/)
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import matplotlib.patheffects as effects  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from build import thumbnail  # noqa: E402

import course_lib  # noqa: E402
from course_lib import plot  # noqa: E402
from course_lib.datasets import cells, collage, scenes  # noqa: E402

HALO = [effects.withStroke(linewidth=3, foreground="black")]


def boxes_on(axis, sample, names):
    """The bounding boxes of a sample, each with its class."""
    for (x1, y1, x2, y2), label in zip(sample.boxes, sample.classes, strict=True):
        edge = plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", linewidth=1.6)
        edge.set_path_effects(HALO)
        axis.add_patch(edge)
        words = axis.text(x1 + 5, y1 + 6, names[label], color="white", fontsize=9, va="top")
        words.set_path_effects(HALO)


def main() -> None:
    plot.style()
    photo = collage.scene()
    scene = scenes("val", 3, 128, seed=11, objects=(5, 7), object_size=(24.0, 60.0), occlusion=(0.0, 0.4))[2]
    cell = cells("val", 4, 128, seed=2)[1]
    top = [
        (photo.image, "The photograph"),
        (photo.image, "Detection: bounding boxes"),
        (plot.overlay(photo.image, photo.semantic, 0.55), "Semantic: a class for each pixel"),
        (plot.overlay(photo.image, photo.instances, 0.55), "Instance: each object by itself"),
    ]
    found_cells = course_lib.load("unet-cells").predict(cell.image)
    found_objects = course_lib.load("maskrcnn-scenes").predict(scene.image)
    below = [
        (np.repeat(cell.image, 3, -1) if cell.image.shape[-1] == 1 else cell.image, "Synthetic cells"),
        (
            plot.overlay(np.repeat(cell.image[..., :1], 3, -1), found_cells, 0.55),
            f"U-Net's prediction: {found_cells.max()} cells",
        ),
        (scene.image, "A synthetic scene"),
        (
            plot.overlay(scene.image, found_objects, 0.55),
            f"Mask R-CNN's prediction: {found_objects.max()} objects",
        ),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.6), height_ratios=[0.66, 1], layout="constrained")
    for axis, (image, title) in zip(axes.flat, top + below, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(title, fontsize=12)
        axis.axis("off")
    boxes_on(axes[0, 1], photo, collage.CLASS_NAMES)
    path = ROOT / "docs" / "_static" / "hero.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        thumbnail(notebook, path.parent / "thumbnails" / f"{notebook.stem}.png", 240)


if __name__ == "__main__":
    main()
