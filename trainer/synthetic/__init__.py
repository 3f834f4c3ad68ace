"""A seeded synthetic world: objects, scenes, catalogue pictures and a moving-camera stream with exact ground truth.

The same seed gives the same bytes, so the order of random draws and the arithmetic never change. It never reads real
data and never trains. Read `write_dataset` first (what is written), then `scene`, `render` and `items`.
"""
