"""What people with keys do: make a repository, sign in turns, replace keys, and recover after a disaster.

Signs through `gallery_sync.repository.metadata`. Never publishes a bundle or a gallery.
"""
