"""The losses room: loss functions as plain torch code, with their sources.

It holds formulas only: no networks, no data, no files.
Read classification_and_metric.py first; heat_map.py holds the losses of the finder.
"""
