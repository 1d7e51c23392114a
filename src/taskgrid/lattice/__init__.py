"""The lattice of task subsets: their names and numbers, points on them, designs, blocks."""
