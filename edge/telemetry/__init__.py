"""What the runtime counts, measures and says about itself: counters, stage times, memory, the watchdog, the log.

Owns the counters and their help texts, the stage timers, the health report, and the secrets that no text may show.
Never publishes them, and imports no other room.
Read `counters.py` first.
"""
