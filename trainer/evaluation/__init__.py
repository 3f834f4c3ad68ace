"""The evaluation room: `edge-train evaluate`, which measures models and bundles on held-out pictures.

It owns the chains of models under test, open-set and checkout measures, and the reports. It never trains or
changes a model. Pure measures that training needs, too, are in trainer.metrics.
Read evaluate_models.py first.
"""
