"""Passes over Relax, one per file, in the order of `pipeline`.

After every pass the module still runs and gives the same answer.
"""

from .canonicalize import quantizer_spelling
from .pipeline import Pipeline, default_pipeline, no_lowering

__all__ = ["Pipeline", "default_pipeline", "no_lowering", "quantizer_spelling"]
