"""Merging out of core: checkpoints larger than memory, windows of tensors, files that others load."""
