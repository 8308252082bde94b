"""What each layer becomes, and why one stays float; read off the module, without compiling."""

from .observer import Observer, explain

__all__ = ["Observer", "explain"]
