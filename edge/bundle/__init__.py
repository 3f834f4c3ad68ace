"""Model bundles on a device: verification, the two slots, and the pointer to the active bundle and gallery.

This room owns the folders `slots/` and `gallery/` and the files `current` and `staged` in the state directory. It never
processes frames and never downloads anything.

Read `slots` first, then `pairs` (what a device could serve) and `prove`.
"""
