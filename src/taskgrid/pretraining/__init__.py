"""Contrastive pre-training of the built-in model: the corpus, the loop, and a linear probe."""
