"""TE compute definitions: the meaning of every kernel, before any schedule."""
