"""Keys, statements, the formats of cosign, and their verification."""
