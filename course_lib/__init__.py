"""The tested code behind the image segmentation course."""

__version__ = "0.1.0"
