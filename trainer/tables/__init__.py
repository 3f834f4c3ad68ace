"""The tables of the published sources, each by its own protocol: `edge-train table NAME`.

Owns what a table measures, and how its rows become a mean and an interval over seeds. Never trains or measures by
itself: the tasks train, `trainer.metrics` measures. Read `table.py` first, then `fill.py`; each other module is one
table or a few of one source, and `every_table.py` lists them.
"""
