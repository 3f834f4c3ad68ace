"""Reads the published fine-grained benchmarks: CUB-200-2011, Stanford Cars, Dogs and Online Products, and others.

The others are FGVC-Aircraft, Oxford Flowers-102 and Pets, and the vehicles of VeRi-776 and VehicleID.

Owns their tables and their published splits. Never downloads one.
"""
