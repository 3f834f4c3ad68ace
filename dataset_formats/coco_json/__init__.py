"""Room of COCO's own rules: what a JSON says, where its pictures are, and which files describe the same pictures.

It never reads or writes a file; `dataset_formats.coco`, its only user, does.
"""
