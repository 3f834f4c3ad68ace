"""Reads what devices upload, taught items and unknown objects, and turns it into pictures of items for a gallery.

Trusts nothing that a device sends. An operator decides; nothing here trains or publishes.
"""
