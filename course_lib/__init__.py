"""The tested code behind the image segmentation course."""

__version__ = "0.1.0"
__all__ = ["load"]


def load(what, root=None):
    """A trained segmenter in one line: `course_lib.load("unet-nuclei").predict(image)`; see `course_lib.segmenter.load`."""
    from course_lib.segmenter import load

    return load(what, root)
