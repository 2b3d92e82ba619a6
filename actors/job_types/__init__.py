"""The built-in job types: one module each, found by its name and listed nowhere.

A module declares one type with ``JOB_TYPES.add``. Its name is that of the type, with ``_`` for ``.`` and
``-``. The actor is in the same module, or, if it needs more than a few milliseconds of imports, in one that
the declaration names: commands that only submit a job import the declaration of its type and nothing else.
"""
