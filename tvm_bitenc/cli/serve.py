"""``bitenc serve``: wait for `bitenc deploy`, on the device."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ..errors import BitencError


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines run code here.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 chooses a free one.")] = 9090,
    key: Annotated[str, typer.Option(help="What kind of device this is.")] = "",
    tracker: Annotated[str | None, typer.Option(help="HOST:PORT of a tracker.")] = None,
    public_host: Annotated[
        str | None, typer.Option(help="Address that the tracker gives to clients.")
    ] = None,
) -> None:
    """Let `bitenc deploy` run libraries on this machine. There are no passwords: trust the net."""
    from ..deploy.serve import Server

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = host_and_port(tracker) if tracker else None
    with Server(host, port, key, address, public_host) as server:
        print(f"bitenc serve: listening at {host}:{server.port}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("bitenc serve: ended")


def host_and_port(text: str) -> tuple[str, int]:
    """Split HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise BitencError(f"tracker {text!r}", "isn't HOST:PORT", "Write it as 192.168.1.2:9190")
    return host, int(port)
