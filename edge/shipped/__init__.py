"""The files that come with the package: example configurations, systemd units and the demo.

Owns: where they lie after any kind of install, and copying them out. Never: reads what is in them. The folders are
links to those of the checkout; a wheel holds the files.
"""
