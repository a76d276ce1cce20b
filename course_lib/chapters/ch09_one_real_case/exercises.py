"""Exercises of chapter 09: three leaks to stop, a sampler to balance."""

from functools import partial

import numpy as np

from course_lib.teaching.exercise import Case, Exercise, facts, varied

# 09.1, three planted leaks


def _by_patient(patients, rng):
    people = rng.permutation(np.unique(patients))
    return np.isin(patients, people[: max(1, round(len(people) / 5))])


def _by_image(patients, rng):
    return rng.permutation(len(patients)) < max(1, len(patients) // 5)


def _sorted_and_cut(patients, rng):
    order = np.argsort(rng.permutation(patients.max() + 1)[patients], kind="stable")
    held = np.zeros(len(patients), bool)
    held[order[: len(patients) // 5]] = True
    return held


def mended_split(
    images,
    masks,
    patients,
    rng,
    choose=_by_patient,
    scaling=lambda images, train, val: 2 * [(train.mean(), train.std())],
    mirrored=(True, False),
    turn=lambda masks: masks[..., ::-1],
):
    """`scaling` gives a mean and a standard deviation for each of the two sets; `mirrored`: which set gets copies."""
    held, parts = choose(patients, rng), []
    numbers = scaling(images, images[~held], images[held])
    for rows, copies, (mean, spread) in zip((~held, held), mirrored, numbers, strict=True):
        some, their = (images[rows] - mean) / spread, masks[rows]
        if copies:
            some, their = np.concatenate([some, some[..., ::-1]]), np.concatenate([their, turn(their)])
        parts.append((some, their))
    return parts


def leaky_split(images, masks, patients, rng):
    """The function of the prompt."""
    images = (images - images.mean()) / images.std()
    images, masks = (np.concatenate([part, part[..., ::-1]]) for part in (images, masks))
    order = rng.permutation(len(images))
    train, val = np.split(order, [4 * len(order) // 5])
    return (images[train], masks[train]), (images[val], masks[val])


def _standard(images):
    mean, spread = (f(images, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    return (images - mean) / (spread + 1e-9)


def _read_split(found, images, masks):
    """For each of the two sets: which images it holds, which of them are mirrored, whether masks fit, scaled images."""
    if found is None or found is ...:
        raise NotImplementedError
    try:
        parts = [tuple(map(np.asarray, part)) for part in found]
        [(_, _), (_, _)] = parts
    except (TypeError, ValueError):
        raise ValueError("return two pairs: (train_images, train_masks), (val_images, val_masks)") from None
    both, labels = (np.concatenate([one, one[..., ::-1]]) for one in (images, masks))
    for some, their in parts:
        if some.shape != their.shape or some.shape[1:] != images.shape[1:] or not len(some):
            raise ValueError("each set needs at least one image, and each image a mask of its size")
        apart = np.abs(_standard(some)[:, None] - _standard(both)).max((2, 3))
        if apart.min(1).max() > 1e-3:
            raise ValueError("there are images that are neither one of those given nor a mirrored one")
        rows = apart.argmin(1)
        fits = np.array_equal(their, labels[rows])
        yield rows % len(images), rows >= len(images), fits, some


SPLIT_FACTS = (
    "no patient is in both sets",
    "a fifth of the patients is held out, and no image is lost",
    "the validation set holds each of its images once, as it is",
    "the training set holds each of its images twice, once mirrored",
    "each mask fits its image",
    "the training images have mean 0 and standard deviation 1",
    "the validation images are scaled by the same two numbers",
    "another rng gives another split",
)


def _split_behaviour(function, images, masks, patients):
    """How far each of `SPLIT_FACTS` is true, 1: it is."""
    true, kinds = np.ones(7), set()
    for seed in range(6):
        given = images.copy(), masks.copy(), patients.copy(), np.random.default_rng(seed)
        sets = list(_read_split(function(*given), images, masks))
        (rows, mirrored, fits, scaled), (held, turned, fit, scaled_val) = sets
        train, val = set(patients[rows].tolist()), set(patients[held].tolist())
        rate = scaled.std() / images[rows].std()
        by_all = abs(scaled.mean() - (images[rows].mean() - images.mean()) / images.std()) < 1e-3
        now = [
            not train & val,
            len(val) == max(1, round(len(np.unique(patients)) / 5)) and len({*rows, *held}) == len(images),
            not turned.any() and len(set(held.tolist())) == len(held),
            len(rows) == 2 * mirrored.sum() == 2 * len(set(rows.tolist())),
            fits and fit,
            1.0 if abs(scaled.mean()) < 1e-3 and abs(scaled.std() - 1) < 1e-3 else 0.5 * by_all,
            np.allclose(
                scaled_val.mean(),
                (images[held].mean() - images[rows].mean()) * rate + scaled.mean(),
                atol=1e-3,
            )
            and np.allclose(scaled_val.std(), images[held].std() * rate, atol=1e-3),
        ]
        true = np.minimum(true, now)
        kinds.add(tuple(sorted(held.tolist())))
    return [*true, len(kinds) > 1]


def _patients(sizes, seed):
    """Noisy images `(n, 6, 8)`, each patient with a brightness of its own, masks, and the patient of each image."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    bright = 50 + 30 * rng.normal(size=len(sizes))
    images = bright[patients][:, None, None] + 10 * rng.normal(size=(len(patients), 6, 8))
    return images, images > bright[patients][:, None, None] + 5, patients


_split = varied(mended_split)

SPLIT = Exercise(
    number="09.1",
    name="mended_split",
    form=facts("two sets of images and masks", SPLIT_FACTS),
    answer=mended_split,
    measure=_split_behaviour,
    passed="right: nothing of the validation set is known in training.",
    cases=[
        Case("40 images of 10 patients", *_patients((4,) * 10, 1)),
        Case("30 images of 5 patients, one of whom has 18", *_patients((18, 3, 3, 3, 3), 2)),
        Case("8 images of 2 patients", *_patients((4, 4), 3)),
    ],
    mistakes={
        "Nothing is mended yet: the same patients are in both sets, copies were made before the split, and mean and "
        "standard deviation come from all images.": leaky_split,
        "The same patient is in both sets: draw a fifth of the patients, not of the images.": _split(
            choose=_by_image
        ),
        "One patient is still in both sets: sorting the images by patient is not enough if the cut goes through one of "
        "them.": _split(choose=_sorted_and_cut),
        "The mean and standard deviation come from all images, the validation images among them; take those of the "
        "training images.": _split(scaling=lambda images, train, val: 2 * [(images.mean(), images.std())]),
        "The validation images are scaled by their own mean and standard deviation; use those of the training images, as "
        "for every later image.": _split(
            scaling=lambda images, train, val: [(part.mean(), part.std()) for part in (train, val)]
        ),
        "The training images do not have mean 0 and standard deviation 1; scale both sets by the numbers of the training "
        "images.": _split(scaling=lambda *_: 2 * [(0.0, 1.0)]),
        "The validation set has mirrored copies, too: augment only what is trained on.": _split(
            mirrored=(True, True)
        ),
        "The mirrored copies are gone: training images may be mirrored, after the split.": _split(
            mirrored=(False, False)
        ),
        "The images are mirrored without their masks.": _split(turn=lambda masks: masks),
        "The split is the same for every rng: draw from the rng that is passed in.": _split(
            choose=lambda patients, rng: _by_patient(patients, np.random.default_rng(0))
        ),
    },
    hints=[
        "Split first, then scale, then mirror. What is drawn: images or patients?",
        "people = rng.permutation(np.unique(patients)); held = np.isin(patients, people[:count]).",
        "Take mean and standard deviation of images[~held] and use them for both sets; mirror only images[~held] and "
        "their masks.",
    ],
)

# 09.2, a rare class


def balanced_batch(contains, size, rng, rare=0.5, draw=None):
    """`draw(rng, rows, count)` gives so many of the rows."""
    draw = draw or (lambda rng, rows, count: rng.choice(rows, count, replace=len(rows) < count))
    halves = [np.flatnonzero(contains), np.flatnonzero(~contains)]
    counts = [round(size * rare), size - round(size * rare)]
    for one in (0, 1):
        if not len(halves[one]):
            counts = [0 if k == one else size for k in (0, 1)]
    return np.concatenate(
        [draw(rng, rows, count) for rows, count in zip(halves, counts, strict=True) if count]
    )


def _half_on_average(contains, size, rng):
    weights = np.where(contains, 1 / max(contains.sum(), 1), 1 / max((~contains).sum(), 1))
    return rng.choice(len(contains), size, p=weights / weights.sum())


def _plain_batch(contains, size, rng):
    return rng.choice(len(contains), size, replace=size > len(contains))


def _without_both(contains, size, rng):
    halves = [np.flatnonzero(contains), np.flatnonzero(~contains)]
    return np.concatenate([rng.choice(rows, size // 2, replace=len(rows) < size // 2) for rows in halves])


SAMPLER_FACTS = (
    "half of each batch has the class",
    "the batch has the size asked for",
    "within each half all images are equally likely",
    "no image comes twice while there are others of its kind",
    "the rng that is passed in decides, and nothing else",
)


def _sampling_behaviour(function, contains, size):
    """How far each of `SAMPLER_FACTS` is true of 300 batches, 1: it is. The first is 0.5 where it is true on average, and 2
    where more than half have the class."""
    batches = []
    for seed in range(300):
        found = function(contains.copy(), size, np.random.default_rng(seed))
        if found is None or found is ...:
            raise NotImplementedError
        batches.append(np.asarray(found))
        kind, axes = batches[-1].dtype, batches[-1].ndim
        if axes != 1 or kind.kind not in "iu":
            raise ValueError(f"return {size} row numbers; this is an array of {kind} with {axes} axes")
        if len(batches[-1]) and not 0 <= batches[-1].min() <= batches[-1].max() < len(contains):
            raise ValueError(f"a row is not between 0 and {len(contains) - 1}")
    wanted = size // 2 if contains.any() and not contains.all() else size * contains.all()
    counts = np.array([contains[batch].sum() for batch in batches])
    exact = 1.0 if (counts == wanted).all() else 0.5 if abs(counts.mean() - wanted) < 0.2 * wanted else 0.0
    often = np.bincount(np.concatenate(batches), minlength=len(contains))
    halves = [often[part] for part in (contains, ~contains) if often[part].any()]
    twice = False
    for part, need in ((contains, wanted), (~contains, size - wanted)):
        if part.sum() >= need:
            twice |= any((np.unique(b[part[b]], return_counts=True)[1] > 1).any() for b in batches)
    again = np.asarray(function(contains.copy(), size, np.random.default_rng(0)))
    return [
        2.0 if counts.mean() > 1.2 * wanted else exact,
        all(len(batch) == size for batch in batches),
        all(np.abs(half - half.mean()).max() < 4.5 * half.mean() ** 0.5 and half.all() for half in halves),
        not twice,
        np.array_equal(again, batches[0]) and len({batch.tobytes() for batch in batches}) > 1,
    ]


def _with(count, of):
    return np.random.default_rng(of).permutation(np.arange(of) < count)


BALANCED = Exercise(
    number="09.2",
    name="balanced_batch",
    form=facts("an array of row numbers", SAMPLER_FACTS),
    answer=balanced_batch,
    measure=_sampling_behaviour,
    seconds=20.0,
    passed="right: half of every batch has the rare class, and every image has its turn.",
    cases=[
        Case("60 images, 6 of them with the class, batches of 8", _with(6, 60), 8),
        Case("50 images, 3 of them with the class, batches of 16", _with(3, 50), 16),
        Case("20 images without the class, batches of 4", _with(0, 20), 4),
        Case("20 images, all with the class, batches of 4", _with(20, 20), 4),
    ],
    mistakes={
        "You draw from all images alike: most batches then have few of the rare class, or none.": (
            _plain_batch,
            lambda contains, size, rng: rng.choice(len(contains), size),
        ),
        "Half is true on average only: a batch may have none. Draw each half by itself.": _half_on_average,
        "An image comes twice although there are others: draw without repetition where there are enough.": partial(
            balanced_batch, draw=lambda rng, rows, count: rng.choice(rows, count)
        ),
        "You draw without repetition where there are too few images; then repeat some of them.": partial(
            balanced_batch, draw=lambda rng, rows, count: rng.choice(rows, count, replace=False)
        ),
        "The batch gets smaller where there are too few images with the class; repeat some of them.": partial(
            balanced_batch, draw=lambda rng, rows, count: rng.permutation(rows)[:count]
        ),
        "You always take the first images of each half; over many batches every image must have its turn.": partial(
            balanced_batch, draw=lambda rng, rows, count: np.resize(rows, count)
        ),
        "Without an image of one kind, take the whole batch from the other.": _without_both,
        "Only images with the class are in your batch: then the network never sees one without.": partial(
            balanced_batch, rare=1.0
        ),
        "Your batch does not depend on the rng that is passed in, or is not the same for the same rng.": (
            lambda contains, size, rng: balanced_batch(contains, size, np.random.default_rng()),
        ),
    },
    hints=[
        "np.flatnonzero(contains) are the rows with the class, np.flatnonzero(~contains) those without.",
        "rng.choice(rows, size // 2, replace=len(rows) < size // 2) repeats only where it must.",
        "If one of the two is empty, draw all of the batch from the other.",
    ],
)

EXERCISES = (SPLIT, BALANCED)
