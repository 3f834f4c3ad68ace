"""A pytest plug-in that makes the conformance suite wait without a busy loop, and make its RSA keys faster."""

from __future__ import annotations

from functools import partial

from securesystemslib.signer import CryptoSigner

_POLL_S = 0.002
_RSA_BITS = 2048  # the suite makes 28 keys before its first case


def pytest_configure() -> None:
    CryptoSigner.generate_rsa = partial(CryptoSigner.generate_rsa, size=_RSA_BITS)
    from tuf_conformance._internal import simulator_server

    for kind in (simulator_server.SimulatorServer, simulator_server.StaticServer):
        kind.timeout = property(lambda _: _POLL_S, lambda *_: None)
