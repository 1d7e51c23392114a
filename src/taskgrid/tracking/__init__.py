"""Experiment tracking: run records, and the registry that is written from them."""
