"""Sweeps over lambda of which most points are interpolated, with a bound."""
