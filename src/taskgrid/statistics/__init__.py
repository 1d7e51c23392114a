"""Statistics of data that merge methods or modes need beside weights. One file per statistic."""
