"""Modules whose scales follow from what they train."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self  # Of typing itself from Python 3.11 on.


class ScaledModule(nn.Module):
    """A module that brings its scales up to date on leaving training; a mixin in front of others.

    In eval mode they are constants, so that the compiler finds them as such.
    """

    @abstractmethod
    def update_scales(self) -> None:
        """Recompute what follows from the parameters."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode; on leaving training, bring the scales up to date."""
        if self.training and not mode:
            self.update_scales()
        return super().train(mode)
