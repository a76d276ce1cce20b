"""Scores of a whole image cut into segments: the measures of the ISBI 2012 neuron segmentation challenge.

Whoever traces a neuron doesn't mind a border that is a pixel too wide. What ruins the trace is a gap in it,
which merges two cells, or a border where none is, which splits one. So the challenge compares *segments*, not
pixels (Arganda-Carreras et al. 2015, Crowdsourcing the creation of image segmentation algorithms for
connectomics, Frontiers in Neuroanatomy 9:142).

Let p_ij be the fraction of pixels that lie in segment i of the prediction S and in segment j of the ground truth T,
with s_i = Σ_j p_ij and t_j = Σ_i p_ij. Only pixels that are foreground (not border) in the ground truth are counted.
Then

    V_Rand = Σ p_ij² / (α Σ s_i² + (1 - α) Σ t_j²)         V_Info = I(S; T) / ((1 - α) H(S) + α H(T))

- α = 0 is the **split** score: Σ p_ij² / Σ t_j², the probability that two pixels of one true cell are in one
  predicted segment, and I / H(S). Both fall when the prediction cuts a cell in two.
- α = 1 is the **merge** score: Σ p_ij² / Σ s_i², the probability that two pixels of one predicted segment are of
  one true cell, and I / H(T). Both fall when it runs two cells together.
- α = 0.5 is the **F-score**, the harmonic mean of the two.

Border thinning. The predicted segments must fill the image, so that a pixel of a true cell is never lost to
a wide predicted border. The challenge's script thins the borders of the submitted map at each threshold 0.0,
0.1, …, 1.0 and reports the best score. `segments_from_probability` is our own form of the same idea: it
labels the 4-connected regions above *one* threshold and floods the rest from them (a watershed), until the
borders have no width. That threshold is chosen on the validation set and kept. So our numbers measure the
same thing as the leader board's, but they are not computed by the same program, and on the same
images a fixed threshold can only give less than the best one.

Empty predictions, as everywhere in the metrics: no true foreground, so no pixel to judge, is NaN. Where H(S) = 0
the prediction is one segment and can't have split anything: split = 1; where H(T) = 0 nothing can be merged:
merge = 1.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from course_lib._checks import array_of, in_range, whole_number
from course_lib.metrics._labels import check_same_shape, consecutive, contingency, integer_array, label_map


@dataclass(frozen=True)
class PartitionScore:
    """How well the predicted segments agree with the ground truth; 1 is perfect, 0 the worst.

    Attributes:
        f_score: harmonic mean of `split` and `merge`.
        split: 1 if no true cell was cut in two.
        merge: 1 if no two true cells were run together.
    """

    f_score: float
    split: float
    merge: float


def segments_from_labels(semantic: np.ndarray, cell: int = 1) -> np.ndarray:
    """The true segments: the 4-connected regions of cell pixels.

    Args:
        semantic: integer class ids `(height, width)`.
        cell: the class id of a cell's inside.

    Returns:
        int32 `(height, width)`: 0 = border (not judged), 1..n = the segments.

    Raises:
        ValueError: if `semantic` is not a 2-D integer map.
    """
    semantic = integer_array("semantic", semantic, "compare probabilities with a threshold first")
    array_of("semantic", semantic, shape=(None, None), instead="give one image (height, width)")
    segments, _ = ndimage.label(semantic == cell)
    return segments.astype(np.int32)


def segments_from_probability(
    cell_probability: np.ndarray, threshold: float = 0.5, min_size: int = 1
) -> np.ndarray:
    """Cut an image into segments whose borders have no width.

    The 4-connected regions above the threshold are seeds. They grow, the most probable pixels first, until
    they meet and every pixel belongs to one (Meyer's watershed, as scikit-image has it).

    Args:
        cell_probability: float `(height, width)` in 0..1, the probability that a pixel is inside a cell.
        threshold: a seed's pixels are more probable than this, 0 <= threshold < 1. The higher, the more
            borders.
        min_size: seeds of fewer pixels are dropped; 1 keeps all.

    Returns:
        int32 `(height, width)`: 1..n, no 0. An image without any seed is one segment: nothing in it was
        separated.

    Raises:
        ValueError: not a 2-D map of probabilities (logits, NaN, values out of 0..1), or a parameter out of
            range.
    """
    probability = np.asarray(cell_probability)
    array_of("cell_probability", probability, shape=(None, None), instead="give one image (height, width)")
    if not np.issubdtype(probability.dtype, np.floating):
        raise ValueError(
            f"cell_probability is an array of {probability.dtype}; it must hold float probabilities."
        )
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):  # NaN fails this, too
        raise ValueError(
            f"cell_probability holds {probability.min():g} to {probability.max():g}; it must hold probabilities, 0 to 1: "
            "apply the softmax (or sigmoid) to logits first."
        )
    threshold = in_range("threshold", threshold, 0, 1, open_high=True)
    min_size = whole_number("min_size", min_size, 1)

    seeds, count = ndimage.label(probability > threshold)
    if min_size > 1:
        large = np.bincount(seeds.ravel(), minlength=count + 1) >= min_size
        large[0] = False
        count = np.count_nonzero(large)
        seeds = np.where(large, np.cumsum(large), 0)[seeds]
    if not count:
        return np.ones(probability.shape, np.int32)
    return watershed(-probability.astype(np.float64), seeds, connectivity=1).astype(np.int32)


def rand_score(segments_true: np.ndarray, segments_pred: np.ndarray) -> PartitionScore:
    """The foreground-restricted Rand scores V_Rand (Arganda-Carreras et al. 2015, equation 3).

    Args:
        segments_true: integer segments, 0 = border, which is not judged; any shape.
        segments_pred: integer segments of the same shape; 0 counts as a segment like any other, so thin borders
            first.

    Returns:
        F-score, split and merge, each in 0..1; NaN if the ground truth has no segment.

    Raises:
        ValueError: shapes differ, an id is negative, or a map is not of integers.
    """
    joint, predicted, true = _joint_counts(segments_true, segments_pred)
    if not joint.size:
        return PartitionScore(np.nan, np.nan, np.nan)
    together, in_predicted, in_true = (
        float(np.sum(n.astype(np.float64) ** 2)) for n in (joint, predicted, true)
    )
    return PartitionScore(
        f_score=together / (0.5 * in_predicted + 0.5 * in_true),
        split=together / in_true,
        merge=together / in_predicted,
    )


def information_score(segments_true: np.ndarray, segments_pred: np.ndarray) -> PartitionScore:
    """The foreground-restricted information scores V_Info (Arganda-Carreras et al. 2015, equation 6); arguments, result and
    errors as in `rand_score`."""
    joint, predicted, true = _joint_counts(segments_true, segments_pred)
    if not joint.size:
        return PartitionScore(np.nan, np.nan, np.nan)
    h_predicted, h_true, h_joint = _entropy(predicted), _entropy(true), _entropy(joint)
    information = h_predicted + h_true - h_joint
    return PartitionScore(
        f_score=_explained(information, 0.5 * h_predicted + 0.5 * h_true),
        split=_explained(information, h_predicted),
        merge=_explained(information, h_true),
    )


def _joint_counts(
    segments_true: np.ndarray, segments_pred: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of the true foreground in each pair of segments that meet, each predicted and each true one."""
    true, pred = label_map("segments_true", segments_true), label_map("segments_pred", segments_pred)
    check_same_shape("segments_true", true, "segments_pred", pred)
    foreground = true > 0
    _, true_index, true_areas = consecutive(true[foreground])
    _, pred_index, pred_areas = consecutive(pred[foreground])
    joint = contingency(pred_index, true_index, (len(pred_areas), len(true_areas)))
    return joint.data, pred_areas, true_areas


def _entropy(counts: np.ndarray) -> float:
    """Entropy in nats of the distribution with these counts, none of them 0."""
    fraction = counts / counts.sum()
    return float(-np.sum(fraction * np.log(fraction)))


def _explained(information: float, entropy: float) -> float:
    # Rounding may leave the difference of entropies a hair outside what is possible.
    return float(np.clip(information / entropy, 0, 1)) if entropy > 0 else 1.0
