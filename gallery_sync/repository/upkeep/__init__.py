"""Keeps a repository sound: checks it to the last byte, deletes what nobody needs, and takes over unsigned ones.

It publishes nothing new: that is the room around it, which never imports this one but for the command line.
"""
