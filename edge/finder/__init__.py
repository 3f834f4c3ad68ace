"""The finder: finds the object of query pictures in a scene, whatever it is, without a detector.

This room owns the trunk, the correlation and the verification of found parts. It never names an object.

From outside, use `finder` (load and run one), `taught_search` (search for taught items in camera frames) and
`find_in_file` (search a file) only; the rest is internal, except that the trainer shares the arithmetic. Read `finder`
first.
"""
