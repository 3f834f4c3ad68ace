"""Reads and writes Pascal VOC: an XML file for each picture.

Owns the records, the folders and the lists of splits. Read `dataset_formats.voc.reader` first.
"""
