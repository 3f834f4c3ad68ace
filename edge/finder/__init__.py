"""Finder of finesight."""
