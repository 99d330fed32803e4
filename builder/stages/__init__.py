"""The stages, one a file, in the order that `pipeline.py` knows."""
