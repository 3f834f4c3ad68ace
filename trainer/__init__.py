"""The trainer: server-side training of the networks that `edge` runs and `quantize` packs.

Rooms: data (read and check data sets), models, losses, loop, tasks (train each kind of network), evaluation, labelling,
pasting and synthetic (make training data). It never runs on the device, and `edge` never imports it.
Read cli.py first, then tasks/classifier.py.
"""
