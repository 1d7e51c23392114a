"""The literature's data sets: what they are called, how many images they have, where they lie."""
