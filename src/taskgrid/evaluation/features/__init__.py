"""A look inside networks: what task vectors and merges do to features, layer by layer."""
