"""Lattices on a budget: some merges measured, the others predicted, the error stated."""
