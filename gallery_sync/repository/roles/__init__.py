"""The signed metadata of each role: read and verified, changed, carried as a draft, signed, and written in order.

`gallery_sync.repository.metadata` is the way in for whoever changes a repository. Knows no bundle and no gallery.
"""
