"""Engines: several ways to the same digest."""
