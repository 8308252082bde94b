"""``python -m tvm_bitenc.deploy.seal net.so net.json``: make a library linked by hand loadable."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ..decode import Source
from ..errors import BitencError, LibraryError
from ..files import written_whole
from .description import Description
from .sealed import seal


def main(arguments: list[str]) -> None:
    """Append the description to the library."""
    if len(arguments) != 2:
        sys.exit("usage: python -m tvm_bitenc.deploy.seal LIBRARY DESCRIPTION")
    library, description = map(Path, arguments)
    source = Source(str(description), "Export again", LibraryError)
    content = source.read(description)
    source.json(content, Description)
    with written_whole(library, LibraryError) as temporary:
        try:
            shutil.copy(library, temporary)
        except OSError as error:
            raise LibraryError(
                str(library), f"can't be read ({error.strerror})", "Check the path"
            ) from None
        seal(temporary, json.loads(content))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BitencError as error:
        sys.exit(f"bitenc: {error}")
