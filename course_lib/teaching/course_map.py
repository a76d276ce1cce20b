"""The notebooks of the course, what each needs, and a drawing of it that shows which of them are written."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from course_lib import resources
from course_lib.plot import COLOURS

FOLDER = resources.NOTEBOOKS


@dataclass(frozen=True)
class Chapter:
    """One notebook of the course.

    Attributes:
        name: the notebook's file name without its ending; what stands before the first `_` is its number.
        short: a few words for a drawing.
        about: one line.
        needs: numbers of the notebooks to read first; what those need is needed, too.
        place: column and row in the drawing.
    """

    name: str
    short: str
    about: str
    needs: tuple[str, ...]
    place: tuple[int, int]

    @property
    def number(self) -> str:
        """`"03"` of `03_unet_encoder`, `"A"` of `A_many_devices`."""
        return self.name.partition("_")[0]

    def notebooks(self, folder: Path | None = None) -> list[Path]:
        """Its notebooks that lie in a folder: its own, and those that go on with it, such as `06b_mask_rcnn_heads`.

        Args:
            folder: by default the course's `notebooks/`.
        """
        folder = folder or FOLDER
        own = folder / f"{self.name}.ipynb"
        chapters = {chapter.name for chapter in CHAPTERS}
        others = [path for path in folder.glob(f"{self.number}[a-z]_*.ipynb") if path.stem not in chapters]
        return [own] * own.is_file() + sorted(others)


CHAPTERS = (
    Chapter("00_start_here", "start here", "the map, what this machine can do, a first result", (), (0, 1)),
    Chapter(
        "01_detection_vs_segmentation",
        "a box or\na mask",
        "a box, a mask, and what each costs and keeps",
        ("00",),
        (1, 0),
    ),
    Chapter(
        "02_semantic_vs_instance",
        "classes or\ninstances",
        "classes, instances, and where connected components break",
        ("01",),
        (2, 0),
    ),
    Chapter(
        "03_unet_encoder",
        "U-Net:\nbuild it",
        "a U-Net built from its parts, loaded with trained weights, and trained",
        ("00",),
        (1, 1),
    ),
    Chapter(
        "04_unet_decoder",
        "U-Net:\nits parts",
        "what the parts of a U-Net do; few images, touching cells, tiles",
        ("03",),
        (2, 1),
    ),
    Chapter("05_unet_vs_fcn", "U-Net or\nFCN", "FCN-32s/16s/8s and DeepLabV3+ beside U-Net", ("04",), (3, 2)),
    Chapter(
        "06_mask_rcnn_components",
        "Mask R-CNN:\nparts",
        "anchors, proposals, RoI Align, masks, stage by stage",
        ("02", "04"),
        (3, 0),
    ),
    Chapter(
        "07_mask_rcnn_training_and_limits",
        "Mask R-CNN:\ntraining",
        "training it, COCO AP, what goes wrong and how it looks",
        ("06",),
        (4, 0),
    ),
    Chapter(
        "08_losses_and_metrics",
        "losses and\nmetrics",
        "every loss and metric by hand, and when to use which",
        ("04",),
        (3, 1),
    ),
    Chapter(
        "09_one_real_case",
        "one real\ncase",
        "nuclei from files to a test that is opened once",
        ("07", "08"),
        (5, 1),
    ),
    Chapter(
        "09b_your_own_data",
        "your own\ndata",
        "from an annotation tool's export to a trained network that runs elsewhere",
        ("08",),
        (5, 2),
    ),
    Chapter(
        "09c_case_files",
        "case files",
        "membranes, streets, and five images with another annotation convention",
        ("05", "09"),
        (6, 3),
    ),
    Chapter("10_revision", "revision", "the summary, each line with its measured number", ("09",), (6, 1)),
    Chapter(
        "12_pretrained_and_after",
        "pretrained,\nand after",
        "trained encoders, queries in place of boxes, prompts in place of classes",
        ("04", "07"),
        (5, 0),
    ),
    Chapter(
        "A_many_devices",
        "many\ndevices",
        "training on several devices or machines: what is sent, and one command",
        ("04",),
        (3, 3),
    ),
)
"""The course in reading order: a notebook needs only earlier ones."""


def written(folder: Path | None = None) -> set[str]:
    """Names of the chapters whose notebook lies in a folder, by default the course's `notebooks/`."""
    folder = folder or FOLDER
    return {chapter.name for chapter in CHAPTERS if (folder / f"{chapter.name}.ipynb").is_file()}


def draw(here: Collection[str], width: float = 12.0):
    """The chapters as boxes, an arrow from each to those that need it.

    Args:
        here: names of the chapters to draw as filled, as `written` returns them; the others are drawn as planned.
        width: of the figure in inches.

    Returns:
        `(figure, axis)`.

    Raises:
        ValueError: if `here` names a chapter that does not exist.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    if unknown := sorted(set(here) - {chapter.name for chapter in CHAPTERS}):
        raise ValueError(f"here: there is no chapter {unknown[0]!r}; see course_map.CHAPTERS.")
    columns, rows = (1 + max(chapter.place[k] for chapter in CHAPTERS) for k in (0, 1))
    figure, axis = plt.subplots(figsize=(width, 1.3 * rows + 0.6))
    half_width, half_height = 0.41, 0.34
    by_number = {chapter.number: chapter for chapter in CHAPTERS}
    for chapter in CHAPTERS:
        column, row = chapter.place
        exists = chapter.name in here
        box = FancyBboxPatch(
            (column - half_width, row - half_height),
            2 * half_width,
            2 * half_height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=COLOURS[0] if exists else "white",
            edgecolor=COLOURS[0] if exists else "0.45",
            linestyle="-" if exists else "--",
            linewidth=1.5,
        )
        axis.add_patch(box)
        colour = "white" if exists else "0.25"
        axis.text(column, row - 0.2, chapter.number, ha="center", va="center", weight="bold", color=colour)
        axis.text(column, row + 0.1, chapter.short, ha="center", va="center", color=colour, fontsize=12)
        for needed in chapter.needs:
            from_column, from_row = by_number[needed].place
            axis.annotate(
                "",
                xy=(column - half_width, row),
                xytext=(from_column + half_width, from_row),
                arrowprops={"arrowstyle": "-|>", "color": "0.3", "lw": 1.5, "shrinkA": 1, "shrinkB": 1},
            )
    axis.set_xlim(-0.5, columns - 0.5)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.axis("off")
    planned = len(here) < len(CHAPTERS)
    axis.set_title("What builds on what" + planned * ": filled is here, dashed is planned")
    return figure, axis
