"""The policy: its engine, and one rule a file."""
