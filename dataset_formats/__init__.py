"""Reads and writes data sets: pictures, boxes and classes in the formats that other tools use.

Owns one reader for each format, and the writers of annotations. Every reader reports what it read, what it left out
and what deserves a look; one bad record never spoils the rest. Never trains, never splits again, never downloads.
Read `dataset_formats.layouts` first: it detects the layout of a data set and calls the reader.
"""
