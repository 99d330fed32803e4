"""Frozen types, without input or output."""
