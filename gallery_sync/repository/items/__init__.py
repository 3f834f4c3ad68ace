"""Single items of a published gallery: list, add, rename, merge and delete them, from vectors or pictures.

Owns what a change of items is. Never signs: `gallery_sync.repository.publish` makes a release of it.
"""
