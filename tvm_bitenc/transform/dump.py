"""`Dump`: the module after every pass, as text in numbered files."""

from __future__ import annotations

from pathlib import Path

import tvm

from ..errors import BitencError


class Dump:
    """Called behind every pass; writes what it left as ``NN_name.py`` in TVMScript.

    Constants of weights are shown by name alone.

    Parameters
    ----------
    folder : path
        Made if it isn't there. Files of an earlier dump are replaced.

    Raises
    ------
    BitencError
        If the folder can't be written.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.count = Path(folder), 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cant_be_written(error) from None

    def __call__(self, name: str, mod: tvm.IRModule) -> None:
        """Write a module that the pass `name` made."""
        path = self.folder / f"{self.count:02d}_{name.removeprefix('bitenc.')}.py"
        self.count += 1
        try:
            path.write_text(mod.script(show_meta=False), encoding="utf-8")
        except OSError as error:
            raise self._cant_be_written(error) from None

    def _cant_be_written(self, error: OSError) -> BitencError:
        return BitencError(
            str(self.folder), f"can't be written ({error.strerror})", "Use another folder"
        )
