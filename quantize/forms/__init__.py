"""The forms of a network that a bundle carries: one calibration, and a writer for each kind of engine.

Owns what a form computes. It never decides whether a form ships: that is `quantize.build_network`.
"""
