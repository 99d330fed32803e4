"""The developers' side: which images do files name, and what should they name instead."""
