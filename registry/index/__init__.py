"""The index: a rebuildable SQLite file that answers what is where, in milliseconds.

It holds nothing of its own: the registry's attestations are the truth, and `goldsmith reindex`
makes it anew from them. Image ↔ package and package ↔ vulnerability are stored, their product is
not.
"""
