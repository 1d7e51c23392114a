"""The owners' own file layouts of the literature's data sets, one reader each.

A reader is one module with `Settings`, a function ``read(root, settings, splits)`` and one line in
`taskgrid.plugins`. It decodes nothing: it lists images, and knows how to decode one of them.

Images stand in the order in which the papers' code reads them (torchvision's, or that of
``ImageFolder`` where the papers copied files into class folders), because the papers' permutation
cuts the validation images from that order.
"""
