"""What ran on our side: the versions that a result depends on."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("seqstress", "locust", "gevent", "h2", "tritonclient", "protobuf", "numpy")


def client_versions() -> dict[str, str]:
    """Package -> installed version, with Python and the platform; what is not installed is left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
