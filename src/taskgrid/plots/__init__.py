"""Figures: one style, one file per figure, drawn from tables alone.

A figure is a module with a constant ``CARD = FigureCard(...)``, written in literals, and a function
``draw(tables, sheet) -> Figure``. To add one, write the module and give it a line in the registry.
"""
