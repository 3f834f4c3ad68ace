"""Gets the files of a repository: over HTTP or from a folder, resumable, limited in bytes, time and rate.

This room trusts nothing but a hash it is given, and decides nothing about releases.
"""
