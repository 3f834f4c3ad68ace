"""From networks to the folder of a bundle: which models and spaces it keeps from an older one, its rules and its files.

This room owns `bundle.json`, the declaration that a new bundle can search older galleries, and the weight of
silhouettes.
It makes no form of a network and fits no threshold: it calls the rooms that do.

Read `pack` first: it lists the steps.
"""
