"""Pasting of finesight."""
