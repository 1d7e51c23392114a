"""What each rule asks of an experiment, a file per stage: parameters as JSON text, files, plug-ins.

Functions take the experiment and the rule's wildcards as plain text, and return what the rule passes
on. A job runs again when the text of its settings changes, so that a settings function names all that
its output depends on, and nothing else.
"""
