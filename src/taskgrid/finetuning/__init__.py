"""Fine-tuning an image encoder on one task under a frozen head."""
