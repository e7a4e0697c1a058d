"""What comes with a model in a bundle, tuned or fitted for one search: is it for this search?"""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["serves"]

_NOT_ASKED = {"model", "weights", "valid"}  # a bundle has one model; its split `valid` is elsewhere


def serves(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all was the same, of which both sides speak, when it was `made` as is `wanted` now: a
    newer version of the program may know more options.
    """
    plain = json.loads(json.dumps(dict(wanted)))
    return all(plain[name] == made[name] for name in (plain.keys() & made.keys()) - _NOT_ASKED)
