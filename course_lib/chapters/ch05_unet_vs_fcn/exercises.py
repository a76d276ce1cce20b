"""Exercises to chapter 05: dense layers as convolutions, up by interpolation, fused scores, atrous rates, boundary F1."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from course_lib.teaching.exercise import Case, Exercise, Form, Mistake, array, number

# 05.1


def dense_as_convolution(weights, map_shape):
    return np.asarray(weights).reshape(*map_shape, -1)


def _channels_first(weights, map_shape):
    height, width, channels = map_shape
    return weights.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)


def _column_by_column(weights, map_shape):
    height, width, channels = map_shape
    return weights.reshape(width, height, channels, -1).transpose(1, 0, 2, 3)


def _dense_cases():
    rng = np.random.default_rng(5)
    yield Case("a map of 2 × 3 with one channel and one output", (np.arange(6.0)[:, None], (2, 3, 1)))
    for shape, outputs, words in (
        ((3, 3, 2), 4, "a map of 3 × 3 with 2 channels and 4 outputs"),
        ((1, 1, 5), 3, "a map of one place with 5 channels and 3 outputs"),
        ((2, 4, 3), 2, "a map of 2 × 4 with 3 channels and 2 outputs"),
    ):
        yield Case(words, (rng.normal(size=(int(np.prod(shape)), outputs)).round(2), shape))


DENSE_AS_CONVOLUTION = Exercise(
    "05.1",
    "dense_as_convolution",
    array("a kernel (height, width, channels, outputs)"),
    lambda: list(_dense_cases()),
    dense_as_convolution,
    (
        Mistake(
            "You read the rows channel by channel, as software that keeps channels first lays out a map; here the "
            "channel changes fastest, then the column, then the row.",
            _channels_first,
        ),
        Mistake(
            "You go down the columns; the map was read row by row, so the column changes before the row.",
            _column_by_column,
        ),
        Mistake(
            "order='F' lets the first axis change fastest; the map was read with the last one, the channel, fastest.",
            lambda w, shape: w.reshape((*shape, w.shape[1]), order="F"),
        ),
        Mistake(
            "You transpose before you reshape, which mixes outputs and places: the outputs are the last axis "
            "already, and stay there.",
            lambda w, shape: w.T.reshape(*shape, -1),
        ),
        Mistake(
            "Your kernel begins with the outputs; in Keras they come last: (height, width, channels, outputs).",
            lambda w, shape: w.T.reshape(-1, *shape),
        ),
        Mistake(
            "You turn the kernel by half a turn, as mathematicians' convolution does; a network's multiplies place "
            "by place, as the dense layer did.",
            lambda w, shape: w.reshape(*shape, -1)[::-1, ::-1],
        ),
        Mistake(
            "Yours is a 1 × 1 kernel over as many channels as the map has numbers; it needs them all in one place. "
            "The kernel is as high and wide as the map.",
            lambda w, shape: w.reshape(1, 1, *w.shape),
        ),
    ),
    (
        "A dense layer multiplies number k of the flattened map with row k of its weights. Which place and which "
        "channel is number k?",
        "The numbers of `weights` need not change their order, only their shape.",
        "weights.reshape(height, width, channels, outputs).",
    ),
)

# 05.2


def bilinear_kernel(factor):
    return np.outer(_tent(factor), _tent(factor))


def _tent(factor):
    return 1 - np.abs(np.arange(2 * factor) + 0.5 - factor) / factor


def _block(factor):
    middle = np.zeros(2 * factor)
    middle[factor // 2 : factor // 2 + factor] = 1
    return np.outer(middle, middle)


def _cone(factor):
    places = np.arange(2 * factor) + 0.5 - factor
    return np.maximum(1 - np.hypot(*np.meshgrid(places, places)) / factor, 0)


def _with_tent(tent, both=np.multiply.outer):
    return lambda factor: both(tent(factor), tent(factor))


BILINEAR_KERNEL = Exercise(
    "05.2",
    "bilinear_kernel",
    array("an array (2 · factor, 2 · factor)"),
    lambda: [
        Case(
            f"the factor {factor} (a kernel of {2 * factor} × {2 * factor})",
            (factor,),
            "Add it up: it should come to factor².",
        )
        for factor in (2, 3, 4, 8)
    ],
    bilinear_kernel,
    (
        Mistake(
            "Your tent has its peak on a pixel; the middle of an even number of pixels lies between two. "
            "Measure from k + 0.5.",
            _with_tent(lambda f: 1 - np.abs(np.arange(2 * f) - f) / f),
        ),
        Mistake(
            "Your kernel has an odd side, 2 · factor - 1, with its peak on a pixel; here its side is 2 · factor.",
            _with_tent(lambda f: 1 - np.abs(np.arange(2 * f - 1) - f + 1) / f),
        ),
        Mistake(
            "Your kernel adds up to 1, so that a map of ones would come out as 1 / factor². Each output is between "
            "four stamps: leave the tents as they are.",
            lambda f: bilinear_kernel(f) / f**2,
        ),
        Mistake(
            "You stretch the kernel so that its largest number is 1; no output pixel lies right on the middle of "
            "an input, so the largest stays below 1.",
            lambda f: bilinear_kernel(f) / bilinear_kernel(f).max(),
        ),
        Mistake(
            "Your tent is 0 at its outermost pixels; it comes to 0 only half a pixel beyond them.",
            _with_tent(
                lambda f: np.concatenate([np.linspace(0, 1, f, endpoint=f > 1), np.linspace(1, 0, f)])
            ),
        ),
        Mistake(
            "Your kernel repeats each value in a block (nearest neighbour); between two inputs the output is to "
            "pass from one to the other.",
            _block,
        ),
        Mistake(
            "All numbers of your kernel are alike: every output is the plain mean of four inputs. The nearer one "
            "counts more.",
            lambda f: np.full((2 * f, 2 * f), 0.25),
        ),
        Mistake(
            "You take the mean of the two tents; interpolating down and then across multiplies them.",
            _with_tent(_tent, lambda a, b: np.add.outer(a, b) / 2),
        ),
        Mistake(
            "Yours is a round cone; bilinear interpolation is a tent along each axis, and the two are multiplied.",
            _cone,
        ),
        Mistake(
            "That is one axis; a picture has two. np.outer multiplies the tent with itself.",
            _tent,
        ),
    ),
    (
        "Along one axis: an output between two inputs takes from both, the more the nearer. How much does a single "
        "input give to outputs at growing distance? Draw it.",
        "It is a tent: pixel k of the kernel is |k + 0.5 - factor| from the middle, and at a distance of factor "
        "nothing is left.",
        "tent = 1 - np.abs(np.arange(2 * factor) + 0.5 - factor) / factor; then np.outer(tent, tent).",
    ),
)

# 05.3


def fuse_scores(coarse, fine):
    return _fused(coarse, fine)


def _fused(
    coarse,
    fine,
    place=lambda k, coarse_side, side: k / 2 - 0.25,
    order=1,
    mode="nearest",
    join=np.add,
):
    """Coarse scores read at the places of the fine ones, `place` in coarse pixels, and joined with those."""
    where = [place(np.arange(b), a, b) for a, b in zip(coarse.shape[:2], fine.shape[:2], strict=True)]
    points = np.meshgrid(*where, indexing="ij")
    read = [ndimage.map_coordinates(one, points, order=order, mode=mode) for one in np.moveaxis(coarse, 2, 0)]
    return join(np.stack(read, axis=-1), fine)


def _fused_with(**how):
    return lambda coarse, fine: _fused(coarse, fine, **how)


def _down_to_coarse(coarse, fine):
    sides = [(0, 2 * a - b) for a, b in zip(coarse.shape[:2], fine.shape[:2], strict=True)]
    even = np.pad(fine, [*sides, (0, 0)], mode="edge")
    blocks = even.reshape(coarse.shape[0], 2, coarse.shape[1], 2, -1)
    return coarse + blocks.mean(axis=(1, 3))


def _score_cases():
    rng = np.random.default_rng(8)
    yield Case(
        "a step along the columns, nothing fine", (np.array([[[0.0], [4.0]]] * 2), np.zeros((4, 4, 1)))
    )
    odd = "The coarse map reaches one row and one column beyond the fine one: leave out the last ones."
    for coarse, fine, words, note in (
        ((2, 3), (4, 6), "coarse scores at 2 × 3 places, fine ones at 4 × 6,", ""),
        ((3, 3), (5, 5), "coarse scores at 3 × 3 places, fine ones at 5 × 5,", odd),
        ((4, 2), (7, 4), "coarse scores at 4 × 2 places, fine ones at 7 × 4,", odd),
    ):
        scores = (rng.normal(0, 3, (*size, 2)).round(2) for size in (coarse, fine))
        yield Case(words, tuple(scores), note)


_OFF = (
    "Your coarse scores lie a fine pixel off: of a transposed convolution's output the first row and column lie "
    "before the picture. Which row has its middle where the first fine score has its own?"
)

FUSE_SCORES = Exercise(
    "05.3",
    "fuse_scores",
    array("an array of the shape of fine"),
    lambda: list(_score_cases()),
    fuse_scores,
    (
        Mistake(
            "You repeat each coarse score in a block of 2 × 2; pass from one to the next, by bilinear interpolation.",
            _fused_with(order=0, place=lambda k, coarse_side, side: k // 2),
        ),
        Mistake(
            "You lay the first and the last middles of both maps on each other (aligned corners); a coarse pixel "
            "covers two fine ones, and its middle lies between theirs.",
            _fused_with(place=lambda k, coarse_side, side: np.linspace(0, coarse_side - 1, side)),
        ),
        Mistake(
            "You are half a fine pixel off: fine pixel k does not lie at k / 2 of the coarse map, but at k / 2 - 1 / 4.",
            _fused_with(place=lambda k, coarse_side, side: k / 2),
        ),
        Mistake(_OFF, _fused_with(place=lambda k, coarse_side, side: k / 2 - 0.75)),
        Mistake(_OFF, _fused_with(place=lambda k, coarse_side, side: k / 2 - 0.75, mode="grid-constant")),
        Mistake(_OFF, _fused_with(place=lambda k, coarse_side, side: k / 2 + 0.25)),
        Mistake(
            "At the border your coarse scores fade to 0: a transposed convolution finds nothing beyond it. Repeat "
            "the outermost scores there.",
            _fused_with(mode="grid-constant"),
        ),
        Mistake(
            "For an odd side you stretch the coarse map to the fine one's size; a coarse pixel covers two fine ones "
            "whatever the size. Leave out the last row or column instead.",
            _fused_with(place=lambda k, coarse_side, side: (k + 0.5) * coarse_side / side - 0.5),
        ),
        Mistake(
            "For an odd side you leave out the first row or column of the upsampled scores; both maps begin at the "
            "same edge, and the last one is too many.",
            _fused_with(place=lambda k, coarse_side, side: (k + 2 * coarse_side - side) / 2 - 0.25),
        ),
        Mistake(
            "You concatenate the scores, as U-Net does with features; FCN adds them, class by class.",
            _fused_with(join=lambda a, b: np.concatenate([a, b], axis=-1)),
        ),
        Mistake(
            "You take the mean of the two scores; FCN adds them (the 1 × 1 convolutions have learned how large "
            "either is to be).",
            _fused_with(join=lambda a, b: (a + b) / 2),
        ),
        Mistake(
            "You multiply the scores; FCN adds them, so that a fine score of 0 changes nothing.",
            _fused_with(join=np.multiply),
        ),
        Mistake(
            "The fine scores are missing in your answer: add them.",
            _fused_with(join=lambda a, b: a),
        ),
        Mistake(
            "You bring the fine scores down to the coarse map, and their detail is gone; bring the coarse ones up.",
            _down_to_coarse,
        ),
    ),
    (
        "Where is fine pixel k in the coarse map? The coarse pixel 0 covers the fine ones 0 and 1, so its middle "
        "lies between theirs.",
        "Fine pixel k lies at k / 2 - 1 / 4 of the coarse map. Before the first middle and behind the last, the "
        "outermost score goes on: np.clip the places.",
        "For each class ndimage.map_coordinates(coarse[..., c], [rows, columns], order=1, mode='nearest') reads the "
        "map there (np.meshgrid(..., indexing='ij') makes rows and columns); then add fine.",
    ),
)

# 05.4


def atrous_plan(strides, output_stride):
    return _planned(strides, output_stride)


def _planned(
    strides, output_stride, rate=lambda left_out, own, total: left_out, before=False, keep=lambda s, o: s <= o
):
    """Stride and rate of each stage; `left_out` is the product of the strides left out so far, the stage's own too."""
    plan, reached, left_out, total = [], 1, 1, 1
    for stride in strides:
        total *= stride
        if keep(reached * stride, output_stride):
            reached *= stride
            plan.append((stride, 1))
        else:
            previous, left_out = left_out, left_out * stride
            plan.append((1, rate(previous if before else left_out, stride, total)))
    return plan


def _plan_with(**how):
    return lambda strides, output_stride: _planned(strides, output_stride, **how)


def _first_left_out(strides, output_stride):
    """The first strides are left out in place of the last ones."""
    return [(stride, rate) for stride, rate in reversed(_planned(strides[::-1], output_stride))]


def _added_rates(strides, output_stride):
    plan, added = [], 0
    for stride, (kept, rate) in zip(strides, _planned(strides, output_stride), strict=True):
        added += stride if rate > 1 else 0
        plan.append((kept, added if rate > 1 else 1))
    return plan


def _one_rate(strides, output_stride):
    plan = _planned(strides, output_stride)
    return [(stride, plan[-1][1] if rate > 1 else 1) for stride, rate in plan]


def _stopped_early(strides, output_stride):
    kept = np.count_nonzero(np.cumprod(strides) < output_stride)
    rates = np.cumprod(strides[kept:]).tolist()
    return [(stride, 1) for stride in strides[:kept]] + [(1, rate) for rate in rates]


def _pairs(plan):
    return ", ".join(f"({stride:g}, {rate:g})" for stride, rate in plan)


_TOO_FINE = (
    "Your map ends at less than the output stride: a stage whose stride reaches it exactly keeps its stride."
)

ATROUS_PLAN = Exercise(
    "05.4",
    "atrous_plan",
    Form(
        "a list of pairs (stride, rate), one for each stage",
        lambda a, b: bool(np.array_equal(a, b)),
        contrast=lambda given, wanted: f"the plan is {_pairs(wanted)}; yours is {_pairs(given)}",
    ),
    lambda: [
        Case(f"an output stride of {stride} from the strides {strides}", (strides, stride))
        for strides, stride in (
            ([4, 2, 2, 2], 32),
            ([4, 2, 2, 2], 16),
            ([4, 2, 2, 2], 8),
            ([2, 2, 2, 2, 2], 4),
            ([4, 4, 2, 4], 4),
        )
    ],
    atrous_plan,
    (
        Mistake(
            "You leave out strides and spread no kernel: on the larger map the same kernel sees less of the picture. "
            "The rate makes up for it.",
            _plan_with(rate=lambda left_out, own, total: 1),
        ),
        Mistake(
            "Each of your rates makes up for the stage's own stride only; those left out before it are missing there, "
            "too. Multiply all of them.",
            _plan_with(rate=lambda left_out, own, total: own),
        ),
        Mistake(
            "You add the strides left out; two halvings make a map four times as wide, so they multiply.",
            _added_rates,
        ),
        Mistake(
            "Your rates begin a stage too late: a stage begins with its stride, so where that is left out, its own kernels "
            "are spread already.",
            _plan_with(before=True),
        ),
        Mistake(
            "All your spread stages have the rate of the last; each makes up for the strides left out so far, not "
            "for those to come.",
            _one_rate,
        ),
        Mistake(
            "Your rate is the stride that the map would have; part of that is there still. Only the strides left out "
            "count.",
            _plan_with(rate=lambda left_out, own, total: total),
        ),
        Mistake(
            "You leave out the first strides: the map is large from the beginning, and every stage pays for it. "
            "Leave out the last ones.",
            _first_left_out,
        ),
        Mistake(_TOO_FINE, _plan_with(keep=lambda s, o: s < o)),
        Mistake(_TOO_FINE, _stopped_early),
        Mistake(
            "You keep all strides; beyond the output stride they become 1.",
            _plan_with(keep=lambda s, o: True),
        ),
    ),
    (
        "Go through the stages and keep two products: of the strides kept so far, and of those left out.",
        "A stage keeps its stride, with rate 1, as long as the product of the strides kept stays within the output "
        "stride.",
        "Otherwise its stride is 1, and its rate the product of all strides left out so far, its own among them.",
    ),
)

# 05.5


def boundary_f1(truth, answer, tolerance):
    return _boundary_score(truth, answer, tolerance)


_CROSS, _SQUARE = ndimage.generate_binary_structure(2, 1), np.ones((3, 3), bool)


def _inner(mask, structure=_CROSS, beyond=0):
    return mask & ~ndimage.binary_erosion(mask, structure, border_value=beyond)


def _outer(mask):
    return ndimage.binary_dilation(mask, _CROSS) & ~mask


def _harmonic(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary_score(
    truth,
    answer,
    tolerance,
    outline=_inner,
    distance=ndimage.distance_transform_edt,
    near=np.less_equal,
    both=_harmonic,
    empty=1.0,
    one_empty=0.0,
    target=None,
):
    """The F1 of two outlines, or what slips make of it; `target` is what the distance is measured to, if not an outline."""
    if not truth.any() and not answer.any():
        return empty
    if not truth.any() or not answer.any():
        return one_empty
    lines = [outline(mask) for mask in (truth, answer)]
    goals = [target(mask) for mask in (truth, answer)] if target else lines
    recall, precision = (
        np.mean(near(distance(~goals[1 - k]), tolerance)[lines[k]]) if lines[k].any() else 0.0 for k in (0, 1)
    )
    return both(precision, recall)


def _score_with(**how):
    return lambda truth, answer, tolerance: _boundary_score(truth, answer, tolerance, **how)


def _of_areas(share):
    def answer(truth, answer, tolerance):
        both, total = np.sum(truth & answer), np.sum(truth) + np.sum(answer)
        return share(both, total) if total else 1.0

    return answer


def _steps(metric):
    return lambda outside: ndimage.distance_transform_cdt(outside, metric)


def _mask_cases():
    square = np.zeros((14, 16), bool)
    square[3:10, 3:11] = True
    moved = np.roll(square, (1, 2), (0, 1))
    yield Case("a square and itself, within 1 pixel", (square, square.copy(), 1))
    yield Case("a square moved by 1 down and 2 to the right, within 1 pixel", (square, moved, 1))
    yield Case("the same within 2 pixels", (square, moved, 2))
    yield Case("the same within 0 pixels", (square, moved, 0))
    y, x = np.mgrid[:24, :26]
    disc = np.hypot(y - 11, x - 12) < 8
    bumpy = np.hypot((y - 12) / 1.2, x - 13) < 6.5
    bumpy[2:5, 20:24] = True
    yield Case("a disc and an ellipse with a stray patch, within 1.5 pixels", (disc, bumpy, 1.5))
    yield Case("the same within 3 pixels", (disc, bumpy, 3))
    edge = "Where the mask meets the edge of the picture, its outermost pixels are outline, too."
    yield Case("masks that reach the edge of the picture, within 1 pixel", (x < 6, x + y < 12, 1), edge)
    none = np.zeros((5, 6), bool)
    yield Case("two empty masks", (none, none.copy(), 2), "They agree: 1.")
    yield Case("an empty mask and one that is not", (none, ~none, 2), "No outline is near: 0.")


BOUNDARY_F1 = Exercise(
    "05.5",
    "boundary_f1",
    number("a number, the F1 of the outlines"),
    lambda: list(_mask_cases()),
    boundary_f1,
    (
        Mistake(
            "That is the Dice coefficient of the areas; only the outlines count here.",
            _of_areas(lambda both, total: 2 * both / total),
        ),
        Mistake(
            "That is the IoU of the areas; only the outlines count here.",
            _of_areas(lambda both, total: both / (total - both)),
        ),
        Mistake(
            "Your answer does not change with the tolerance: only pixels that lie right on the other outline are "
            "near. Measure the distance to it.",
            _score_with(near=lambda distances, tolerance: distances <= 0),
        ),
        Mistake(
            "A pixel at exactly the tolerance is near enough: at most, not less than.",
            _score_with(near=np.less),
        ),
        Mistake(
            "That is the precision alone: it forgives every piece of the true outline that the answer leaves out.",
            _score_with(both=lambda precision, recall: precision),
        ),
        Mistake(
            "That is the recall alone: it forgives every outline that the answer invents.",
            _score_with(both=lambda precision, recall: recall),
        ),
        Mistake(
            "You take the plain mean of precision and recall; F1 is 2 · precision · recall / (precision + recall).",
            _score_with(both=lambda precision, recall: (precision + recall) / 2),
        ),
        Mistake(
            "Your distance counts steps to the four neighbours; measure it straight, as "
            "ndimage.distance_transform_edt does.",
            _score_with(distance=_steps("taxicab")),
        ),
        Mistake(
            "Your distance counts a step to a corner as 1; measure it straight, as ndimage.distance_transform_edt "
            "does.",
            _score_with(distance=_steps("chessboard")),
        ),
        Mistake(
            "Your outline has corners of its own: pixels that only touch the outside at a corner are no outline. "
            "Erode with the four neighbours.",
            _score_with(outline=lambda mask: _inner(mask, _SQUARE)),
        ),
        Mistake(
            "Your outline lies outside of the mask; it is the mask's own outermost pixels.",
            _score_with(outline=_outer),
        ),
        Mistake(
            "Your outline breaks off at the edge of the picture; there, too, the mask's outermost pixels are outline.",
            _score_with(outline=lambda mask: _inner(mask, beyond=1)),
        ),
        Mistake(
            "You measure the distance to the other mask; within it, everything would be near. Measure to its outline.",
            _score_with(target=lambda mask: mask),
        ),
        Mistake(
            "Two empty masks agree: the answer is 1.",
            _score_with(empty=0.0),
        ),
        Mistake(
            "Two empty masks agree: the answer is 1.",
            _score_with(empty=float("nan"), one_empty=float("nan")),
        ),
    ),
    (
        "The outline: outline = mask & ~ndimage.binary_erosion(mask).",
        "ndimage.distance_transform_edt(~outline) is each pixel's distance to an outline. Which share of the other "
        "outline's pixels lies within the tolerance?",
        "Of the answer's outline that share is the precision, of the true outline the recall. Begin with the empty "
        "masks: both empty 1, one empty 0.",
    ),
)

# 05.6, the open one: nobody knows what comes out, but what it has to look like is known.


def my_comparison(seeds):
    """Discs cut out at a stride of 4 and of 16: the share of each picture's pixels that stay right."""
    scores = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:48, :48] - rng.uniform(16, 32, (2, 1, 1))
        disc = np.hypot(y, x) < rng.uniform(3, 12)
        scores.append([np.mean(disc == _through(disc, stride)) for stride in (4, 16)])
    return np.array(scores)


def _through(mask, stride):
    shares = mask.reshape(len(mask) // stride, stride, -1, stride).mean(axis=(1, 3))
    return shares.repeat(stride, axis=0).repeat(stride, axis=1) >= 0.5


def _fault(scores):
    """What keeps an array of scores from being a comparison seed by seed, in a word, or nothing."""
    if scores.ndim != 2 or scores.shape[1] != 2:
        return "form"
    if not np.isfinite(scores).all():
        return "no number"
    if scores.min() < 0 or scores.max() > 1:
        return "below 0" if scores.min() < 0 else "above 1"
    if np.array_equal(scores[:, 0], scores[:, 1]):
        return "one side"
    return "one row" if len(scores) > 1 and (scores == scores[0]).all() else ""


def _unrepeatable(function):
    """What is wrong with rows that are right in form: chance that the seed does not decide."""
    rows, again, backwards, alone = (
        np.asarray(function(list(seeds))) for seeds in ((3, 4, 5), (3, 4, 5), (5, 4, 3), (4,))
    )
    if not np.array_equal(rows, again):
        return (
            "The same seeds gave two different answers: some of your chance does not come from the seed. Draw "
            "everything from np.random.default_rng(seed)."
        )
    if not np.array_equal(rows, backwards[::-1]) or not np.array_equal(rows[1:2], alone):
        return (
            "A seed's row depends on the seeds around it: one generator runs through all of them. Begin anew with "
            "np.random.default_rng(seed) for each."
        )
    return None


MY_COMPARISON = Exercise(
    "05.6",
    "my_comparison",
    Form(
        "a row (score of A, score of B) for each seed",
        # Two answers are of one kind where the same is wrong with them; the right kind is where nothing is.
        lambda given, wanted: _fault(given) == _fault(wanted),
        contrast=lambda given, wanted: (
            "your rows are no comparison: each has two scores from 0 to 1, which are not the same everywhere"
        ),
    ),
    lambda: [
        Case(f"the seeds {seeds}" if len(seeds) > 1 else f"the seed {seeds[0]} alone", (seeds,))
        for seeds in ([0, 1, 2], [7], [2, 1, 0, 11])
    ],
    my_comparison,
    (
        Mistake(
            "You return the differences alone: 0.30 against 0.25 and 0.95 against 0.90 would look the same. Give both "
            "scores, (A, B), for each seed.",
            lambda seeds: np.subtract(*my_comparison(seeds).T),
        ),
        Mistake(
            "You return one mean of A and one of B; how far chance moves them can no longer be seen. Give a row for "
            "each seed.",
            lambda seeds: my_comparison(seeds).mean(axis=0),
        ),
        Mistake(
            "You return a single number; nobody can tell from it how far chance moves it. Give a row (A, B) for each "
            "seed.",
            lambda seeds: np.ptp(my_comparison(seeds).mean(axis=0)),
        ),
        Mistake(
            "Your seeds stand in the columns: one row is one seed, with its scores of A and of B. Transpose it.",
            lambda seeds: my_comparison(seeds).T,
        ),
        Mistake(
            "A score of yours is above 1: a percentage, a count or a distance, perhaps. Choose a score from 0 to 1 "
            "of which more is better, for A and B alike.",
            lambda seeds: 100 * my_comparison(seeds) + 2,
        ),
        Mistake(
            "A score of yours is below 0: a difference or a loss, perhaps. Give the two scores themselves, from 0 "
            "to 1; the difference is taken afterwards.",
            lambda seeds: my_comparison(seeds) - 1.5,
        ),
        Mistake(
            "A score of yours is not a number: 0 / 0, perhaps, on pictures that hold nothing to score. Draw several "
            "pictures for each seed, and put them together before you divide.",
            lambda seeds: np.full((len(seeds), 2), np.nan),
        ),
        Mistake(
            "A and B have the same score for every seed: they do the same, or your score does not see what tells them "
            "apart. Look at outlines, or at small objects.",
            lambda seeds: my_comparison(seeds)[:, [0, 0]],
        ),
        Mistake(
            "Every seed gives the same row: the seed is not used, or the numbers are typed in. Draw the pictures from "
            "the seed.",
            lambda seeds: my_comparison([1] * len(seeds)),
        ),
    ),
    (
        "First the question in one sentence: A is better than B at … by this score. Then what is the same for both: "
        "the pictures, the score, and all that you do not ask about.",
        "for seed in seeds: draw the pictures from this seed, put A and B to the same ones, append [score of A, "
        "score of B].",
        "datasets.cells(length=8, size=96, seed=seed) gives pictures with `instances`; through_stride(mask, 8) and "
        "through_stride(mask, 32) could be A and B, and boundary_f1 the score.",
    ),
    _unrepeatable,
)

EXERCISES = (DENSE_AS_CONVOLUTION, BILINEAR_KERNEL, FUSE_SCORES, ATROUS_PLAN, BOUNDARY_F1, MY_COMPARISON)
