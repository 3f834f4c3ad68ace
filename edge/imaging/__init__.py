"""Imaging: work on single pictures and masks.

This room owns decoding, encoding, cropping, resizing and drawing, and the headers of uploaded pictures. It never opens
a camera or runs a model.
Read image.py first: it is the only user of OpenCV for stills.
"""
