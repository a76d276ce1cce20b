"""Chapter 05's checks: right answers pass, and each wrong one that people give is refused with its own sentence."""

import keras
import numpy as np
import pytest
from scipy import ndimage, signal
from scipy.spatial import distance
from skimage import transform
from study_answers import class_of_tests

from course_lib.metrics import boundary_f1
from course_lib.models.backbone import small_resnet
from course_lib.models.fcn import bilinear_kernel as course_kernel
from course_lib.models.fcn import fcn
from course_lib.teaching.checker import find, judge

# 05.1


def kernel_reshaped(weights, map_shape):
    return np.reshape(weights, (*map_shape, weights.shape[1]))


def kernel_place_by_place(weights, map_shape):
    height, width, channels = map_shape
    kernel = np.zeros((height, width, channels, weights.shape[1]))
    for y, x, c in np.ndindex(*map_shape):
        kernel[y, x, c] = weights[(y * width + x) * channels + c]
    return kernel


def kernel_channel_by_channel(weights, map_shape):
    height, width, channels = map_shape
    return np.moveaxis(weights.reshape(channels, height, width, -1), 0, 2)


def kernel_down_the_columns(weights, map_shape):
    height, width, channels = map_shape
    return weights.reshape(width, height, channels, -1).swapaxes(0, 1)


def kernel_in_fortran_order(weights, map_shape):
    return np.reshape(weights, (*map_shape, weights.shape[1]), order="F")


def kernel_transposed_first(weights, map_shape):
    return weights.T.reshape(*map_shape, weights.shape[1])


def kernel_outputs_first(weights, map_shape):
    return np.moveaxis(kernel_reshaped(weights, map_shape), -1, 0)


def kernel_turned(weights, map_shape):
    return np.rot90(kernel_reshaped(weights, map_shape), 2)


def kernel_of_one_place(weights, map_shape):
    return weights[None, None]


# 05.2


def kernel_by_the_course(factor):
    return course_kernel(2 * factor)


def kernel_by_overlapping_blocks(factor):
    """A tent is what two blocks make that slide over each other, read in the middle between whole steps."""
    fine = np.convolve(np.ones(2 * factor), np.ones(2 * factor))[::2] / (2 * factor)
    return fine[:, None] @ fine[None, :]


def tents(places, factor):
    tent = np.maximum(1 - np.abs(places) / factor, 0)
    return np.outer(tent, tent)


def kernel_with_its_peak_on_a_pixel(factor):
    return tents(np.arange(-factor, factor), factor)


def kernel_of_odd_side(factor):
    return tents(np.arange(1 - factor, factor), factor)


def kernel_that_adds_up_to_one(factor):
    kernel = course_kernel(2 * factor).astype(float)
    return kernel / kernel.sum()


def kernel_of_blocks(factor):
    kernel = np.zeros((2 * factor, 2 * factor))
    begin = factor // 2
    kernel[begin : begin + factor, begin : begin + factor] = 1.0
    return kernel


def kernel_of_the_mean(factor):
    return np.ones((2 * factor, 2 * factor)) / 4


def kernel_of_added_tents(factor):
    tent = course_kernel(2 * factor).astype(float).sum(axis=0) / factor
    return (tent[:, None] + tent[None, :]) / 2


def kernel_that_is_round(factor):
    y, x = np.mgrid[: 2 * factor, : 2 * factor] + 0.5 - factor
    return np.clip(1 - np.sqrt(y**2 + x**2) / factor, 0, None)


def kernel_along_one_axis(factor):
    return [1 - abs(k + 0.5 - factor) / factor for k in range(2 * factor)]


# 05.3


def fused_by_the_course(coarse, fine):
    """As in an FCN of the course: a frame of the outermost scores, the transposed convolution, the crop."""
    up = stamped(np.pad(coarse, ((1, 1), (1, 1), (0, 0)), mode="edge"))
    return up[3 : 3 + fine.shape[0], 3 : 3 + fine.shape[1]] + fine


def fused_by_scikit_image(coarse, fine):
    size = (2 * coarse.shape[0], 2 * coarse.shape[1])
    up = transform.resize(coarse, size, order=1, mode="edge", anti_aliasing=False)
    return up[: fine.shape[0], : fine.shape[1]] + fine


def stamped(scores):
    """The transposed convolution of kernel 4 and stride 2: zeros between the scores, then the tents over them."""
    spread = np.zeros((2 * scores.shape[0] - 1, 2 * scores.shape[1] - 1, scores.shape[2]))
    spread[::2, ::2] = scores
    kernel = course_kernel(4)
    return np.stack([signal.convolve2d(one, kernel) for one in np.moveaxis(spread, 2, 0)], axis=-1)


def fused_in_blocks(coarse, fine):
    up = np.kron(coarse, np.ones((2, 2, 1)))
    return up[: fine.shape[0], : fine.shape[1]] + fine


def fused_with_aligned_corners(coarse, fine):
    zoom = [a / b for a, b in zip(fine.shape, coarse.shape, strict=True)]
    return ndimage.zoom(coarse, zoom, order=1) + fine


def fused_without_the_half_pixel(coarse, fine):
    axes = [
        np.minimum(np.arange(a) / 2, b - 1) for a, b in zip(fine.shape[:2], coarse.shape[:2], strict=True)
    ]
    read = [
        ndimage.map_coordinates(one, np.meshgrid(*axes, indexing="ij"), order=1)
        for one in np.moveaxis(coarse, 2, 0)
    ]
    return np.moveaxis(np.array(read), 0, 2) + fine


def fused_without_the_crop(coarse, fine):
    return stamped(coarse)[: fine.shape[0], : fine.shape[1]] + fine


def fused_a_pixel_off(coarse, fine):
    up = stamped(np.pad(coarse, ((1, 1), (1, 1), (0, 0)), mode="edge"))
    return up[2 : 2 + fine.shape[0], 2 : 2 + fine.shape[1]] + fine


def fused_fading(coarse, fine):
    return stamped(coarse)[1 : 1 + fine.shape[0], 1 : 1 + fine.shape[1]] + fine


def fused_stretched(coarse, fine):
    return transform.resize(coarse, fine.shape, order=1, mode="edge", anti_aliasing=False) + fine


def fused_from_the_far_edge(coarse, fine):
    size = (2 * coarse.shape[0], 2 * coarse.shape[1])
    up = transform.resize(coarse, size, order=1, mode="edge", anti_aliasing=False)
    return up[-fine.shape[0] :, -fine.shape[1] :] + fine


def fused_side_by_side(coarse, fine):
    return np.concatenate([fused_by_the_course(coarse, 0 * fine), fine], axis=2)


def fused_by_the_mean(coarse, fine):
    return fused_by_the_course(coarse / 2, fine / 2)


def fused_by_product(coarse, fine):
    return fused_by_the_course(coarse, 0 * fine) * fine


def fused_without_the_fine_scores(coarse, fine):
    return fused_by_scikit_image(coarse, np.zeros_like(fine))


# 05.4


def plan_in_two_parts(strides, output_stride):
    kept = sum(np.cumprod(strides) <= output_stride)
    return [(s, 1) for s in strides[:kept]] + [(1, int(r)) for r in np.cumprod(strides[kept:])]


def plan_from_the_end(strides, output_stride):
    """Each rate is the stride that the stage's map would have, over the one that it has."""
    plan = []
    for k in range(len(strides)):
        would, before = np.prod(strides[: k + 1]), np.prod(strides[:k])
        plan.append((min(would, output_stride) // min(before, output_stride), max(1, would // output_stride)))
    return plan


def plan_without_rates(strides, output_stride):
    return [(stride, 1) for stride, _ in plan_in_two_parts(strides, output_stride)]


def plan_stage_by_stage(strides, output_stride):
    return [
        (s, 1 if s == own else own) for (s, _), own in zip(plan_in_two_parts(strides, output_stride), strides)
    ]


def plan_that_adds(strides, output_stride):
    kept = sum(np.cumprod(strides) <= output_stride)
    return [(s, 1) for s in strides[:kept]] + [(1, int(r)) for r in np.cumsum(strides[kept:])]


def plan_a_stage_late(strides, output_stride):
    plan = plan_in_two_parts(strides, output_stride)
    return [(stride, ([1] + [rate for _, rate in plan])[k]) for k, (stride, _) in enumerate(plan)]


def plan_with_one_rate(strides, output_stride):
    rate = int(np.prod(strides)) // output_stride
    return [(s, 1 if r == 1 else rate) for s, r in plan_in_two_parts(strides, output_stride)]


def plan_of_whole_strides(strides, output_stride):
    whole = np.cumprod(strides)
    return [(s, 1 if r == 1 else w) for (s, r), w in zip(plan_in_two_parts(strides, output_stride), whole)]


def plan_that_begins_large(strides, output_stride):
    return plan_in_two_parts(strides[::-1], output_stride)[::-1]


def plan_that_stops_early(strides, output_stride):
    kept = sum(np.cumprod(strides) < output_stride)
    return [(s, 1) for s in strides[:kept]] + [(1, int(r)) for r in np.cumprod(strides[kept:])]


# 05.5


def edge_pixels(mask):
    """The outline's pixels as (n, 2), by looking at each pixel's neighbours."""
    framed = np.pad(mask, 1)
    return np.array(
        [
            (y - 1, x - 1)
            for y, x in np.argwhere(framed)
            if not (framed[y - 1, x] and framed[y + 1, x] and framed[y, x - 1] and framed[y, x + 1])
        ]
    ).reshape(-1, 2)


def score_of_pairs(truth, answer, tolerance, metric="euclidean", both=None, near=np.less_equal):
    lines = edge_pixels(truth), edge_pixels(answer)
    if not len(lines[0]) or not len(lines[1]):
        return float(len(lines[0]) == len(lines[1]))
    apart = near(distance.cdist(*lines, metric), tolerance)
    recall, precision = apart.any(axis=1).mean(), apart.any(axis=0).mean()
    if both:
        return both(precision, recall)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_of_areas(truth, answer, tolerance):
    return 2 * (truth & answer).sum() / (truth.sum() + answer.sum()) if truth.any() or answer.any() else 1.0


def score_of_lines_on_each_other(truth, answer, tolerance):
    return score_of_pairs(truth, answer, 0)


def score_below_the_tolerance(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, near=np.less)


def score_of_precision(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, both=lambda precision, recall: precision)


def score_of_recall(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, both=lambda precision, recall: recall)


def score_of_the_mean(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, both=lambda precision, recall: (precision + recall) / 2)


def score_in_city_blocks(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, metric="cityblock")


def score_in_squares(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance, metric="chebyshev")


def score_of(outline):
    def score(truth, answer, tolerance):
        if not truth.any() or not answer.any():
            return float(truth.any() == answer.any())
        lines = outline(truth), outline(answer)
        near = [ndimage.distance_transform_edt(~line) <= tolerance for line in lines]
        precision, recall = near[0][lines[1]].mean(), near[1][lines[0]].mean()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    return score


score_of_thick_corners = score_of(
    lambda mask: mask & (ndimage.minimum_filter(np.pad(mask, 1), 3)[1:-1, 1:-1] == 0)
)
score_of_the_outside = score_of(lambda mask: ndimage.binary_dilation(mask) ^ mask)
score_open_at_the_edge = score_of(lambda mask: mask & ~ndimage.binary_erosion(mask, border_value=1))


def score_to_the_area(truth, answer, tolerance):
    if not truth.any() or not answer.any():
        return float(truth.any() == answer.any())
    shares = []
    for one, other in ((truth, answer), (answer, truth)):
        away = ndimage.distance_transform_edt(~other)
        shares.append(np.mean([away[tuple(place)] <= tolerance for place in edge_pixels(one)]))
    return 2 * np.prod(shares) / sum(shares)


def score_of_nothing_for_nothing(truth, answer, tolerance):
    return score_of_pairs(truth, answer, tolerance) if truth.any() else 0.0


# 05.6


def circles(rng, count=3, size=32):
    y, x = np.mgrid[:size, :size][..., None] - rng.uniform(6, 26, (2, 1, 1, count))
    return (np.hypot(y, x) < rng.uniform(2, 7, count)).any(axis=-1)


def comparison_of_strides(seeds):
    """Outlines within a pixel, taken from every second and from every fourth pixel."""
    rows = []
    for seed in seeds:
        mask = circles(np.random.default_rng(seed))
        answers = (mask[::step, ::step].repeat(step, 0).repeat(step, 1) for step in (2, 4))
        rows.append([boundary_f1(mask, answer, 1) for answer in answers])
    return rows


def comparison_of_thresholds(seeds):
    """IoU of a noisy picture cut at a half, and cut where its own histogram says."""
    from skimage.filters import threshold_otsu

    def both(seed):
        rng = np.random.default_rng([seed, 5])
        mask = circles(rng)
        picture = 0.4 * mask + rng.normal(0.2, 0.1, mask.shape)
        for cut in (0.5, threshold_otsu(picture)):
            yield np.sum(mask & (picture > cut)) / np.sum(mask | (picture > cut))

    return np.array([list(both(seed)) for seed in seeds])


def comparison_of_differences(seeds):
    return [a - b for a, b in comparison_of_strides(seeds)]


def comparison_of_means(seeds):
    return np.mean(comparison_of_strides(seeds), axis=0)


def comparison_in_one_number(seeds):
    return float(np.mean(comparison_of_differences(seeds)))


def comparison_in_columns(seeds):
    return np.transpose(comparison_of_strides(seeds))


def comparison_in_per_cent(seeds):
    return 100 * np.array(comparison_of_strides(seeds))


def comparison_of_log_losses(seeds):
    return np.log(np.clip(comparison_of_strides(seeds), 1e-6, 0.99))


def comparison_of_nothing(seeds):
    return [[np.nan, 0.5] if seed % 2 else [0.4, 0.5] for seed in seeds]


def comparison_of_a_with_itself(seeds):
    return [[a, a] for a, _ in comparison_of_strides(seeds)]


def comparison_typed_in(seeds):
    return [[0.81, 0.74]] * len(seeds)


def comparison_by_chance(seeds):
    rng = np.random.default_rng()
    return rng.random((len(seeds), 2))


def comparison_with_one_generator(seeds):
    rng = np.random.default_rng(seeds[0])
    return np.array([comparison_of_strides([rng.integers(1 << 30)])[0] for _ in seeds])


def comparison_of_other_than_numbers(seeds):
    return {seed: row for seed, row in zip(seeds, comparison_of_strides(seeds), strict=True)}


RIGHT = {
    "05.1": [kernel_reshaped, kernel_place_by_place],
    "05.2": [kernel_by_the_course, kernel_by_overlapping_blocks],
    "05.3": [fused_by_the_course, fused_by_scikit_image],
    "05.4": [plan_in_two_parts, plan_from_the_end],
    "05.5": [boundary_f1, score_of_pairs],
    "05.6": [comparison_of_strides, comparison_of_thresholds],
}
WRONG = {
    "05.1": [
        (kernel_channel_by_channel, "You read the rows channel by channel"),
        (kernel_down_the_columns, "You go down the columns"),
        (kernel_in_fortran_order, "order='F' lets the first axis change fastest"),
        (kernel_transposed_first, "You transpose before you reshape"),
        (kernel_outputs_first, "Your kernel begins with the outputs"),
        (kernel_turned, "You turn the kernel by half a turn"),
        (kernel_of_one_place, "Yours is a 1 × 1 kernel over as many channels"),
    ],
    "05.2": [
        (kernel_with_its_peak_on_a_pixel, "Your tent has its peak on a pixel"),
        (kernel_of_odd_side, "Your kernel has an odd side"),
        (kernel_that_adds_up_to_one, "Your kernel adds up to 1"),
        (kernel_of_blocks, "Your kernel repeats each value in a block"),
        (kernel_of_the_mean, "All numbers of your kernel are alike"),
        (kernel_of_added_tents, "You take the mean of the two tents"),
        (kernel_that_is_round, "Yours is a round cone"),
        (kernel_along_one_axis, "That is one axis"),
    ],
    "05.3": [
        (fused_in_blocks, "You repeat each coarse score in a block"),
        (fused_with_aligned_corners, "You lay the first and the last middles of both maps on each other"),
        (fused_without_the_half_pixel, "You are half a fine pixel off"),
        (fused_without_the_crop, "Your coarse scores lie a fine pixel off"),
        (fused_a_pixel_off, "Your coarse scores lie a fine pixel off"),
        (fused_fading, "At the border your coarse scores fade to 0"),
        (fused_stretched, "For an odd side you stretch the coarse map"),
        (fused_from_the_far_edge, "For an odd side you leave out the first row or column"),
        (fused_side_by_side, "You concatenate the scores"),
        (fused_by_the_mean, "You take the mean of the two scores"),
        (fused_by_product, "You multiply the scores"),
        (fused_without_the_fine_scores, "The fine scores are missing"),
    ],
    "05.4": [
        (plan_without_rates, "You leave out strides and spread no kernel"),
        (plan_stage_by_stage, "Each of your rates makes up for the stage's own stride only"),
        (plan_that_adds, "You add the strides left out"),
        (plan_a_stage_late, "Your rates begin a stage too late"),
        (plan_with_one_rate, "All your spread stages have the rate of the last"),
        (plan_of_whole_strides, "Your rate is the stride that the map would have"),
        (plan_that_begins_large, "You leave out the first strides"),
        (plan_that_stops_early, "Your map ends at less than the output stride"),
    ],
    "05.5": [
        (score_of_areas, "That is the Dice coefficient of the areas"),
        (score_of_lines_on_each_other, "Your answer does not change with the tolerance"),
        (score_below_the_tolerance, "A pixel at exactly the tolerance is near enough"),
        (score_of_precision, "That is the precision alone"),
        (score_of_recall, "That is the recall alone"),
        (score_of_the_mean, "You take the plain mean of precision and recall"),
        (score_in_city_blocks, "Your distance counts steps to the four neighbours"),
        (score_in_squares, "Your distance counts a step to a corner as 1"),
        (score_of_thick_corners, "Your outline has corners of its own"),
        (score_of_the_outside, "Your outline lies outside of the mask"),
        (score_open_at_the_edge, "Your outline breaks off at the edge of the picture"),
        (score_to_the_area, "You measure the distance to the other mask"),
        (score_of_nothing_for_nothing, "Two empty masks agree"),
    ],
    "05.6": [
        (comparison_of_differences, "You return the differences alone"),
        (comparison_of_means, "You return one mean of A and one of B"),
        (comparison_in_one_number, "You return a single number"),
        (comparison_in_columns, "Your seeds stand in the columns"),
        (comparison_in_per_cent, "A score of yours is above 1"),
        (comparison_of_log_losses, "A score of yours is below 0"),
        (comparison_of_nothing, "A score of yours is not a number"),
        (comparison_of_a_with_itself, "A and B have the same score for every seed"),
        (comparison_typed_in, "Every seed gives the same row"),
        (comparison_by_chance, "The same seeds gave two different answers"),
        (comparison_with_one_generator, "A seed's row depends on the seeds around it"),
        (comparison_of_other_than_numbers, "your function returns a dict"),
    ],
}

TestAnswers = class_of_tests("05", RIGHT, WRONG)


# Held against the course's own networks, and against Keras


def test_the_kernel_answers_what_the_dense_layer_answers():
    for case in find("05.1").cases():
        weights, map_shape = case.arguments
        picture = np.random.default_rng(0).normal(size=(1, *map_shape)).astype("float32")
        dense = keras.Sequential(
            [keras.Input(map_shape), keras.layers.Flatten(), keras.layers.Dense(weights.shape[1])]
        )
        dense.layers[-1].set_weights([weights, np.zeros(weights.shape[1])])
        convolution = keras.Sequential(
            [keras.Input(map_shape), keras.layers.Conv2D(weights.shape[1], map_shape[:2], use_bias=False)]
        )
        convolution.set_weights([find("05.1").answer(weights, map_shape)])
        wanted, found = (keras.ops.convert_to_numpy(net(picture)) for net in (dense, convolution))
        np.testing.assert_allclose(found[:, 0, 0], wanted, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 96), (65, 47)])
def test_fused_scores_are_those_that_an_fcn_16s_adds_up(shape):
    net = fcn((*shape, 1), 3, 16, "small", score_initializer="he_normal", dropout=0, learned="none")
    names = ("score_fr", "score_pool4", "fuse_pool4")
    inner = keras.Model(net.input, [net.get_layer(name).output for name in names])
    picture = np.random.default_rng(1).normal(size=(1, *shape, 1)).astype("float32")
    coarse, fine, fused = (keras.ops.convert_to_numpy(scores)[0] for scores in inner(picture))
    assert np.abs(coarse).max() > 0.1 and np.abs(fine).max() > 0.1
    np.testing.assert_allclose(find("05.3").answer(coarse, fine), fused, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_plan_is_that_of_the_course_s_backbone(output_stride):
    body = small_resnet((64, 64, 1), output_stride=output_stride)
    sides = [64, *(features.shape[1] for features in body.outputs)]
    strides = [a // b for a, b in zip(sides[:-1], sides[1:], strict=True)]
    # The second convolution of a stage's first block; the first one still has the rate of the stage before.
    rates = [body.get_layer(f"layer{stage}-0-conv2").dilation_rate[0] for stage in (1, 2, 3, 4)]
    assert list(zip(strides, rates, strict=True)) == find("05.4").answer([4, 2, 2, 2], output_stride)


def test_an_experiment_that_fails_in_two_ways_is_told_what_it_has_to_be():
    """No one mistake explains both, so the form is said in words."""
    report = judge(find("05.6"), lambda seeds: np.full((len(seeds), 2), 50.0 if len(seeds) > 1 else np.nan))
    assert report.state == "wrong"
    assert "each has two scores from 0 to 1" in report.text
