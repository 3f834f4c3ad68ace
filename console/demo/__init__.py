"""Builds the folder of `edge-console demo` from the shipped bundle, gallery and video. Not for production."""
