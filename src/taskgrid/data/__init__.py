"""Tasks as data: where images come from, how they are decoded, prepared and split."""
