"""Curates published galleries: browse, change, undo, publish."""
