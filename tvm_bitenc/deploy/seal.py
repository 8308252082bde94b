"""``python -m tvm_bitenc.deploy.seal net.so net.json``: make a library linked by hand loadable."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ..errors import BitencError, LibraryError
from ..files import written_whole
from .library import seal


def main(arguments: list[str]) -> None:
    """Append the description to the library."""
    if len(arguments) != 2:
        sys.exit("usage: python -m tvm_bitenc.deploy.seal LIBRARY DESCRIPTION")
    library, description = map(Path, arguments)
    try:
        content = json.loads(description.read_text(encoding="utf-8"))
        with written_whole(library, LibraryError) as temporary:
            shutil.copy(library, temporary)
            seal(temporary, content)
    except (OSError, ValueError) as error:
        if isinstance(error, BitencError):
            raise
        raise LibraryError(str(description), f"can't be read ({error})", "Export again") from None


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BitencError as error:
        sys.exit(f"bitenc: {error}")
