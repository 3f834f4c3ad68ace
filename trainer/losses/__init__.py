"""The losses room: loss functions as plain torch code, with their sources.

It holds formulas only: no networks, no data, no files.
Read embedding_losses.py first; metric_losses.py holds the other losses of embedders, detector_losses.py and
finder_losses.py those of detector and finder.
"""
