"""Rescan: what is served is compared with today's vulnerability database, all of it at once.

`union` scans every package of every image once, `inventory` knows who has which, `judging` decides,
`renewing` tells the registry, `run` is the order of it.
"""
