"""Imaging: work on single pictures and masks.

This room owns decoding, encoding, cropping, resizing and drawing, the headers of uploaded pictures, and silhouettes. It
never opens a camera and knows no model.
Read image.py first: it is the only user of OpenCV for stills.
"""
