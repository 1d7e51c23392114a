"""Aligners that show what they were shown."""
