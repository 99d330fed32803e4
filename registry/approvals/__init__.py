"""Approvals: which changes need whose, and how one is given, stored and read."""
