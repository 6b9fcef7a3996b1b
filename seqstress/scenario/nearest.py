"""What a person probably meant by a name that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, if any is near, and all of them."""
    known = list(known)
    listing = f"Known: {', '.join(known)}" if known else "None are known here"
    near = get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}? {listing}" if near else listing
