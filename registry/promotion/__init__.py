"""Promotion: channels, the signed records of them, and what a decision demands and does."""
