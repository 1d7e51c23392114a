"""Models of a hub: where they lie, what they declare, how their tensors are called."""
