"""Losses of finesight."""
