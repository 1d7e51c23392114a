"""What the workflow's rules and scripts ask of the library."""
