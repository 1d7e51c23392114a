"""Task sources: where the images, labels and class names of a task come from.

A source is one module with a function ``open_task(task) -> Source`` and one line in
`taskgrid.plugins`.
"""
