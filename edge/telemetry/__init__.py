"""What the runtime counts and measures about itself: counters, stage times, memory, temperature, watchdog.

Owns the health report, its counters and the stage timers.
Never publishes or serves them, and imports no other room.
Read `metrics.py` first.
"""
