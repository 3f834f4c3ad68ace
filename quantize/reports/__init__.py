"""What a bundle is and does, for people and for vendors' compilers: the report page and the kit.

Owns the fusion audit of each engine, the measurements on this machine, the page, and the kit folder. It reads finished
bundles. It never changes one, and never decides what ships: that is `quantize.build_network`.
"""
