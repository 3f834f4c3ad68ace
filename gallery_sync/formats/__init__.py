"""The signed JSON documents of a repository and the paths of its files.

This room reads and writes no file and checks no signature: it turns bytes into frozen values, with limits.
"""
