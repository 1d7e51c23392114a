"""The engine: weights in place, images and heads on the device, one pass per image."""
