"""Boxes of pictures: what people draw and correct, what models propose, and rounds of training on it."""
