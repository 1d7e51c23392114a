"""Fine-tuning modes: which parameters train, and how the result becomes an image tower."""
