"""OCI: layouts, manifests, archives, and the one client that talks to registries."""
