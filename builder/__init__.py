"""Goldsmith's builder: from a definition to a signed, published golden image."""
