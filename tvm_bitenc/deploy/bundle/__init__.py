"""A compiled network as C: no heap, no TVM at run time.

::

    planned Relax  --plan.py-->     tensors, steps, offsets in one arena
                   --kernels.py-->  net_kernels.o, and the workspace that kernels need
                   --source.py-->   net.h, net.c, net_weights.bin, main.c, Makefile
"""

from .write import write_bundle

__all__ = ["write_bundle"]
