"""From samples to the batches that `fit` takes."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from course_lib._checks import one_of, whole_number
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.sample import Dataset, check_sample

NORMALIZATIONS = ("none", "stretch")
SAMPLINGS = ("uniform", "root_area")
MOST_DRAWS = 10
"""How often a crop is drawn again that holds no pixel that counts."""
CACHE_BYTES = 512 * 2**20
"""What `Batches(cache=True)` may keep: the drawn sets and CamVid at half size whole, about half of CamVid at full size."""


def stretch(image: np.ndarray, low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Contrast stretched so that the `low` and `high` percentiles of each channel become 0 and 1; clipped to 0..1.

    Microscopes differ in exposure by a factor of ten and more; the network should not have to learn that.

    Args:
        image: float32 `(height, width, channels)`.
        low, high: percentiles, 0..100.

    Returns:
        float32 of the same shape; a flat channel becomes 0.
    """
    return _stretched(image, *np.percentile(image, (low, high), axis=(0, 1)))


def _stretched(image: np.ndarray, floor: np.ndarray, top: np.ndarray) -> np.ndarray:
    span = np.where(top > floor, top - floor, 1.0)
    return np.clip((image - floor) / span, 0, 1).astype(np.float32)


def percentiles(image, percents: tuple[float, ...], rows: int = 256) -> np.ndarray:
    """`np.percentile(image, percents, axis=(0, 1))` of an image that is read a strip at a time.

    By a histogram of 65536 steps: exact for images of 8 or 16 bits; of colours made grey, off by a step at most.

    Args:
        image: float32 in 0..1 with a `shape` of `(height, width, channels)`, and `image[rows, columns]` for slices.
        percents: 0..100.
        rows: of a strip.

    Returns:
        float64 `(len(percents), channels)`.
    """
    height, width, channels = image.shape
    counts = np.zeros((channels, 65536), np.int64)
    for top in range(0, height, rows):
        levels = np.rint(image[top : top + rows, :] * 65535).astype(np.uint16)
        for channel in range(channels):
            counts[channel] += np.bincount(levels[..., channel].ravel(), minlength=65536)
    below = counts.cumsum(axis=1)
    position = np.asarray(percents, float) / 100 * (height * width - 1)
    first, last = np.floor(position), np.ceil(position)
    values = [
        [np.searchsorted(ranks, place, side="right") / 65535 for ranks in below] for place in (first, last)
    ]
    low, high = (np.stack(value, axis=1) for value in values)
    return low + (position - first)[:, None] * (high - low)


def window_normalizer(image, how: str) -> Callable[[np.ndarray], np.ndarray]:
    """`normalize` for windows of one image: it stretches each as the whole image is stretched.

    Args:
        image: as for `percentiles`.
        how: `"none"` or `"stretch"`.

    Returns:
        A function, float32 `(…, channels)` to the same shape.
    """
    if how == "stretch":
        floor, top = percentiles(image, (1.0, 99.8))
        return lambda windows: _stretched(windows, floor, top)
    one_of("normalization", how, NORMALIZATIONS)
    return lambda windows: windows


def normalize(image: np.ndarray, how: str) -> np.ndarray:
    """`image` as the network takes it: `"none"` leaves it, `"stretch"` stretches its contrast (see `stretch`)."""
    return stretch(image) if one_of("normalization", how, NORMALIZATIONS) == "stretch" else image


class Batches(keras.utils.PyDataset):
    """Batches of random crops for `fit`: images with labels, or labels and weights, or (for a detector) with its targets.

    The batch k of epoch e is a function of the seed, e and k alone: it does not depend on how many threads load, nor on
    whether the training was stopped and resumed in between. Threads, not processes: Keras's multi-processing hangs
    beside JAX (keras issue 20619), and NumPy and SciPy release the lock where the time goes. The threads are this class's
    own: on JAX, Keras's queue of loaded batches carries what was read while the model was being built over into the first
    epoch, so that the same seed would not give the same training.

    Args:
        dataset: where the samples come from.
        batch_size: samples in a batch.
        crop: height and width of the crops in pixels, or `None` for whole images (which must then be of one size).
        steps: batches in an epoch; by default as many as it takes to see each sample once.
        task: what to learn, such as `tasks.Borders()`: anything with its `encode(sample)` and `collate(images, *maps)`. By
            default the semantic map.
        augmentation: what may happen to a sample. `None` for validation: the crop is the same in each epoch then.
        normalization: `"none"` or `"stretch"`.
        seed: decides order, crops and augmentation.
        shuffle: whether the order changes from epoch to epoch. By default on where there is augmentation.
        cache: how many bytes of encoded samples stay in memory; `True` for `CACHE_BYTES`, `False` for none. The first that
            fit are kept and the others read each time. None is dropped again for a later one: an epoch takes every
            sample about once, in an order of its own, so the one used last is needed again no sooner than any other, and
            swapping (as a cache of the last used does) would give no more hits; over a fixed order it would give none.
        transform: an own function `(images, labels, weights or None) -> the same` applied to each batch last.
        workers: loading threads.
        sampling: `"uniform"`: each sample as often as any other; `"root_area"`: larger ones oftener, by the square
            root of their pixels. A large image holds more that no other crop shows, but its crops resemble one another.
        classes: how many there are; a label that is none of them is an error then.

    Raises:
        ValueError: for an empty data set, an unknown sampling, a cache that is no number of bytes, or a batch size, crop or
            number of steps below 1.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 8,
        crop: tuple[int, int] | None = None,
        steps: int | None = None,
        task: Any = None,
        augmentation: Augmentation | None = None,
        normalization: str = "none",
        seed: int = 0,
        shuffle: bool | None = None,
        cache: bool | int = True,
        transform: Callable | None = None,
        workers: int = 2,
        sampling: str = "uniform",
        classes: int | None = None,
    ):
        super().__init__(workers=1, use_multiprocessing=False)
        if not len(dataset):
            raise ValueError("dataset is empty; it must contain at least one sample.")
        sides = (("crop", side) for side in crop or ())
        for name, value in (("batch_size", batch_size), ("steps", 1 if steps is None else steps), *sides):
            whole_number(name, value, 1)
        if isinstance(cache, float) or cache < 0:
            raise ValueError(f"cache is {cache!r}; it must be a whole number of bytes, True or False.")
        one_of("normalization", normalization, NORMALIZATIONS)
        self.sampling = one_of("sampling", sampling, SAMPLINGS)
        self._pool: np.ndarray | None = None
        self.dataset, self.batch_size, self.crop, self.task = dataset, batch_size, crop, task
        self.augmentation, self.normalization, self.seed = augmentation, normalization, seed
        self.whole_pass = steps is None
        self.steps = steps or math.ceil(len(dataset) / batch_size)
        self.shuffle = augmentation is not None if shuffle is None else shuffle
        self.transform, self.classes = transform, classes
        self.epoch = 0
        self._counted: bool | None = None  # whether a pixel did in what was drawn so far
        self._cache: dict[int, tuple] = {}
        self._cache_room = CACHE_BYTES if cache is True else int(cache)
        self._orders: dict[int, np.ndarray] = {}
        self._lock, self._order_lock, self._cache_lock = (threading.Lock() for _ in range(3))
        self._threads = ThreadPoolExecutor(workers, "batches") if workers > 1 else None
        self._ahead = 2 * workers
        self._loading: dict[tuple[int, int], Future] = {}
        self._devices, self._process, self._processes = 1, 0, 1

    def divide(self, devices: int, process: int = 0, processes: int = 1) -> None:
        """Make every batch a multiple of the devices, and give out this process's part of it only.

        A pass through the whole set may end with a short batch; it is filled up with the first samples of the pass.
        """
        self._devices, self._process, self._processes = devices, process, processes
        if self.whole_pass:
            self.steps = math.ceil(math.ceil(len(self.dataset) / devices) * devices / self.batch_size)

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1
        if self._counted is False:
            raise ValueError(
                "dataset holds no pixel that counts in any crop of this epoch: every label is to be ignored."
            )

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the samples in the order of this epoch, a vector of int."""
        with self._order_lock:
            if epoch not in self._orders:
                rng = np.random.default_rng([self.seed, epoch])
                # A pass of whole samples ends with a short batch rather than counting some samples twice (but see
                # `divide`); a given number of steps goes round the set as often as it takes.
                pool = self._indices()
                wanted = self.steps * self.batch_size
                if self.whole_pass:
                    wanted = math.ceil(len(pool) / self._devices) * self._devices
                rounds = [
                    rng.permutation(pool) if self.shuffle else pool
                    for _ in range(math.ceil(wanted / len(pool)))
                ]
                self._orders = {epoch: np.concatenate(rounds)[:wanted]}
            return self._orders[epoch]

    def _indices(self) -> np.ndarray:
        """The indices of one round through the set: each sample once, or large ones several times."""
        if self._pool is None:
            self._pool = np.arange(len(self.dataset))
            if self.sampling == "root_area":
                sides = np.sqrt([math.prod(sample.image.shape[:2]) for sample in self.dataset])
                self._pool = np.repeat(self._pool, np.rint(sides / sides.min()).astype(int))
        return self._pool

    def __getitem__(self, k: int) -> tuple[np.ndarray, ...]:
        if not 0 <= k < self.steps:
            raise IndexError(f"index is {k}; it must be a batch from 0 to {self.steps - 1}.")
        epoch = self.epoch if self.shuffle or self.augmentation is not None else 0
        if self._threads is None:
            return self._batch(epoch, k)
        with self._lock:
            # Batches of an epoch that was left early are of no use any more.
            self._loading = {key: future for key, future in self._loading.items() if key[0] == epoch}
            for later in range(k, min(k + self._ahead, self.steps)):
                if (epoch, later) not in self._loading:
                    self._loading[epoch, later] = self._threads.submit(self._batch, epoch, later)
            wanted = self._loading.pop((epoch, k))
        return wanted.result()

    def _batch(self, epoch: int, k: int) -> tuple[np.ndarray, ...]:
        """The batch `k` of an epoch, drawn here and now."""
        chosen = self.order(epoch)[k * self.batch_size : (k + 1) * self.batch_size]
        part = len(chosen) // self._processes
        mine = range(len(chosen))[self._process * part :][:part]
        drawn = [
            self._draw(int(chosen[place]), np.random.default_rng([self.seed, epoch, k, place]))
            for place in mine
        ]
        shapes = [one[0].shape for one in drawn]
        if len(set(shapes)) > 1:
            other = next(place for place, shape in enumerate(shapes) if shape != shapes[0])
            told = " and ".join(
                f"{self.dataset[int(chosen[mine[place]])].name!r} {' x '.join(map(str, shapes[place]))}"
                for place in (0, other)
            )
            raise ValueError(
                f"crop is {self.crop}; it must be (height, width), because the images of a batch differ in size (height x "
                f"width x channels: {told}). Or load them one by one, with batch_size=1."
            )
        batch = tuple(np.stack(part) for part in zip(*drawn, strict=True))
        if self.task is not None:
            batch = self.task.collate(*batch)
        if self.transform is not None:
            batch = tuple(
                part for part in self.transform(*batch, *([None] * (3 - len(batch)))) if part is not None
            )
        return batch

    def _encoded(self, index: int) -> tuple:
        """Normalized image and encoded target of a sample."""
        if index in self._cache:
            return self._cache[index]
        sample = self.dataset[index]
        check_sample(sample)
        maps = (sample.semantic,) if self.task is None else self.task.encode(sample)
        if self.classes is not None and (wrong := maps[0][(maps[0] < -1) | (maps[0] >= self.classes)]).size:
            raise ValueError(
                f"{sample.name}: the labels hold {wrong[0]}; they must be class ids, 0 to {self.classes - 1}, or -1 for "
                "pixels to ignore. Give each class its id: a mask of 0 and 255 as mask > 127."
            )
        encoded = (normalize(sample.image, self.normalization), *maps)
        size = sum(part.nbytes for part in encoded)
        with self._cache_lock:
            if index not in self._cache and size <= self._cache_room:
                # A view would keep all that it looks at in memory, uncounted.
                self._cache[index] = tuple(part if part.base is None else part.copy() for part in encoded)
                self._cache_room -= size
        return encoded

    def _draw(self, index: int, rng: np.random.Generator) -> tuple:
        image, *maps = self._encoded(index)
        if self.crop is None and self.augmentation is None:
            self._counted = bool(self._counted) or _counts(maps)
            return image, *maps
        for _ in range(MOST_DRAWS):
            crop, cut = (self.augmentation or Augmentation()).apply(
                image, maps, self.crop or image.shape[:2], rng
            )
            # Where no pixel counts there is nothing to learn: another crop is drawn.
            self._counted = bool(self._counted) or _counts(cut)
            if _counts(cut):
                break
        return crop, *cut


def _counts(maps) -> bool:
    """Whether a pixel counts."""
    return not any(one.dtype.kind == "i" and one.max() < 0 for one in maps)
