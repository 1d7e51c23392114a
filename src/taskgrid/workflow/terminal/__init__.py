"""What a person sees of a run in a terminal or a log: what it will take, how far it is, what came of it."""
