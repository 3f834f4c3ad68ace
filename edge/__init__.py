"""The device: frames in, identified objects out."""

__version__ = "0.1.0"
