"""The report: one page that begins with the result, and needs nothing but itself.

``headline`` is the result, ``sheets`` makes tables readable, ``page`` puts figures and tables together;
what the page looks like stands in ``resources/report``.
"""
