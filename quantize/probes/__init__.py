"""The golden probes of a bundle: which pictures and scenes, and how they are packed."""
