"""Publishes bundles and galleries in a repository folder, and pulls them to a device.

Owns the repository format, the download of objects, and the staging of a release on a device.
Never trains, packs or embeds, and never changes the active bundle and gallery: `edge.bundle.slots.activate` does.
Read `gallery_sync.repository.folder` first: it describes the files of a repository; then `gallery_sync.device.pull`.
"""
