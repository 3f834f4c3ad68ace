"""Reads and writes COCO JSON, reads its folders and the Retail Product Checkout set.

Owns the JSON, its masks and which of several files counts. Read `dataset_formats.coco.reader` first.
"""
