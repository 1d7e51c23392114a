"""Generators of the project's own documents: not part of the library."""
