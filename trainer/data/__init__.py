"""Training data: readers of every supported layout, splits, decoding, augmentation, batches and the data card.

It never trains or evaluates a model, and never downloads anything. Read `formats` first (which layout a folder has and
which module reads it), then `dataset` (what training takes from a listing) and `pictures` (loading into memory).
"""
