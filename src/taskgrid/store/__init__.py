"""Artefacts on disk: whole or absent, with their lineage inside."""
