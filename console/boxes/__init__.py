"""Boxes of objects: proposed, corrected by people, and used to train the next proposals."""
