"""Where the server is and how to prove who is who: the target, TLS files and metadata, checked once at the start."""

import base64
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqstress.errors import InputError

_TARGET = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\s:/\[\]]+)):(?P<port>[0-9]{1,5})")
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How to speak TLS with the server; every file is PEM."""

    ca_file: Path | None = None
    """Whom to trust; None: what the system trusts."""
    cert_file: Path | None = None
    """Our own certificate chain, where the server asks for one (mTLS)."""
    key_file: Path | None = None
    server_name: str | None = None
    """The name in the server's certificate, if it is not the target's host."""
    verify: bool = True
    """False: take any certificate. The traffic is encrypted, but to whom is anybody's guess."""

    def context(self) -> ssl.SSLContext:
        """The client's context, with HTTP/2 as its only protocol. Raises InputError for unusable files."""
        if self.key_file and not self.cert_file:
            raise InputError(f"TLS: {self.key_file} is a key without a certificate: give the certificate too")
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise InputError(f"TLS: cannot use {files}: {error}. They must be readable PEM files") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, section 9.2
        context.set_alpn_protocols(["h2"])
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, target: str) -> "Endpoint":
        """From ``host:port`` or ``[v6]:port``. Raises InputError."""
        match = _TARGET.fullmatch(target)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise InputError(f"target {target!r} is not HOST:PORT. Give the server's gRPC port, as in 127.0.0.1:8001")
        return cls(match["v6"] or match["name"], int(match["port"]))


def metadata_headers(metadata: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """gRPC metadata as HTTP/2 headers: names in lower case, the values of ``-bin`` names in base64.

    Raises InputError for names and values that gRPC reserves or forbids.
    """
    headers = []
    for key, value in metadata:
        name = key.lower()
        if not _METADATA_KEY.fullmatch(name) or name.startswith("grpc-"):
            raise InputError(f"metadata {key!r}: names are letters, digits, '_', '-', '.', not grpc-*")
        if name.endswith("-bin"):
            value = base64.b64encode(value.encode()).decode().rstrip("=")
        elif not _METADATA_VALUE.fullmatch(value):
            raise InputError(f"metadata {key!r}: values are printable ASCII; name it {name}-bin for others")
        headers.append((name, value))
    return headers
