"""Who is told what: events of the ledger → rules → outbox → delivery."""
