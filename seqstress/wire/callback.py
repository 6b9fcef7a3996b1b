"""Calling those who own streams: their bugs must not break the connection that carries all the others."""

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def guarded(callback: Callable[..., None], *args: object) -> None:
    """Tell a listener. It must not raise; if it does, that is a bug, and none of the other calls' business."""
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 - recorded at the root of what it may break
        _log.exception("a listener of the wire failed")
