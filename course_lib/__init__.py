"""The tested code behind the image segmentation course."""

import importlib.util
import json
import os
from pathlib import Path

__version__ = "0.1.0"
__all__ = ["load"]


def load(what, root=None):
    """A trained segmenter in one line: `course_lib.load("unet-nuclei").predict(image)`; see `course_lib.segmenter.load`."""
    from course_lib.segmenter import load

    return load(what, root)


def _choose_backend():
    """Let Keras use a backend that is here. It asks for TensorFlow unless it is told; a reader may have JAX alone."""
    if "KERAS_BACKEND" in os.environ:
        return
    settings = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "keras.json"
    try:
        wanted = json.loads(settings.read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        wanted = "tensorflow"
    wanted = wanted if isinstance(wanted, str) and wanted.isidentifier() else "tensorflow"
    here = [name for name in (wanted, "tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    # Keras writes its settings by itself at the first import: they name what nobody chose.
    if here and here[0] != wanted:
        os.environ["KERAS_BACKEND"] = here[0]


_choose_backend()
