"""The pages of `docs/reference/`, one kind a module; `docs/generate.py` writes them."""
