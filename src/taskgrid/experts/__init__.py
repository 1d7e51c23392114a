"""Ready-made experts: checkpoints that others fine-tuned, brought into this project's layout."""
