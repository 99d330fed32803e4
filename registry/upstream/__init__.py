"""What an import reads: registries, OCI layouts and docker archives that nobody here made."""
