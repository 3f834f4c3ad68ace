"""The server of a fleet: collects what devices report, wakes them, gives turns, and answers operators over HTTP.

Owns the database of reports and the audit of commands. Has no signing key, and takes no report for more than a claim.
"""
