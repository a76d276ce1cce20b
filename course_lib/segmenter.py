"""From an image to its label map in one line: a network with everything that prediction needs.

segmenter = course_lib.load("unet-nuclei")
labels = segmenter.predict(image)                   # int32 (height, width)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from course_lib import checkpoints, recipes
from course_lib.checkpoints import CheckpointError
from course_lib.datasets.loading import normalize, window_normalizer
from course_lib.datasets.sample import check_sample
from course_lib.files import replacing, write_json
from course_lib.models.predict import check_finite
from course_lib.recipes import Recipe
from course_lib.tasks import TASKS, Output, Task

OUTPUT_BYTES = 256 * 2**20
"""What `Outputs` keeps in memory."""
LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in brightness (ITU-R BT.709, as scikit-image's `rgb2gray`)."""


class Segmenter:
    """A network together with its task, the normalization of its images and the thresholds of its label maps.

    Args:
        model: the network.
        task: how its output is read (see `tasks`).
        class_names: the classes that it tells apart.
        channels: of its images, 1 or 3.
        normalization: `"none"` or `"stretch"`.
        thresholds: as chosen on a validation set; those that are missing have the task's defaults.
        recipe: what it was made by, if anything.

    Attributes:
        model, task, class_names, channels, normalization, thresholds, recipe: as above.
        card: where and how the weights were trained, if they come from a checkpoint.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        class_names: Sequence[str],
        channels: int,
        normalization: str = "none",
        thresholds: Mapping[str, float] | None = None,
        recipe: Recipe | None = None,
    ):
        self.model, self.task, self.class_names = model, task, tuple(class_names)
        self.channels, self.normalization, self.recipe = channels, normalization, recipe
        self.card: dict[str, Any] | None = None
        self.thresholds = task.complete(thresholds or {})
        task.check_model(model, len(self.class_names), channels)

    @classmethod
    def of(
        cls, recipe: Recipe, model: keras.Model | None = None, thresholds: Mapping[str, float] | None = None
    ) -> Self:
        """The segmenter of a recipe, with this model or an untrained one of its own."""
        model = recipe.model() if model is None else model
        return cls(
            model,
            recipe.task,
            recipe.class_names(),
            recipe.channels(),
            recipe.normalization,
            thresholds,
            recipe,
        )

    def predict(self, image: np.ndarray, **thresholds: float) -> np.ndarray:
        """The label map of one image.

        Args:
            image: `(height, width)` or `(height, width, 1 to 4)`, of any size; uint8, uint16, boolean, or floats in 0..1.
                Colours become brightness, or grey is repeated, as the network needs it; transparency is dropped.
            **thresholds: others than the segmenter's own.

        Returns:
            int32 `(height, width)`: the objects 1..n on the background 0 where the task tells objects apart, class ids
            otherwise.

        Raises:
            TypeError, ValueError: if the image cannot be one, or there is no such threshold.
        """
        known = self.task.complete({**self.thresholds, **thresholds})
        return self.task.decode(self.output(as_image(image, self.channels)), **known)

    def output(self, image: np.ndarray) -> Output:
        """What the network predicts for one image, float32 `(height, width, channels)` in 0..1 as a data set hands it out.

        Returns:
            Probabilities, float32 `(height, width, classes)`; of a detector, its detections (see `predict_detections`).

        Raises:
            ValueError: if the probabilities are not finite numbers.
        """
        with np.errstate(invalid="ignore"):  # told below
            output = self.task.output(self.model, normalize(image, self.normalization))
        return check_finite(output) if isinstance(output, np.ndarray) else output

    def outputs(self, samples: Sequence, progress=None) -> "Outputs":
        """`output` for each sample's image; `progress` wraps the iteration, as `tqdm.tqdm` does."""
        if len(samples):
            check_sample(samples[0])  # a wrong scale or kind is that of all
        return Outputs(self, samples, progress)

    def predict_large(self, image, out: np.ndarray | None = None, progress=None) -> np.ndarray:
        """The class of each pixel of a large image, read and predicted a window at a time.

        Classes, also where the task tells objects apart: an object may be anywhere in the image, and numbering them takes
        all of it at once.

        Args:
            image: as the file has it: normalized here, by the percentiles of the whole image.
            out, progress: see `predict_classes_tiled`.

        Returns:
            Class ids `(height, width)`.

        Raises:
            ValueError: for a detector, whose boxes belong to whole images; if the probabilities are not finite numbers.
        """
        prepare = window_normalizer(image, self.normalization)
        return self.task.classes_tiled(self.model, image, out, prepare, progress)

    def evaluate(self, data: Sequence | str = "val", progress=None) -> dict[str, float]:
        """The task's metrics on a data set, or on a split of the recipe's own: name → value in 0..1."""
        samples = self._samples(data)
        return self.score(samples, self.outputs(samples, progress))

    def score(self, samples: Sequence, outputs: Iterable[Output]) -> dict[str, float]:
        """The task's metrics of outputs that were computed before."""
        if not len(samples):
            raise ValueError("samples is empty; it must contain at least one sample.")
        return self.task.score(samples, outputs, self.class_names, **self.thresholds)

    def choose_thresholds(
        self, data: Sequence | str = "val", outputs: Sequence | None = None
    ) -> dict[str, float]:
        """Choose the thresholds on a data set, store and return them."""
        samples = self._samples(data)
        outputs = self.outputs(samples) if outputs is None else outputs
        self.thresholds = self.task.choose(samples, outputs, self.class_names)
        return self.thresholds

    def fit(self, **arguments: Any) -> dict[str, Any]:
        """Train the recipe to its end, or go on where it was stopped (see `training.train`). Returns the card."""
        from course_lib import training

        if self.recipe is None:
            raise ValueError(
                "recipe is None; a segmenter that was loaded from a file has no recipe and cannot be trained."
            )
        training.train(self.recipe, **arguments)
        return self._take(arguments.get("root"))

    def _take(self, root: Path | None) -> dict[str, Any]:
        """Take weights and thresholds from the recipe's checkpoint."""
        self.card = checkpoints.load(self.recipe, self.model, root, quiet=True)
        self.thresholds = self.card["thresholds"]
        return self.card

    def save(self, folder: Path | str) -> Path:
        """Write a folder that `course_lib.load` reads, without the recipe: the network as Keras's own file, and the rest
        as JSON. Returns it."""
        folder = Path(folder)
        with replacing(folder / "model.keras") as unfinished:
            self.model.save(unfinished)
        facts = {
            "task": {"class": type(self.task).__name__, **asdict(self.task)},
            "class_names": self.class_names,
            "channels": self.channels,
            "normalization": self.normalization,
            "thresholds": self.thresholds,
        }
        write_json(folder / "segmenter.json", facts)
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """What `save` wrote.

        Raises:
            CheckpointError: if it is not there, or damaged; it names the file.
        """
        path = Path(folder) / "segmenter.json"
        facts = checkpoints.read_json(path)
        try:
            task = dict(facts.pop("task"))
            task = TASKS[task.pop("class")](**task)
            model = keras.saving.load_model(path.with_name("model.keras"), compile=False)
            return cls(model, task, **facts)
        except Exception as error:  # a foreign file can be wrong in every way
            raise CheckpointError(
                f"{folder} contains no readable segmenter ({error}); save it again."
            ) from error

    def _samples(self, data: Sequence | str) -> Sequence:
        if isinstance(data, str):
            if self.recipe is None:
                raise ValueError(f"data is {data!r}; this segmenter has no recipe: give a data set.")
            return self.recipe.data(data)
        return data

    def __repr__(self) -> str:
        return f"<Segmenter: {type(self.task).__name__}, classes {', '.join(self.class_names)}>"


class Outputs(Sequence):
    """What a network predicts for each sample's image, like a list of what `Segmenter.output` returns.

    The first that fit into `limit` bytes are kept, and so are predicted once. The others are predicted each time they are
    asked for: of CamVid at full size, the probabilities of the validation set alone are 0.8 GB.

    Args:
        segmenter: whose weights must not change while this is in use.
        samples: with their images.
        progress: wraps the iteration over the samples that are kept, as `tqdm.tqdm` does.
        limit: in bytes.
    """

    def __init__(self, segmenter: Segmenter, samples: Sequence, progress=None, limit: int = OUTPUT_BYTES):
        self.segmenter, self.samples = segmenter, samples
        self._kept: list = []
        indices = range(len(samples))
        for index in progress(indices) if progress else indices:
            one = self._predict(index)
            limit -= sum(part.nbytes for part in (one.values() if isinstance(one, dict) else [one]))
            if limit < 0:
                break
            self._kept.append(one)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Output:
        if not -len(self) <= index < len(self):
            raise IndexError(f"output {index}: there are {len(self)}.")
        index %= len(self)
        return self._kept[index] if index < len(self._kept) else self._predict(index)

    def _predict(self, index: int) -> Output:
        return self.segmenter.output(self.samples[index].image)


def load(what: str | Path | Recipe, root: Path | None = None) -> Segmenter:
    """A trained segmenter.

    Args:
        what: the name of a shipped recipe, such as `"unet-nuclei"`; a recipe of your own that was trained; or a folder that
            `Segmenter.save` wrote.
        root: the folder of checkpoints; by default the course's.

    Raises:
        CheckpointError: if there are no trained weights, or they don't belong to the recipe.
        ValueError: if there is neither a recipe nor a folder of that name.
    """
    if not isinstance(what, Recipe):
        if Path(what).is_dir() and str(what) not in recipes.RECIPES:
            return Segmenter.load(what)
        what = recipes.get(str(what))
    checkpoints.card(what, root)  # before the network is built: what is missing or stale is known at once
    segmenter = Segmenter.of(what)
    segmenter._take(root)
    return segmenter


def as_image(image: np.ndarray, channels: int) -> np.ndarray:
    """An array as a network takes it, float32 `(height, width, channels)` in 0..1; see `Segmenter.predict`."""
    image = np.asarray(image)
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or not 1 <= image.shape[-1] <= 4 or not image.size:
        raise ValueError(
            f"image is an array of shape {shape}; it must be one image, (height, width) or (height, width, 1 to 4)."
        )
    if image.dtype in (np.uint8, np.uint16):
        image = image.astype(np.float32) / np.iinfo(image.dtype).max
    elif image.dtype.kind == "f":
        if not np.isfinite(image).all() or image.min() < -1e-3 or image.max() > 1.001:
            raise ValueError(
                f"image is an array of {image.dtype} from {image.min():g} to {image.max():g}; floats must be finite and in "
                "0..1. Divide by the largest value that the camera can give, or pass uint8 or uint16."
            )
    elif image.dtype != bool:
        raise TypeError(f"image is an array of {image.dtype}; it must be uint8, uint16, or floats in 0..1.")
    image = image.astype(np.float32)
    if image.shape[-1] in (2, 4):
        image = image[..., :-1]
    if channels == 1 and image.shape[-1] == 3:
        image = (image @ np.array(LUMINANCE, np.float32))[..., None]
    elif channels == 3 and image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return np.clip(image, 0, 1)
