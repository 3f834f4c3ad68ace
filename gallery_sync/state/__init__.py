"""How the update agent and its helpers keep files in the state folder of a device: databases and small documents.

Owns durable writing, and what happens to a damaged file. Knows nothing of what the files mean.
"""
