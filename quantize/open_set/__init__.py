"""Open-set rules: when the nearest item is accepted, fitted on pictures whose items are left out of the gallery.

This room owns the scores of held-out and gallery pictures, the rounds that leave items out, the curves and thresholds
fitted on them, and what a person reads about them. It never writes a bundle.

Read `leave_items_out` first, then `fit_thresholds`.
"""
