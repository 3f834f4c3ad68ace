"""Decides whether a page of another server sent a request that changes something.

Rules this module keeps:
1. A browser sends a cookie with what other pages send, too; so a request with one must prove where it comes from, by
   Origin or Sec-Fetch-Site. One that carries a token proves itself: other pages cannot know it.
2. What is named must be right: a wrong Origin, `null` included, is refused whatever else the request carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_OWN_SITES = ("same-origin", "none")  # none: somebody typed the address


def is_foreign(headers: Mapping[str, str], schemes: Iterable[str], *, has_cookie: bool) -> bool:
    """Return whether a request that changes something must be refused.

    Args:
        headers: by lower-case name.
        schemes: by which this server is reached: http or https.
        has_cookie: whether the request would be allowed by its cookie.
    """
    origin, site, host = headers.get("origin"), headers.get("sec-fetch-site"), headers.get("host", "")
    if origin is not None and (not host or origin.lower() not in {f"{one}://{host}".lower() for one in schemes}):
        return True
    if site is not None and site not in _OWN_SITES:
        return True
    return has_cookie and origin is None and site is None
