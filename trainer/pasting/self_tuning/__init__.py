"""Self-tuning: train a detector, cut new objects out with it, paste them into scenes, and train again.

Only the command line imports this room, so it can be dropped as a whole. It never labels pictures and never changes the
cut-outs that it is given. Read `rounds` first, then `agreement`, which decides what is kept.
"""
