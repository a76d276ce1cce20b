"""Trained weights, with a card that says how they were trained.

A checkpoint is a folder `data/checkpoints/<recipe>/`: `weights.npz`, one array per variable, kernels in float16 (half
the size, and the metrics are measured after rounding), and `card.json`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib import resources
from course_lib.files import write_atomically, write_json

if TYPE_CHECKING:
    import keras

    from course_lib.recipes import Recipe

FOLDER = resources.DATA / "checkpoints"
"""The folder of the shipped weights, and in a checkout of all weights of the course's recipes."""
OWN = resources.RUNS / "checkpoints"
"""The weights of your own recipes."""
CARD = {"recipe": str, "digest": str, "thresholds": dict, "weights": str}
CARD |= {"epochs": int, "seconds": (int, float), "backend": str, "device": str}
"""What a card must hold, and of which kind."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, is damaged, or belongs to another recipe."""


# Weights -------------------------------------------------------------------------------------------------------


def rounded(array: np.ndarray) -> np.ndarray:
    """What is kept of a variable: kernels in float16; vectors stay float32, they are few and variances may be tiny."""
    array = np.asarray(array)
    return array.astype(np.float16) if array.ndim > 1 else array.astype(np.float32)


def keras_numpy(variable) -> np.ndarray:
    """A Keras variable as a NumPy array."""
    import keras

    return keras.ops.convert_to_numpy(variable)


def _variables(model: keras.Model) -> dict[str, Any]:
    """The model's variables by position and name. A layer without its own name gets a new one in each session, so the
    position identifies it; the name is for people."""
    # A seed generator's state is no weight.
    weights = [variable for variable in model.variables if "seed_generator" not in variable.path]
    return {f"{place:04d}/{variable.path}": variable for place, variable in enumerate(weights)}


def save_weights(model: keras.Model, path: Path) -> str:
    """Write the weights of a model, rounded (see `rounded`), as an `.npz`; returns the SHA-256 of the file.

    Raises:
        CheckpointError: if a weight is not a finite number.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, variable in _variables(model).items():
            values = rounded(keras_numpy(variable))
            if not np.isfinite(values).all():
                raise CheckpointError(
                    f"{name} of the model contains values that are not finite; nothing has been saved."
                )
            array = io.BytesIO()
            np.save(array, values)
            # A fixed date: the same weights give the same file.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), array.getvalue())
    write_atomically(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load_weights(model: keras.Model, path: Path, sha256: str | None = None) -> None:
    """Load the weights that `save_weights` wrote into a model.

    Args:
        model: with the variables that the file has.
        path: the file.
        sha256: what the file's checksum must be.

    Raises:
        CheckpointError: if the file is not readable or another than the checksum's, names or shapes differ, or a value is
            not finite; the model is left as it was.
    """
    advice = "get the file again, or train the recipe"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {advice}.") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(
            f"{path} is damaged, or is not the file that its card.json describes; {advice}."
        )
    variables, arrays = _variables(model), {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if not all(
                re.match(r"\d{4}/", name) for name in held
            ):  # written before places were kept: by the names alone
                variables = {name[5:]: variable for name, variable in variables.items()}
            variables = dict(sorted(variables.items()))
            if [_kind(name) for name in variables] != [_kind(name) for name in sorted(held)]:
                differ = sorted(set(variables) ^ set(held)) or sorted(held)
                raise _foreign(path, f"{len(differ)} variables differ; the first is {differ[0]!r}")
            for (name, variable), (_, info) in zip(variables.items(), sorted(held.items()), strict=True):
                if info.file_size > 8 * np.prod(variable.shape) + 4096:
                    raise _foreign(path, f"{name} is larger than the model's {tuple(variable.shape)}")
                arrays[name] = np.load(io.BytesIO(archive.read(info)), allow_pickle=False)
    except CheckpointError:
        raise
    except Exception as error:  # a file of another kind can be wrong in every way
        raise CheckpointError(
            f"{path} contains no readable weights ({type(error).__name__}); {advice}."
        ) from error
    for name, variable in variables.items():
        array = arrays[name]
        if tuple(variable.shape) != array.shape:
            raise _foreign(path, f"{name} has shape {array.shape}; the model's has {tuple(variable.shape)}")
        with np.errstate(over="ignore"):  # of float64, what float32 cannot hold becomes infinite
            arrays[name] = array = array.astype("float32") if array.dtype.kind == "f" else array
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise CheckpointError(f"{path} is damaged: {name} contains values that are not finite; {advice}.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _kind(name: str) -> str:
    """A variable's name without the numbers that Keras gives to layers without one."""
    return re.sub(r"_?\d+", "", name)


def _foreign(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} does not belong to this model: {why}.")


# Cards ---------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: if it is not there or is none; it names the file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download the file again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not contain a JSON object; download the file again.")
    return content


def folder(recipe: Recipe, root: Path | None = None) -> Path:
    """The folder of a recipe's checkpoint: in `root`; by default in `FOLDER` for the course's recipes, in `OWN` for
    others, and for all where the library is installed and something was trained."""
    from course_lib.recipes import FOR_A_GPU, RECIPES

    if root is not None:
        return Path(root) / recipe.name
    named = (RECIPES | FOR_A_GPU).get(recipe.name)
    # By its content too: a folder or a changed copy that has the name of one must not take its place.
    course_s = named is not None and named.digest == recipe.digest
    course_s = course_s and (resources.CHECKOUT or not (OWN / recipe.name).is_dir())
    return (FOLDER if course_s else OWN) / recipe.name


def target(recipe: Recipe, root: Path | None = None) -> Path:
    """Where `save` writes the checkpoint of a recipe; never into an installed package."""
    return folder(recipe, root if root or resources.CHECKOUT else OWN)


def card(recipe: Recipe, root: Path | None = None) -> dict[str, Any]:
    """The card of a recipe's checkpoint.

    Raises:
        CheckpointError: if there is none, it is damaged, or the recipe has changed since it was trained.
    """
    path = folder(recipe, root) / "card.json"
    again = f"train it again: python -m course_lib train {recipe.name}"
    if not path.is_file():
        raise CheckpointError(
            f"{recipe.name} has no trained weights yet; train it: python -m course_lib train {recipe.name}"
        )
    content = read_json(path)
    for name, kind in CARD.items():
        if not isinstance(content.get(name), kind):
            raise CheckpointError(
                f"{path} is damaged: {name!r} is missing; download the file again, or {again}"
            )
    if content["digest"] != recipe.digest:
        raise CheckpointError(
            f"{recipe.name} has changed since its weights were trained (digest {recipe.digest}, card {content['digest']}); "
            f"{again}"
        )
    try:
        content["thresholds"] = recipe.task.complete(content["thresholds"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error} Download the file again, or {again}") from error
    return content


def is_missing(recipe: Recipe, root: Path | None = None) -> bool:
    """Whether there are no weights for the recipe in its present form."""
    try:
        card(recipe, root)
    except CheckpointError:
        return True
    return not (folder(recipe, root) / "weights.npz").is_file()


def load(recipe: Recipe, model: keras.Model, root: Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """Load a recipe's trained weights into a model, and return a line on their origin.

    Args:
        recipe: whose weights.
        model: as `recipe.model()` builds it.
        root: the folder of checkpoints; by default the course's.
        quiet: do not print the line that says where and how the weights were trained, and whether the data has changed
            since.

    Returns:
        The card, a dict; its `"history"` maps a quantity to its value after each epoch.

    Raises:
        CheckpointError: if there is no checkpoint, it is of another recipe, or damaged.
    """
    content = card(recipe, root)
    load_weights(model, folder(recipe, root) / "weights.npz", content["weights"])
    if not quiet:
        print(provenance(content))
        if changed := changed_data(recipe, content, recipe.data):
            print(changed)
    return content


def changed_data(recipe: Recipe, content: dict[str, Any], data: Callable) -> str:
    """A sentence if the training data on this machine differs from what the weights were trained on, else `""`.

    Args:
        recipe: whose card it is.
        content: the card.
        data: a function that opens a split.
    """
    if recipe.ships_data or "data" not in content:
        return ""  # the course's own sets are verified where they are read
    try:
        from course_lib.datasets.sample import fingerprint_of

        now = fingerprint_of(data("train"))
    except (
        OSError,
        ValueError,
        RuntimeError,
        AttributeError,
        TypeError,
    ):  # not here, or not readable: nothing can be said
        return ""
    if now == content["data"]:
        return ""
    return f"The training data of {recipe.name} has changed since these weights were trained; train again to learn from it."


def provenance(content: dict[str, Any]) -> str:
    """One line from a card: where and how the weights were trained."""
    return (
        f"Trained weights of {content['recipe']}: {content['epochs']} epochs in {content['seconds'] / 60:.0f} minutes on "
        f"{content['backend']} ({content['device']}), recipe {content['digest']}."
    )


def save(recipe: Recipe, model: keras.Model, content: dict[str, Any], root: Path | None = None) -> Path:
    """Write the weights and then the card, each atomically. Returns the folder."""
    place = target(recipe, root)
    sha256 = save_weights(model, place / "weights.npz")
    facts = {"recipe": recipe.name, "digest": recipe.digest, "weights": sha256, **content}
    write_json(place / "card.json", facts)
    return place
