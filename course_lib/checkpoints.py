"""Trained weights with a card that says where they come from.

A checkpoint is a folder `data/checkpoints/<recipe>/`: `weights.npz`, one array per variable, kernels in float16 (half
the size, and the metrics are measured after rounding), and `card.json`.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib import resources
from course_lib.recipes import Recipe

if TYPE_CHECKING:
    import keras

FOLDER = resources.DATA / "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, or is not one for this recipe."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks sees the old one or the whole new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """`content` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def rounded(array: np.ndarray) -> np.ndarray:
    """What is kept of a variable: kernels in float16; vectors stay float32, they are few and variances may be tiny."""
    array = np.asarray(array)
    return array.astype(np.float16) if array.ndim > 1 else array.astype(np.float32)


def _variables(model: keras.Model) -> dict[str, Any]:
    # A seed generator's state is no weight.
    return {variable.path: variable for variable in model.variables if "seed_generator" not in variable.path}


def save_weights(model: keras.Model, path: Path) -> None:
    """The weights of a model, rounded (see `rounded`), as an `.npz` whose bytes depend on the weights alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, variable in sorted(_variables(model).items()):
            array = io.BytesIO()
            np.save(array, rounded(keras_numpy(variable)))
            # A fixed date: the same weights give the same file.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), array.getvalue())
    write_atomically(path, buffer.getvalue())


def keras_numpy(variable) -> np.ndarray:
    """A Keras variable as a NumPy array."""
    import keras

    return keras.ops.convert_to_numpy(variable)


def load_weights(model: keras.Model, path: Path) -> None:
    """Put the weights of `save_weights` into a model.

    Raises:
        CheckpointError: if the file is not readable, or names or shapes differ; the model is left as it was.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path.name} cannot be read ({error}); get the file again, or train the recipe."
        ) from error
    variables = _variables(model)
    if missing := sorted(set(variables) ^ set(arrays)):
        raise CheckpointError(
            f"{path.name} does not belong to this model: {len(missing)} variables differ, the first is {missing[0]!r}."
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise CheckpointError(
                f"{path.name} does not belong to this model: {name} has shape {arrays[name].shape}, "
                f"the model's {tuple(variable.shape)}."
            )
    for name, variable in variables.items():
        variable.assign(arrays[name].astype("float32"))


def folder(recipe: Recipe, root: Path | None = None) -> Path:
    """Where the checkpoint of a recipe lies."""
    return (root or FOLDER) / recipe.name


def card(recipe: Recipe, root: Path | None = None) -> dict[str, Any]:
    """The card of a recipe's checkpoint.

    Raises:
        CheckpointError: if there is none, or the recipe has changed since it was trained.
    """
    path = folder(recipe, root) / "card.json"
    if not path.is_file():
        raise CheckpointError(
            f"{recipe.name} has no trained weights here; train it: python -m course_lib train {recipe.name}"
        )
    content = json.loads(path.read_text(encoding="utf8"))
    if content["digest"] != recipe.digest:
        raise CheckpointError(
            f"{recipe.name} has changed since its weights were trained (digest {recipe.digest}, card {content['digest']}); "
            f"train it again: python -m course_lib train {recipe.name}"
        )
    return content


def is_missing(recipe: Recipe, root: Path | None = None) -> bool:
    """Whether a recipe has no weights here that belong to it as it now is."""
    try:
        card(recipe, root)
    except CheckpointError:
        return True
    return not (folder(recipe, root) / "weights.npz").is_file()


def load(recipe: Recipe, model: keras.Model, root: Path | None = None, quiet: bool = False) -> dict[str, Any]:
    """Put a recipe's trained weights into a model, and say where they come from.

    Args:
        recipe: whose weights.
        model: as `recipe.model()` builds it.
        root: the folder of checkpoints; by default the course's.
        quiet: do not print the line that says where and how the weights were trained.

    Returns:
        The card, a dict; its `"history"` maps a quantity to its value after each epoch.

    Raises:
        CheckpointError: if there is no checkpoint, it is of another recipe, or damaged.
    """
    content = card(recipe, root)
    load_weights(model, folder(recipe, root) / "weights.npz")
    if not quiet:
        print(provenance(content))
    return content


def provenance(content: dict[str, Any]) -> str:
    """One line from a card: where and how the weights were trained."""
    return (
        f"Trained weights of {content['recipe']}: {content['epochs']} epochs in {content['seconds'] / 60:.0f} minutes on "
        f"{content['backend']} ({content['device']}), recipe {content['digest']}."
    )


def save(recipe: Recipe, model: keras.Model, content: dict[str, Any], root: Path | None = None) -> Path:
    """Write the weights and then the card, each atomically. Returns the folder."""
    place = folder(recipe, root)
    save_weights(model, place / "weights.npz")
    write_json(place / "card.json", {"recipe": recipe.name, "digest": recipe.digest, **content})
    return place
