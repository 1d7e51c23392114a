"""What merge methods share: sums, folds over tasks, factors per task."""
