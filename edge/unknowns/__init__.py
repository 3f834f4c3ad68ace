"""Keeps pictures of objects that the device could not name, bounded, until a server has them for review.

Never waits on the frame path, and never decides what an object is.
"""
