"""Which Goldsmith this is."""

from __future__ import annotations


def version() -> str:
    """The version of the installed tool; "unpackaged" when it runs from a plain folder."""
    # Here and not above: start-up time counts, and few commands ask.
    from importlib import metadata

    try:
        return metadata.version("goldsmith")
    except metadata.PackageNotFoundError:
        return "unpackaged"
