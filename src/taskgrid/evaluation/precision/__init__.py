"""A reduced precision, proven against fp32 before anything is evaluated in it."""
