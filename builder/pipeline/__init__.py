"""The order of the stages; only this package knows it.

    define → lock → render → build (fetch, unpack, engine, normalise, finish)
           → check, scan, lint → judge → sign → publish

`prepare` decides what would be built, `build` builds it, `release` takes it to the registry,
and `run` does all of it for several images. Each step is keyed by the content of its inputs:
what was done before is reused, and an input that did not change makes no new digest, no new
tag and no noise.
"""
