"""The models room: the networks, the trunks they share, and the model card that is saved with the weights.

It builds, saves and loads networks. It never reads training data and never trains.
Names of parameters are the keys of saved weights: renaming one breaks every run on disk.
Read networks.py first.
"""
