"""taskgrid: task arithmetic on CLIP over the whole grid of task subsets and scaling coefficients."""

__version__ = "0.1.0"
