"""Certificate authorities of one test, made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KINDS = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[member]
subjectAltName = IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_MAKE = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]


class Authority:
    """Signs certificates for 127.0.0.1; `certificate` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._kinds = folder / "kinds.cnf"
        self._kinds.write_text(_KINDS)
        self.certificate, self._key = self._make(name, "authority")

    def sign(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        return self._make(name, "member", "-CA", self.certificate, "-CAkey", self._key)

    def _make(self, name: str, kind: str, *signer: object) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files = ["-config", self._kinds, "-extensions", kind, "-out", certificate, "-keyout", key, *signer]
        subprocess.run([*_MAKE, "-subj", f"/CN={name}", *files], check=True, capture_output=True)
        return certificate, key
