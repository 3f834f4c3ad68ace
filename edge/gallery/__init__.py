"""Galleries: the stored vectors, labels and thumbnails of known items, and the search for the nearest of them.

This room owns the store file of a category, the folder of a generation and the search indexes. It never runs a model
and never decides whether a hit is accepted.

Read `store` first, then `search`.
"""
