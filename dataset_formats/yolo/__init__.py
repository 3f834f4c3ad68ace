"""Reads and writes YOLO: a text file for each picture.

Owns the descriptions of sets (data.yaml, obj.data), where pictures and text files are, and the forms of a line. Read
`dataset_formats.yolo.reader` first.
"""
