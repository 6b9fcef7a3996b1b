"""Where the wheels of nvidia-pytriton, and so the embedded server, can run at all."""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

GLIBC = (2, 35)
"""The wheels of nvidia-pytriton are tagged manylinux_2_35."""
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps the embedded server from running here."""

    subject: str
    """A word for tables, e.g. ``glibc``."""
    sentence: str
    """What is wrong, why it matters and what to do."""


def platform_problems() -> Iterator[Problem]:
    """Operating system, processor, C library and Python, as far as wheels care."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        yield Problem(
            "platform",
            f"nvidia-pytriton has wheels for Linux on {' and '.join(MACHINES)} only, this is {sys.platform}"
            f" on {platform.machine()}: run the server elsewhere and give its --url",
        )
        return
    name, version = platform.libc_ver()
    if name != "glibc" or version_numbers(version) < GLIBC:
        needed = ".".join(map(str, GLIBC))
        yield Problem(
            "glibc",
            f"the server needs glibc {needed} or newer, this machine has"
            f" {f'{name} {version}'.strip() or 'another'}: use Debian 12, Ubuntu 22.04 or newer",
        )
    if not (3, 8) <= sys.version_info[:2] < (3, 13):
        yield Problem(
            "python",
            f"the server's model stubs need numpy<2, which has no wheel for Python"
            f" {platform.python_version()}: use 3.11 or 3.12 for the embedded server,"
            " or give a server's --url",
        )


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison; empty where there are none."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
