"""Signed repository of bundles and galleries, and the device agent that pulls from it."""
