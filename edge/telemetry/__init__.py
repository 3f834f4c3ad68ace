"""What the runtime counts and measures about itself: counters, stage times, memory, temperature, the watchdog.

Owns the counters and their help texts, the stage timers and the health report.
Never publishes them, and imports no other room.
Read `counters.py` first.
"""
