"""Bundles: approved images as one OCI layout for networks without a way to the mirror."""
