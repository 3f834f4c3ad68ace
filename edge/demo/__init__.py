"""The demo: a recorded stream, an embedded broker, a subscriber, and the score of what it received.

Owns the demo's device, its ground truth and its contact sheet.
Never runs on a production device. Benchmarks and tests use `subscriber.py`, too.
Read `demo.py` first.
"""
