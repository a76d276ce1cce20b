"""The figures of this chapter's quiz, drawn when a question is shown: numbers of the real case, and no image of it."""

import json

import numpy as np

from course_lib import resources
from course_lib.plot import COLOURS
from course_lib.teaching.quiz_figures import subplots


def measured():
    """Scores of the network of this chapter, image by image."""
    path = resources.DATA / "results" / "real-data" / "by-source.json"
    return json.loads(path.read_text(encoding="utf-8"))


def curves():
    """The history of its training."""
    path = resources.DATA / "checkpoints" / "unet-nuclei-by-source" / "card.json"
    return json.loads(path.read_text(encoding="utf-8"))["history"]


def _three_splits():
    hospital, patient, image = (grid.ravel() for grid in np.indices((3, 4, 3)))
    places = 15 * hospital + 3.5 * patient + image
    tested = {"A": np.random.default_rng(2).permutation(36) < 9, "B": patient == 3, "C": hospital == 2}
    figure, axis = subplots()
    for row, chosen in enumerate(tested.values()):
        for name, which, marker, colour in (
            ("training", ~chosen, "o", COLOURS[0]),
            ("test", chosen, "s", COLOURS[1]),
        ):
            axis.plot(
                places[which], np.full(which.sum(), row), marker, color=colour, markersize=7, label=name
            )
        if row == 0:
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    for k in range(3):
        axis.text(15 * k + 6.2, 2.85, f"hospital {k + 1}", ha="center", va="center")
    axis.set_yticks(range(3), [f"split {name}" for name in tested])
    axis.set(xlim=(-1.5, 44), ylim=(3.1, -0.5), xticks=())
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def _areas():
    figure, axis = subplots()
    images = [one for one in measured()["val"]["per_image"] if one["area"]]
    areas = [one["area"] for one in images]
    for key, marker, colour in (("ap_50", "o", COLOURS[0]), ("ap_75", "s", COLOURS[1])):
        axis.plot(
            areas,
            [one[key] for one in images],
            marker,
            color=colour,
            markersize=5,
            label=f"at IoU {int(key[3:]) / 100:g}",
        )
    axis.axvline(1, color="black", linewidth=1, linestyle=":")
    axis.set(xlabel="predicted area / true area (median)", ylabel="AP of the image", ylim=(-0.03, 1.05))
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _crowds():
    figure, axis = subplots()
    images = measured()["val"]["per_image"]
    axis.plot(
        [one["nuclei"] for one in images],
        [one["ap_50"] for one in images],
        "o",
        color=COLOURS[0],
        markersize=6,
    )
    axis.set(xscale="log", xlabel="nuclei in the image", ylabel="AP at IoU 0.5", ylim=(0, 1.05))
    axis.set_xticks([1, 3, 10, 30, 100], [1, 3, 10, 30, 100])
    axis.minorticks_off()
    return figure


def _two_sets():
    case, bins = measured(), np.arange(5, 65, 5)
    figure, axis = subplots()
    for name, label, style, colour in (
        ("val", "validation,\nknown sources", "-", COLOURS[0]),
        ("test", "test,\na new source", "--", COLOURS[5]),
    ):
        diameters = [one["diameter"] for one in case[name]["per_image"]]
        axis.hist(
            diameters,
            bins,
            weights=np.full(len(diameters), 100 / len(diameters)),
            histtype="step",
            linewidth=2.5,
            linestyle=style,
            color=colour,
            label=f"{label}: AP {case[name]['scores']['ap_50']['pooled']:.2f}",
        )
    axis.set(xlabel="median diameter of the nuclei (pixels)", ylabel="% of the images")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _training():
    figure, axis = subplots()
    history = curves()
    epochs = range(1, 1 + len(history["loss"]))
    axis.plot(epochs, history["loss"], "o-", label="training\n(augmented crops)")
    axis.plot(epochs, history["val_loss"], "s--", label="validation\n(fixed crops)")
    axis.set(xlabel="epoch", ylabel="loss", ylim=(0, None), xticks=epochs)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


FIGURES = {
    "09-q9": _three_splits,
    "09-q10": _areas,
    "09-q11": _crowds,
    "09-q12": _two_sets,
    "09-q13": _training,
}
