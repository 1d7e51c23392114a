"""Tangent models: the whole grid from one pass per task vector."""
