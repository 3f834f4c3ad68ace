"""The typed tree of `bundle.json`: what a bundle holds, and everything that its models need.

Owns the format and its bounds. Opens no file: `edge.bundle` does.
"""
