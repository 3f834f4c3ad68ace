"""Routes of accounts: log-in, users, sessions, tokens, the audit log: pages, and the API that they use."""
