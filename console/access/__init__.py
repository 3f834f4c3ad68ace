"""Who may do what: users and their roles, sessions, tokens, limits on log-in attempts, and the audit log."""
