"""Tuned records: their file format, the keys of layers and devices, and the look-up.

They stand below the passes, so that `transform.strategy` writes what they say into the module.
"""
