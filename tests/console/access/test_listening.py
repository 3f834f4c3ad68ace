"""What a console needs before it may listen."""

from __future__ import annotations

import pytest

from console.access.listening import decide_access
from edge.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_opens_with_the_printed_token_until_there_are_users(host):
    assert decide_access(host, users=0, has_tls=False, proxy_https=False) == "token"
    assert decide_access(host, users=1, has_tls=False, proxy_https=False) == "login"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "console.example"])
def test_other_addresses_need_a_user_and_tls(host):
    for tls, proxy in ((True, False), (False, True)):
        assert decide_access(host, users=1, has_tls=tls, proxy_https=proxy) == "login"
        with pytest.raises(ConfigError, match="needs a user: `edge-console user add"):
            decide_access(host, users=0, has_tls=tls, proxy_https=proxy)
    with pytest.raises(ConfigError, match="needs TLS: --tls-certificate"):
        decide_access(host, users=1, has_tls=False, proxy_https=False)
    with pytest.raises(ConfigError, match=r"needs a user: .*; and TLS: "):
        decide_access(host, users=0, has_tls=False, proxy_https=False)


def test_proxy_on_loopback_needs_a_user():
    with pytest.raises(ConfigError, match="a proxy opens it to others, so the console needs a user"):
        decide_access("127.0.0.1", users=0, has_tls=False, proxy_https=True)
    assert decide_access("127.0.0.1", users=1, has_tls=False, proxy_https=True) == "login"
