"""Imaging of finesight."""
