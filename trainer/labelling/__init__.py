"""Semi-automatic labelling: propose boxes, import edited ones, train a detector on them, and propose again.

It never changes what a person confirmed, and never draws boxes in an editor of its own: people edit in other tools.
Read `command` first (one round), then `label_store` (what is kept on disk) and `auto_label` (who proposes).
"""
