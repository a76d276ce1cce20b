"""What the questions of chapters 01 to 05 say of their code and of their figures, computed."""

import io
from contextlib import redirect_stdout

import keras
import numpy as np
import pytest
from keras import layers
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, stats
from skimage.segmentation import watershed

from course_lib.chapters.ch02_semantic_vs_instance import question_figures as figures_02
from course_lib.chapters.ch03_unet_encoder import question_figures as figures_03
from course_lib.chapters.ch04_unet_decoder import question_figures as figures_04
from course_lib.chapters.ch05_unet_vs_fcn import question_figures as figures_05
from course_lib.datasets import boxes_from_instances
from course_lib.metrics import average_precision
from course_lib.models.analysis import receptive_field
from course_lib.ops import by_hand
from course_lib.teaching import ledger, questions

pytestmark = pytest.mark.backend

ASKED = {question.id: question for chapter in questions.load().quiz.values() for question in chapter}


def ran(name, **given):
    """A question's code, run: its names, and what it printed."""
    given |= {"np": np, "keras": keras, "layers": layers, "ndimage": ndimage}
    with redirect_stdout(io.StringIO()) as printed:
        exec(ASKED[name].code, given)
    return given, printed.getvalue().strip()


def right(name):
    """The right answer, a number where one is asked for."""
    answer = next(choice for choice in ASKED[name].choices if choice.right).answer
    return float(answer) if ASKED[name].is_number else answer


def test_chapter_01():
    people = [20, 10, 60, 90], [32, 10, 72, 90]
    assert by_hand.iou(*people) == pytest.approx(0.54, abs=0.005)
    assert (right("01-q9") - 10) / (right("01-q9") + 10) == 0.5

    iou = ran("01-q10")[0]["iou"]
    a = [0, 0, 4, 4]
    assert iou(a, [6, 6, 9, 9]) > 0 > iou(a, [6, 0, 9, 4])
    assert iou(a, [4, 0, 8, 4]) == iou(a, [1, 1, 1, 1]) == 0

    mask = np.zeros((9, 620), bool)
    mask[2:5, 10:20] = True
    instances = 2 * mask.astype(int)
    instances[6:8, 1:4] = 1
    found, _ = ran(
        "01-q11",
        mask=mask,
        image=instances.copy(),
        instances=instances,
        boxes_from_instances=boxes_from_instances,
    )
    assert found["boxes"].tolist() == [[1, 6, 4, 8], [10, 2, 320, 5]]  # one box spans both

    alarms = stats.norm.sf(-1.2, (-4, -2), (1.2, 1.8))
    assert alarms == pytest.approx([0.01, 1 / 3], abs=0.006)
    _, printed = ran("01-q14", image=np.zeros((100, 140)), sliding_window_view=sliding_window_view)
    assert printed == right("01-q14")


def test_chapter_02():
    four, eight = (
        ndimage.label(figures_02.GRID, np.ones((3, 3)) if corners else None)[1] for corners in (0, 1)
    )
    assert (four, eight) == (right("02-q8"), 5)

    masks = figures_02.two_squares()
    truth = masks.pop("ground truth")
    scores = {name: average_precision([truth], [ndimage.label(mask)[0]], 0.5) for name, mask in masks.items()}
    assert right("02-q9") == ", ".join(sorted(scores, key=scores.get, reverse=True))
    assert scores == {"A": 0, "B": 0.5, "C": 1}

    instances = np.repeat(np.arange(1, 13), 30)
    instances[np.isin(instances, (3, 6, 9)) & (np.arange(360) % 30 < 20)] = 0
    assert ran("02-q10", instances=instances)[1] == right("02-q10")

    rows, columns = np.indices((48, 72))
    mask = ((rows - 24) ** 2 + (columns - 22) ** 2 <= 196) | ((rows - 24) ** 2 + (columns - 45) ** 2 <= 144)
    found, _ = ran("02-q13", mask=mask, watershed=watershed)
    assert found["labels"].max() == 0 and watershed(-found["distance"], mask=mask).max() == 2

    found, _ = ran("02-q15")
    assert found["found"](instances, instances) == 1
    assert found["found"](instances, np.where(instances > 0, instances % 12 + 1, 0)) == 0


def test_chapter_03():
    image = keras.Input((None, None, 1))
    assert receptive_field(keras.Model(image, ran("03-q1", image=image)[0]["x"])).size[0] == right("03-q1")
    assert right("03-q12") == " × ".join(map(str, ran("03-q12")[0]["y"].shape[1:]))

    def conv_block(x, filters):
        return layers.Conv2D(filters, 3, padding="same")(x)

    for choice in ASKED["03-q13"].choices:
        given = {"x": keras.Input((int(choice.answer),) * 2 + (1,)), "conv_block": conv_block}
        if choice.right:
            assert ran("03-q13", **given)[0]["x"].shape[1] == int(choice.answer)
        else:
            with pytest.raises(ValueError, match="matching shapes"):
                ran("03-q13", **given)

    weights, work = figures_03.parameters_and_work()
    assert min(np.divide(weights[1:], weights[:-1])) > 3.9 and max(work) < 1.6 * min(work)


def test_chapter_04():
    assert ran("04-q1", x=keras.Input((10, 10, 8)))[0]["y"].shape[1] == right("04-q1")
    assert figures_04.stamps(7, 4, 3)[:10].tolist() == [1, 1, 1, 2, 1, 1, 2, 1, 1, 2]
    given = {"x": keras.Input((28, 28, 1024)), "skip": keras.Input((64, 64, 512))}
    assert ran("04-q10", margin=int(right("04-q10")), **given)[0]["x"].shape[1:] == (56, 56, 1024)
    different = np.flatnonzero(figures_04.seam() > 1e-12)
    assert different.tolist() == list(range(int(right("04-q12"))))

    table = ledger.read("4.1").table
    trained, untrained = (np.mean(one["bottleneck"]["what"]) for one in (table, table["untrained"]))
    assert (trained, trained - untrained) == pytest.approx((0.8, 0.5), abs=0.05)


def test_chapter_05():
    layer = eval(ASKED["05-q4"].code, {"layers": layers})
    assert 2 * layer.dilation_rate[0] + 1 == right("05-q4")

    inputs = np.random.default_rng(0).normal(size=(1, 4, 4, 32)).astype("float32")
    dense = layers.Dense(32)
    wanted = keras.ops.convert_to_numpy(dense(inputs.reshape(1, -1)))
    layer = ran("05-q10", dense=dense)[0]["layer"]
    assert np.abs(keras.ops.convert_to_numpy(layer(inputs))[0, 0] - wanted).max() > 0.1
    layer.set_weights([dense.get_weights()[0].reshape(4, 4, 32, 32), dense.get_weights()[1]])
    assert keras.ops.convert_to_numpy(layer(inputs))[0, 0] == pytest.approx(wanted, abs=1e-4)

    def squares(rates):
        return np.flatnonzero(figures_05.taps(rates).any(0)).tolist()

    assert squares((2, 2)) == [1, 3, 5, 7, 9] and squares((1, 3)) == list(range(1, 10))
    assert squares((1, 2)) == list(range(2, 9)) and squares((4, 1)) == [0, 1, 2, 4, 5, 6, 8, 9, 10]

    given = {"deep": keras.Input((8, 8, 512)), "pool4": keras.Input((16, 16, 512))}
    with pytest.raises(ValueError, match="512"):
        ran("05-q13", **given)
    fine, coarse = (
        dict(zip(figures_05.DIAMETERS, figures_05.best_ious(one), strict=True)) for one in (8, 32)
    )
    assert fine[16] > 0.65 and coarse[16] == 0 and fine[96] - coarse[96] < 0.1
