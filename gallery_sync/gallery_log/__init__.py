"""The gallery of a category as a log: bases, segments of changed items, and the root hash of the live items.

Server and device share this room. It reads and writes stores and segments; it signs nothing and downloads nothing.
"""
