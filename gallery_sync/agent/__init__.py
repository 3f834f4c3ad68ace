"""The update agent: when to look for a release, prove it, switch to it, and confirm it or go back.

Decisions are pure functions of a journal and of what was observed; the rooms below do the work.
"""
