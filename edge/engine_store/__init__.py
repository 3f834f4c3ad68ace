"""Which engines are in memory: loaded when they are needed, within a budget.

Owns: the budget, the order in which engines are closed, the measuring of memory. Never: reads a model or a picture.
"""
