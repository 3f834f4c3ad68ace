"""Rollouts in waves, on the server: plans, their gates, who approved them, and what moves them on.

Owns the rollouts document of a line and its audit log. Never talks to a device. Read `plans.py` first, then `gates.py`.
"""
