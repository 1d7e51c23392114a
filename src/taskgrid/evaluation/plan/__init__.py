"""Plans: which points are measured, their keys, their rows, and what runs them."""
