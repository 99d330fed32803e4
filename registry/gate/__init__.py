"""The gate: the read-only public face of the mirror. It serves what is approved, and nothing else."""
