"""Silhouettes: the shape of an object as 64x64 bits, and the re-ranking of gallery hits by shape.

This room owns the bits, their alignment and overlap, and the score that mixes overlap with cosine. It never runs a
model: the localiser that finds the mask is in `edge.inference.stages`. Without a rule in the bundle nothing here runs.

Read `silhouette` first, then `rerank`.
"""
