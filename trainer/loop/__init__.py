"""The training loop room: epochs, optimiser, checkpoints, learning-rate schedule, early stopping, history.

It trains any object with the methods of `Task`. It never knows what kind of network it trains (see trainer.tasks).
Read training_loop.py first.
"""
