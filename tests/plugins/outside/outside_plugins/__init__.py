"""Plug-ins for taskgrid from outside."""
