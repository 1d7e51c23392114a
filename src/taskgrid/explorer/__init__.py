"""The explorer: one page, without a server or a network, in which a finished grid is looked at by hand."""
