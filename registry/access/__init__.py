"""Who may do what: roles, identities, tokens, and identities that others vouch for (OIDC)."""
