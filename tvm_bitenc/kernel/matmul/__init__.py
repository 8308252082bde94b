"""Products of two matrices of codes, both of them made at run time; `nest.py` has the loops."""
