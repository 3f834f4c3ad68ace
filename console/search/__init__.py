"""Looks pictures up: what they show, the nearest items, and where an object is in a scene."""
