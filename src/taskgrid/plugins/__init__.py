"""Plug-ins: the registry, their cards, their options, and the files shipped beside them."""

from taskgrid.plugins.registry import Kind, load, module_of, names

__all__ = ["Kind", "load", "module_of", "names"]
