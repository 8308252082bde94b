"""Options of TVM's passes, for as long as some of them run."""

from __future__ import annotations

import tvm


def with_options(options: dict[str, object]) -> tvm.transform.PassContext:
    """Return the current context with these options where it doesn't set them itself.

    It has no instruments of the current one: they would be entered twice.
    """
    current = tvm.transform.PassContext.current()
    return tvm.transform.PassContext(
        opt_level=current.opt_level,
        required_pass=current.required_pass,
        disabled_pass=current.disabled_pass,
        config={**options, **dict(current.config.items())},
    )
