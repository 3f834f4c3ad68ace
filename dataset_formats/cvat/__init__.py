"""Reads and writes CVAT XML 1.1, for images and videos.

Owns shapes and tracks. Read `dataset_formats.cvat.reader` first.
"""
