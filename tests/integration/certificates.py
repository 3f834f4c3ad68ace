"""Certificate authorities for one test, created with the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

_EXTENSIONS = """\
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
_CREATE = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]


class Authority:
    """Signs certificates for 127.0.0.1; `certificate` is the authority's own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._config = folder / "extensions.cnf"
        self._config.write_text(_EXTENSIONS)
        self.certificate, self._key = self._create(name, "authority")

    def sign(self, name: str) -> tuple[Path, Path]:
        """Create a certificate and its key."""
        return self._create(name, "member", "-CA", self.certificate, "-CAkey", self._key)

    def _create(self, name: str, kind: str, *signer: object) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files = ["-config", self._config, "-extensions", kind, "-out", certificate, "-keyout", key, *signer]
        subprocess.run([*_CREATE, "-subj", f"/CN={name}", *files], check=True, capture_output=True)
        return certificate, key
