"""Reads the published fine-grained benchmarks: CUB-200-2011, Stanford Online Products and Stanford Cars.

Owns their tables and their published splits. Never downloads one.
"""
