"""The one place that imports k2, with an error that says where it comes from, and the tests for
its features.

k2 1.23.4 and 1.24.4 (whose development wheels all report the same version) differ in the API of
online intersection; features are tested, versions never.
"""

import inspect
from typing import Any

try:
    import k2
except ImportError as error:
    raise ImportError(
        "dualasr_lib.lattice needs k2, which cannot be imported here "
        f"({error}); `tools/setup.sh` installs it, and `--method greedy` decodes without it"
    ) from error

__all__ = ["k2", "new_stream_state", "supported"]


def new_stream_state(module: Any = k2) -> Any:
    """What marks a new stream for `OnlineDenseIntersecter.decode`: an empty state (k2 >= 1.24.4)
    or None (before).
    """
    state_class = getattr(module, "DecodeStateInfo", None)
    try:
        return state_class() if state_class is not None else None
    except TypeError:  # 1.23.4: "No constructor defined!"
        return None


def supported(function: Any, **options: Any) -> dict[str, Any]:
    """The `options` that `function` of the installed k2 knows."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}
