"""Reads and writes tasks of Label Studio.

Owns the forms of an export and the shapes in it. Read `dataset_formats.label_studio.reader` first.
"""
