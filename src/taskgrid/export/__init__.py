"""Grid points as files that other programs load."""
