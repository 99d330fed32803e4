"""Goldsmith's registry side: the storage behind the mirror, and what will serve it."""
