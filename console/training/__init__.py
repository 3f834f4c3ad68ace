"""Runs training, evaluation and packing as child processes, and shows what they do."""
