"""Configuration: the device's YAML file as typed, checked values.

This room owns the schema with its defaults, the messages about mistakes in the file, camera addresses, the last good
copy, and the plan of a reload. It never opens what it describes: no camera, broker or bundle.
Read schema.py first, then yaml_file.py.
"""
