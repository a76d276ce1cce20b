"""Exercises of chapter 05: dense layers as convolutions, upsampling, fused scores, atrous rates, boundary F1, a
classifier made fully convolutional."""

from functools import cache, partial

import numpy as np
from scipy import ndimage

from course_lib import datasets
from course_lib.teaching.exercise import Case, Exercise, Form, array, number, same, varied

# 05.1


def _dense(words, shape, outputs):
    weights = np.random.default_rng(outputs).normal(size=(int(np.prod(shape)), outputs)).round(2)
    return Case(words, weights, shape)


def dense_as_convolution(weights, map_shape):
    return weights.reshape(*map_shape, -1)


DENSE_AS_CONVOLUTION = Exercise(
    number="05.1",
    name="dense_as_convolution",
    form=array("a kernel (height, width, channels, outputs)"),
    answer=dense_as_convolution,
    cases=[
        Case("a feature map of 2 × 3 with one channel and one output", np.arange(6.0)[:, None], (2, 3, 1)),
        _dense("a feature map of 3 × 3 with 2 channels and 4 outputs", (3, 3, 2), 4),
        _dense("a feature map of one location with 5 channels and 3 outputs", (1, 1, 5), 3),
        _dense("a feature map of 2 × 4 with 3 channels and 2 outputs", (2, 4, 3), 2),
    ],
    mistakes={
        "You read the rows channel by channel, as channels-first software does; here the channel changes "
        "fastest, then the column, then the row.": lambda w, s: w.reshape(s[2], s[0], s[1], -1).transpose(
            1, 2, 0, 3
        ),
        "You go down the columns; the feature map was read row by row, so the column changes before the row.": (
            lambda w, s: w.reshape(s[1], s[0], s[2], -1).transpose(1, 0, 2, 3)
        ),
        "order='F' lets the first axis change fastest; here the last one, the channel, changes fastest.": (
            lambda w, s: w.reshape((*s, w.shape[1]), order="F")
        ),
        "You transpose before you reshape, which mixes outputs and locations: the outputs are the last axis already.": (
            lambda w, s: w.T.reshape(*s, -1)
        ),
        "Your kernel begins with the outputs; in Keras they come last: (height, width, channels, outputs).": (
            lambda w, s: w.T.reshape(-1, *s)
        ),
        "You rotate the kernel by 180 degrees, as the mathematical convolution does; a network multiplies "
        "location by location, as the dense layer does.": lambda w, s: w.reshape(*s, -1)[::-1, ::-1],
        "Yours is a 1 × 1 kernel with a channel for every value of the feature map; the kernel must be as "
        "high and wide as the map.": lambda w, s: w.reshape(1, 1, *w.shape),
    },
    hints=[
        "A dense layer multiplies value k of the flattened feature map by row k of its weights. Which "
        "location and which channel does value k belong to?",
        "The order of the values in `weights` need not change, only the shape of the array.",
        "weights.reshape(height, width, channels, outputs).",
    ],
)

# 05.2


def _tent(factor):
    return 1 - np.abs(np.arange(2 * factor) + 0.5 - factor) / factor


def bilinear_kernel(factor, tent=_tent, both=np.multiply.outer):
    return both(tent(factor), tent(factor))


def _block(factor):
    return ((np.arange(2 * factor) >= factor // 2) & (np.arange(2 * factor) < factor // 2 + factor)).astype(
        float
    )


def _cone(factor):
    offsets = np.arange(2 * factor) + 0.5 - factor
    return np.maximum(1 - np.hypot(*np.meshgrid(offsets, offsets)) / factor, 0)


BILINEAR_KERNEL = Exercise(
    number="05.2",
    name="bilinear_kernel",
    form=array("an array (2 · factor, 2 · factor)"),
    answer=bilinear_kernel,
    cases=[
        Case(
            f"the factor {f}, a kernel of {2 * f} × {2 * f}",
            f,
            note="Sum its elements: the result should be factor².",
        )
        for f in (2, 3, 4, 8)
    ],
    mistakes={
        "Your tent has its peak on a pixel; the middle of an even number of pixels lies between two. Measure "
        "from k + 0.5.": (partial(bilinear_kernel, tent=lambda f: 1 - np.abs(np.arange(2 * f) - f) / f)),
        "Your kernel has an odd side, 2 · factor - 1, with its peak on a pixel; here its side is 2 · factor.": partial(
            bilinear_kernel, tent=lambda f: 1 - np.abs(np.arange(2 * f - 1) - f + 1) / f
        ),
        "Your kernel sums to 1, so a map of ones would become a map of 1 / factor². Each output lies "
        "between four stamps: leave the tents as they are.": lambda f: bilinear_kernel(f) / f**2,
        "You scale the kernel so that its largest value is 1; no output pixel lies exactly on the centre "
        "of an input pixel, so the largest value stays below 1.": lambda f: (
            bilinear_kernel(f) / bilinear_kernel(f).max()
        ),
        "Your tent is 0 at its outermost pixels; it reaches 0 only half a pixel beyond them.": partial(
            bilinear_kernel, tent=lambda f: np.concatenate([np.linspace(0, 1, f), np.linspace(1, 0, f)])
        ),
        "Your kernel repeats each value in a block (nearest neighbour); between two inputs the output "
        "should change gradually from one to the other.": partial(bilinear_kernel, tent=_block),
        "All values of your kernel are equal, so every output is the plain mean of four inputs. Nearer "
        "inputs must count more.": (lambda f: np.full((2 * f, 2 * f), 0.25)),
        "You take the mean of the two tents; interpolating down and then across multiplies them.": partial(
            bilinear_kernel, both=lambda a, b: np.add.outer(a, b) / 2
        ),
        "Your kernel is a round cone; bilinear interpolation uses a tent along each axis and multiplies "
        "the two.": _cone,
        "That is one axis; an image has two. np.outer multiplies the tent with itself.": _tent,
    },
    hints=[
        "Along one axis, an output between two inputs depends on both, and more on the nearer one. How "
        "much does a single input contribute to outputs at increasing distance? Draw it.",
        "It is a tent: pixel k of the kernel is |k + 0.5 - factor| from the middle, and at a distance of factor nothing is "
        "left.",
        "tent = 1 - np.abs(np.arange(2 * factor) + 0.5 - factor) / factor; then np.outer(tent, tent).",
    ],
)

# 05.3


def fuse_scores(coarse, fine, at=lambda k, a, b: k / 2 - 0.25, order=1, mode="nearest", join=np.add):
    """Coarse scores, read at `at` (fine pixel, coarse side, fine side) in coarse pixels, joined with the fine ones."""
    where = [at(np.arange(b), a, b) for a, b in zip(coarse.shape[:2], fine.shape[:2], strict=True)]
    points = np.meshgrid(*where, indexing="ij")
    read = [ndimage.map_coordinates(one, points, order=order, mode=mode) for one in np.moveaxis(coarse, 2, 0)]
    return join(np.stack(read, axis=-1), fine)


_fused = varied(fuse_scores)


def _down_to_coarse(coarse, fine):
    sides = [(0, 2 * a - b) for a, b in zip(coarse.shape[:2], fine.shape[:2], strict=True)]
    even = np.pad(fine, [*sides, (0, 0)], mode="edge")
    return coarse + even.reshape(coarse.shape[0], 2, coarse.shape[1], 2, -1).mean(axis=(1, 3))


def _scores(coarse, fine, note=""):
    words = "coarse scores at {} × {} locations, fine ones at {} × {}".format(*coarse, *fine)
    rng = np.random.default_rng(8)
    return Case(words, *(rng.normal(0, 3, (*size, 2)).round(2) for size in (coarse, fine)), note=note)


_ODD = "The coarse map reaches one row and one column beyond the fine one: leave out the last ones."

FUSE_SCORES = Exercise(
    number="05.3",
    name="fuse_scores",
    form=array("an array of the shape of fine"),
    answer=fuse_scores,
    cases=[
        Case("a step along the columns, all fine scores 0", [[[0.0], [4.0]]] * 2, np.zeros((4, 4, 1))),
        _scores((2, 3), (4, 6)),
        _scores((3, 3), (5, 5), _ODD),
        _scores((4, 2), (7, 4), _ODD),
    ],
    mistakes={
        "You repeat each coarse score in a block of 2 × 2; use bilinear interpolation between the scores.": _fused(
            order=0, at=lambda k, a, b: k // 2
        ),
        "You align the centres of the first and last pixels of both maps (aligned corners); a coarse "
        "pixel covers two fine ones, and its centre lies between theirs.": _fused(
            at=lambda k, a, b: np.linspace(0, a - 1, b)
        ),
        "You are half a fine pixel off: fine pixel k does not lie at k / 2 of the coarse map, but at k / 2 - 1 / "
        "4.": _fused(at=lambda k, a, b: k / 2),
        "Your coarse scores are shifted by one fine pixel: the first row and column of a transposed "
        "convolution's output lie outside the image. Which row has the same centre as the first fine "
        "score?": (
            _fused(at=lambda k, a, b: k / 2 - 0.75),
            _fused(at=lambda k, a, b: k / 2 - 0.75, mode="grid-constant"),
            _fused(at=lambda k, a, b: k / 2 + 0.25),
        ),
        "At the border your coarse scores fade to 0, because a transposed convolution finds no scores "
        "beyond the border. Repeat the outermost scores there.": _fused(mode="grid-constant"),
        "For an odd side you stretch the coarse map to the fine one's size; a coarse pixel covers two fine ones whatever "
        "the size. Leave out the last row or column instead.": _fused(
            at=lambda k, a, b: (k + 0.5) * a / b - 0.5
        ),
        "For an odd side you leave out the first row or column of the upsampled scores; both maps begin at the same edge, "
        "so leave out the last one.": _fused(at=lambda k, a, b: (k + 2 * a - b) / 2 - 0.25),
        "You concatenate the scores, as U-Net does with features; FCN adds them, class by class.": _fused(
            join=lambda a, b: np.concatenate([a, b], axis=-1)
        ),
        "You take the mean of the two scores; FCN adds them (the 1 × 1 convolutions have learned how large each "
        "should be).": (_fused(join=lambda a, b: (a + b) / 2)),
        "You multiply the scores; FCN adds them, so that a fine score of 0 changes nothing.": _fused(
            join=np.multiply
        ),
        "The fine scores are missing in your result: add them.": _fused(join=lambda a, b: a),
        "You downsample the fine scores to the coarse map, which loses their detail; upsample the coarse "
        "scores instead.": (_down_to_coarse),
    },
    hints=[
        "Where is fine pixel k in the coarse map? The coarse pixel 0 covers the fine ones 0 and 1, so its "
        "centre lies between theirs.",
        "Fine pixel k lies at k / 2 - 1 / 4 of the coarse map. Before the first centre and beyond the "
        "last, the outermost score continues: np.clip the locations.",
        "For each class ndimage.map_coordinates(coarse[..., c], [rows, columns], order=1, mode='nearest') reads "
        "the map there "
        "(np.meshgrid(..., indexing='ij') makes rows and columns); then add fine.",
    ],
)

# 05.4


def atrous_plan(
    strides, output_stride, rate=lambda so_far, own, total: so_far, late=False, keep=np.less_equal
):
    """Stride and rate of each stage; `rate` gets the strides left out so far, the stage's own, and the product of all."""
    plan, reached, left_out, total = [], 1, 1, 1
    for stride in np.asarray(strides).tolist():
        total *= stride
        if keep(reached * stride, output_stride):
            reached *= stride
            plan.append((stride, 1))
        else:
            before, left_out = left_out, left_out * stride
            plan.append((1, rate(before if late else left_out, stride, total)))
    return plan


def _with_rates(change):
    """The right plan with its rates above 1 changed: `change` gets the strides and the rates so far, and all rates."""

    def planned(strides, output_stride):
        plan = atrous_plan(strides, output_stride)
        rates = [rate for _, rate in plan]
        return [
            (
                s,
                change([b for b, r in zip(strides[: k + 1], rates, strict=False) if r > 1], rates)
                if r > 1
                else 1,
            )
            for k, (s, r) in enumerate(plan)
        ]

    return planned


def _stopped_early(strides, output_stride):
    kept = np.count_nonzero(np.cumprod(strides) < output_stride)
    return [*((s, 1) for s in strides[:kept]), *((1, rate) for rate in np.cumprod(strides[kept:]))]


def _pairs(plan):
    return ", ".join(f"({stride:g}, {rate:g})" for stride, rate in plan)


ATROUS_PLAN = Exercise(
    number="05.4",
    name="atrous_plan",
    form=Form(
        "a list of pairs (stride, rate), one for each stage",
        same,
        contrast=lambda given, right: f"expected {_pairs(right)}; got {_pairs(given)}",
    ),
    answer=atrous_plan,
    cases=[
        Case(f"an output stride of {stride} from the strides {strides}", strides, stride)
        for strides, stride in (
            ([4, 2, 2, 2], 32),
            ([4, 2, 2, 2], 16),
            ([4, 2, 2, 2], 8),
            ([2, 2, 2, 2, 2], 4),
            ([4, 4, 2, 4], 4),
        )
    ],
    mistakes={
        "You leave out strides and dilate no kernel: on the larger feature map the same kernel sees less "
        "of the image. The rate makes up for this.": partial(atrous_plan, rate=lambda so_far, own, total: 1),
        "Each of your rates makes up for the stage's own stride only; it must also make up for the "
        "strides left out before. Multiply all of them.": partial(
            atrous_plan, rate=lambda so_far, own, total: own
        ),
        "You add the strides left out; two halvings make a map four times as wide, so they multiply.": _with_rates(
            lambda strides, rates: sum(strides)
        ),
        "Your rates begin a stage too late: a stage begins with its stride, so where that is left out, its own kernels are "
        "dilated already.": partial(atrous_plan, late=True),
        "All your dilated stages have the rate of the last; each makes up for the strides left out so far, not "
        "for those to "
        "come.": _with_rates(lambda strides, rates: rates[-1]),
        "Your rate is the total stride that the map would have, but some of the strides are kept. Only "
        "the strides left out count.": (partial(atrous_plan, rate=lambda so_far, own, total: total)),
        "You leave out the first strides: the map is large from the beginning, and every stage pays for it. Leave out the "
        "last ones.": lambda strides, output_stride: atrous_plan(strides[::-1], output_stride)[::-1],
        "Your map ends at less than the output stride: a stage whose stride reaches it exactly keeps its stride.": (
            partial(atrous_plan, keep=np.less),
            _stopped_early,
        ),
        "You keep all strides; beyond the output stride they become 1.": partial(
            atrous_plan, keep=lambda s, o: True
        ),
    },
    hints=[
        "Go through the stages and keep two products: of the strides kept so far, and of those left out.",
        "A stage keeps its stride, with rate 1, as long as the product of the strides kept stays within the output stride.",
        "Otherwise its stride is 1, and its rate is the product of all strides left out so far, its own included.",
    ],
)

# 05.5


def _outline(mask, structure=None, beyond=0):
    return mask & ~ndimage.binary_erosion(mask, structure, border_value=beyond)


def _f1(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary_score(
    true,
    predicted,
    tolerance,
    outline=_outline,
    distance=ndimage.distance_transform_edt,
    near=np.less_equal,
    both=_f1,
    empty=(1.0, 0.0),
    target=None,
):
    """The F1 of two outlines with one step done differently; `target` is what distances are measured to, if no outline."""
    if not (true.any() and predicted.any()):
        return empty[0] if true.any() == predicted.any() else empty[1]
    lines = [outline(mask) for mask in (true, predicted)]
    goals = [target(mask) for mask in (true, predicted)] if target else lines
    recall, precision = (
        np.mean(near(distance(~goals[1 - k]), tolerance)[lines[k]]) if lines[k].any() else 0.0 for k in (0, 1)
    )
    return both(precision, recall)


_score = varied(_boundary_score)


def _of_areas(score):
    def answer(true, predicted, tolerance):
        both, total = np.sum(true & predicted), np.sum(true) + np.sum(predicted)
        return score(both, total) if total else 1.0

    return answer


_SQUARE = np.zeros((14, 16), bool)
_SQUARE[3:10, 3:11] = True
_MOVED = np.roll(_SQUARE, (1, 2), (0, 1))
_Y, _X = np.mgrid[:24, :26]
_DISC, _BUMPY = np.hypot(_Y - 11, _X - 12) < 8, np.hypot((_Y - 12) / 1.2, _X - 13) < 6.5
_BUMPY[2:5, 20:24] = True
_EMPTY = np.zeros((5, 6), bool)

BOUNDARY_F1 = Exercise(
    number="05.5",
    name="boundary_f1",
    form=number("a number, the F1 of the outlines"),
    answer=_boundary_score,
    cases=[
        Case("a square and itself, within 1 pixel", _SQUARE, _SQUARE, 1),
        Case("a square moved 1 pixel down and 2 to the right, within 1 pixel", _SQUARE, _MOVED, 1),
        Case("the same within 2 pixels", _SQUARE, _MOVED, 2),
        Case("the same within 0 pixels", _SQUARE, _MOVED, 0),
        Case("a disc and an ellipse with a stray patch, within 1.5 pixels", _DISC, _BUMPY, 1.5),
        Case("the same within 3 pixels", _DISC, _BUMPY, 3),
        Case(
            "masks that reach the edge of the image, within 1 pixel",
            _X < 6,
            _X + _Y < 12,
            1,
            note="Where the mask meets the edge of the image, its outermost pixels also belong to the "
            "outline.",
        ),
        Case("two empty masks", _EMPTY, _EMPTY, 2, note="They agree: 1."),
        Case("an empty mask and one that is not", _EMPTY, ~_EMPTY, 2, note="No outline is near: 0."),
    ],
    mistakes={
        "That is the Dice coefficient of the areas; only the outlines count here.": _of_areas(
            lambda b, t: 2 * b / t
        ),
        "That is the IoU of the areas; only the outlines count here.": _of_areas(lambda b, t: b / (t - b)),
        "Your result does not change with the tolerance: you count only pixels that lie exactly on the other outline. "
        "Measure the distance to it.": _score(near=lambda distances, tolerance: distances <= 0),
        "A pixel at exactly the tolerance counts as near: use <=, not <.": _score(near=np.less),
        "That is the precision alone: it ignores every part of the true outline that the prediction "
        "misses.": _score(both=lambda precision, recall: precision),
        "That is the recall alone: it ignores every predicted outline that is not in the ground truth.": _score(
            both=lambda precision, recall: recall
        ),
        "You take the plain mean of precision and recall; F1 is 2 · precision · recall / (precision + recall).": _score(
            both=lambda precision, recall: (precision + recall) / 2
        ),
        "Your distance counts steps to the four neighbours; measure the Euclidean distance, as "
        "ndimage.distance_transform_edt does.": (
            _score(distance=lambda x: ndimage.distance_transform_cdt(x, "taxicab"))
        ),
        "Your distance counts a diagonal step as 1; measure the Euclidean distance, as "
        "ndimage.distance_transform_edt does.": _score(
            distance=lambda x: ndimage.distance_transform_cdt(x, "chessboard")
        ),
        "Your outline includes pixels that touch the outside only at a corner; these do not belong to it. Erode with the "
        "four neighbours.": _score(outline=partial(_outline, structure=np.ones((3, 3)))),
        "Your outline lies outside the mask; it consists of the mask's own outermost pixels.": _score(
            outline=lambda mask: ndimage.binary_dilation(mask) & ~mask
        ),
        "Your outline breaks off at the edge of the image; there, too, the mask's outermost pixels belong "
        "to the outline.": _score(outline=partial(_outline, beyond=1)),
        "You measure the distance to the other mask, so every pixel inside it counts as near. Measure the "
        "distance to its outline.": _score(target=lambda mask: mask),
        "Two empty masks agree: the score is 1.": (_score(empty=(0.0, 0.0)), _score(empty=(np.nan, np.nan))),
    },
    hints=[
        "The outline: outline = mask & ~ndimage.binary_erosion(mask).",
        "ndimage.distance_transform_edt(~outline) is each pixel's distance to an outline. What fraction of the "
        "other outline's "
        "pixels lies within the tolerance?",
        "For the predicted outline that fraction is the precision, for the true outline the recall. Begin with the empty "
        "masks: both empty 1, one empty 0.",
    ],
)

# 05.6, the research exercise: nobody knows what comes out, but what it has to look like is known.


@cache
def _cells(seed):
    return [sample.instances for sample in datasets.cells(length=2, size=128, seed=seed, radius=6)]


def _draw(seed):
    return [instances.copy() for instances in _cells(seed)]


def my_comparison(seeds, draw):
    """Masks put through a stride of 4 and of 16: the fraction of the pixels that stay right."""

    def score(mask, stride):
        cells = mask.reshape(len(mask) // stride, stride, -1, stride).mean(axis=(1, 3)) >= 0.5
        return np.mean(cells.repeat(stride, axis=0).repeat(stride, axis=1) == mask)

    return np.array(
        [[np.mean([score(m > 0, stride) for m in draw(seed)]) for stride in (4, 16)] for seed in seeds]
    )


def _fault(scores):
    """What keeps an array of scores from being a comparison seed by seed, in a word, or nothing."""
    if scores.ndim != 2 or scores.shape[1] != 2:
        return "form"
    if not np.isfinite(scores).all():
        return "not a number"
    if scores.min() < 0 or scores.max() > 1:
        return "below 0" if scores.min() < 0 else "above 1"
    if np.array_equal(scores[:, 0], scores[:, 1]):
        return "one side"
    return "one row" if len(scores) > 1 and (scores == scores[0]).all() else ""


def _unfair(function):
    """What is wrong with rows that are right in form: chance that the seed does not decide, or other images."""
    drawn = []

    def watched(seed):
        drawn.append(int(seed))
        return _draw(seed)

    seeds, (rows, again, backwards, alone) = (
        (3, 4, 5),
        (np.asarray(function(np.array(s), watched)) for s in ((3, 4, 5), (3, 4, 5), (5, 4, 3), (4,))),
    )
    if not drawn:
        return "Your scores do not come from images: you never call draw(seed)."
    if other := sorted(set(drawn) - set(seeds)):
        return (
            f"You call draw({other[0]}), which is not one of the seeds. A and B have to see the same images, those of "
            "draw(seed); otherwise the difference is partly the images'."
        )
    if not np.array_equal(rows, again):
        return (
            "The same seeds gave two different results: some of your randomness does not come from the "
            "seed. Draw everything from draw(seed) or np.random.default_rng(seed)."
        )
    if not np.array_equal(rows, backwards[::-1]) or not np.array_equal(rows[1:2], alone):
        return (
            "A seed's row depends on the seeds around it: one generator, or one side, runs through all of them. Begin anew "
            "for each seed."
        )
    if np.array_equal(rows, np.asarray(function(np.array(seeds), lambda seed: _draw(seed + 50)))):
        return "Your scores do not change with the images. Compute both from what draw(seed) returns."
    return None


MY_COMPARISON = Exercise(
    number="05.6",
    name="my_comparison",
    form=Form(
        "a row (score of A, score of B) for each seed",
        # Two answers are of one kind where the same is wrong with them; the right kind is where nothing is.
        lambda given, right: _fault(given) == _fault(right),
        contrast=lambda given, right: (
            "your rows are not a comparison: each must have two scores from 0 to 1, which are not the same everywhere"
        ),
    ),
    answer=my_comparison,
    cases=[
        Case(f"the seeds {s}" if len(s) > 1 else f"the seed {s[0]} alone", s, _draw)
        for s in ([0, 1, 2], [7], [2, 1, 0, 11])
    ],
    mistakes={
        "You return the differences alone: 0.30 against 0.25 and 0.95 against 0.90 would look the same. Give both scores, "
        "(A, B), for each seed.": lambda *given: np.subtract(*my_comparison(*given).T),
        "You return one mean of A and one of B, which no longer shows how much they vary by chance. Give "
        "a row for each seed.": (lambda *given: my_comparison(*given).mean(axis=0)),
        "You return a single number, which does not show how much it varies by chance. Give a row (A, B) "
        "for each seed.": (lambda *given: np.ptp(my_comparison(*given).mean(axis=0))),
        "Your seeds are in the columns; each row must be one seed, with its scores of A and of B. "
        "Transpose the array.": (lambda *given: my_comparison(*given).T),
        "A score of yours is above 1: a percentage, a count or a distance, perhaps. Choose a score from 0 to 1 for which "
        "more is better, the same for A and B.": lambda *given: 100 * my_comparison(*given) + 2,
        "A score of yours is below 0: a difference or a loss, perhaps. Give the two scores themselves, from 0 to 1; the "
        "difference is taken afterwards.": lambda *given: my_comparison(*given) - 1.5,
        "A score of yours is not a number: 0 / 0, perhaps, on images with nothing to score. Put the images of a "
        "seed together "
        "before you divide.": lambda seeds, draw: np.full((len(seeds), 2), np.nan),
        "A and B have the same score for every seed: they do the same thing, or your score is not "
        "sensitive to the difference. Look at outlines, or at small objects.": lambda *given: my_comparison(
            *given
        )[:, [0, 0]],
        "Every seed gives the same row: the seed is not used, or the numbers are typed in. Use the images of draw(seed).": (
            lambda seeds, draw: my_comparison([1] * len(seeds), draw)
        ),
    },
    hints=[
        "First state the question in one sentence: A is better than B at … by this score. Then list what "
        "is the same for both: the images, the score, and everything that you do not ask about.",
        "for seed in seeds: take the images of draw(seed), put A and B to the same ones, append [score of A, score of B].",
        "through_stride(instances > 0, 8) and through_stride(instances > 0, 32) could be A and B, and "
        "boundary_f1 the score.",
    ],
    probe=_unfair,
    passed="the form is right: pairs, repetitions, and chance from the seed alone. Whether the question is a good one, no "
    "check can tell.",
)

# 05.7, with Keras


def fully_convolutional(
    classifier,
    order=lambda kernel, shape: kernel.reshape(*shape, -1),
    biases=True,
    activation="relu",
    last=None,
    padding="valid",
    size=(None, None),
):
    import keras

    inputs = keras.Input((*size, classifier.input_shape[-1]))
    x = classifier.get_layer("pool")(classifier.get_layer("features")(inputs))
    shape, weights = classifier.get_layer("pool").output.shape[1:], []
    for name, act in (("hidden", activation), ("scores", last)):
        kernel, bias = classifier.get_layer(name).get_weights()
        layer = keras.layers.Conv2D(kernel.shape[1], shape[:2], padding=padding, activation=act)
        x = layer(x)
        weights.append((layer, order(kernel, shape), bias if biases else 0 * bias))
        shape = (1, 1, kernel.shape[1])
    for layer, kernel, bias in weights:
        layer.set_weights([kernel, bias])
    return keras.Model(inputs, x)


def _channels_first(kernel, shape):
    height, width, channels = shape
    return np.moveaxis(kernel.reshape(channels, height, width, -1), 0, 2)


def _untrained(classifier):
    import keras

    model = fully_convolutional(classifier)
    return keras.models.clone_model(model)


def _classifier():
    """A small classifier of windows of 14 × 14, with random weights and biases."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((14, 14, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="features"),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="scores"),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights([one + 0.1 * rng.normal(size=one.shape) for one in model.get_weights()])
    return model


def _conversion_behaviour(convert, height, width):
    """The shape of the score map, whether it has logits, and its first and last scores."""
    import keras

    classifier = _classifier()
    before = classifier.get_weights()
    model = convert(classifier)
    if model is None or model is ...:
        raise NotImplementedError
    if not all(np.array_equal(a, b) for a, b in zip(before, classifier.get_weights(), strict=True)):
        raise ValueError("the classifier that was passed in has other weights now; leave it as it is")
    image = np.random.default_rng(1).normal(size=(1, height, width, 1)).astype("float32")
    found = keras.ops.convert_to_numpy(model(image))
    if found.ndim != 4 or found.shape[-1] != 3:
        raise ValueError(
            f"expected a score map (batch, height, width, 3 classes), got the shape {found.shape}"
        )
    return [*found.shape[1:3], *found[0, 0, 0], *found[0, -1, -1]]


def _conversions(given, right):
    if not np.array_equal(given[:2], right[:2]):
        size = " × ".join(f"{k:g}" for k in given[:2])
        return f"expected a map of {' × '.join(f'{k:g}' for k in right[:2])} scores, got {size}"
    return (
        "the size of the map is right, but its scores are not those of the classifier on the windows of the image; are all "
        "weights copied?"
    )


FULLY_CONVOLUTIONAL = Exercise(
    number="05.7",
    name="fully_convolutional",
    form=Form(
        "a Keras model", lambda a, b: bool(np.allclose(a, b, rtol=1e-3, atol=1e-4)), contrast=_conversions
    ),
    answer=fully_convolutional,
    measure=_conversion_behaviour,
    live=True,
    seconds=40.0,
    passed="right: on each window it says what the classifier says.",
    cases=[Case("an image of one window, 14 × 14", 14, 14), Case("an image of 20 × 26", 20, 26)],
    mistakes={
        "The dense kernel is reshaped with the channels first; Flatten goes through height, then width, then channels.": (
            partial(fully_convolutional, order=_channels_first)
        ),
        "Height and width are swapped in the kernel.": partial(
            fully_convolutional, order=lambda kernel, shape: np.swapaxes(kernel.reshape(*shape, -1), 0, 1)
        ),
        "The weights are not copied: a new layer begins with random ones. Use set_weights.": _untrained,
        "The biases are not copied.": partial(fully_convolutional, biases=False),
        "The ReLU of the hidden layer is missing.": partial(fully_convolutional, activation=None),
        "The classifier ends with logits; yours has a softmax.": partial(fully_convolutional, last="softmax"),
        "Your map is larger than the number of windows: a dense layer sees whole windows, so nothing is padded.": partial(
            fully_convolutional, padding="same"
        ),
        "Your model takes images of 14 × 14 only: begin with keras.Input((None, None, 1)).": partial(
            fully_convolutional, size=(14, 14)
        ),
    },
    hints=[
        "Begin with keras.Input((None, None, 1)) and call the classifier's own layers 'features' and 'pool' on it.",
        "hidden: Conv2D(5, (6, 6), activation='relu') with kernel.reshape(6, 6, 4, 5); exercise 1 has the order.",
        "scores: Conv2D(3, 1) with kernel.reshape(1, 1, 5, 3). layer.set_weights([kernel, bias]) once it was called.",
    ],
)

EXERCISES = (
    DENSE_AS_CONVOLUTION,
    BILINEAR_KERNEL,
    FUSE_SCORES,
    ATROUS_PLAN,
    BOUNDARY_F1,
    MY_COMPARISON,
    FULLY_CONVOLUTIONAL,
)
