"""Imports: a foreign image on its way through quarantine into the mirror."""
