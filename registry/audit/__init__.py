"""The audit: an append-only, hash-chained, signed ledger of what people and jobs decided."""
