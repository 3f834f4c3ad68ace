"""The paths of the files of a repository that devices read: an archive or artifact of one may hold these alone."""

from __future__ import annotations

import re

TIMESTAMP = "metadata/timestamp.json"
_PATHS = re.compile(
    r"repository\.json|metadata/(?:timestamp|[0-9]{1,10}\.(?:root|snapshot|targets|models|gallery|rollout))\.json"
    r"|targets/(?:models|gallery|rollout)/[A-Za-z0-9._~/-]{1,300}\.json|objects/[0-9a-f]{2}/[0-9a-f]{64}"
)


def is_repository_path(path: str) -> bool:
    """Return whether a file of a repository that devices read may have this path; it never leads out of a folder."""
    return _PATHS.fullmatch(path) is not None and not any(part in ("", ".", "..") for part in path.split("/"))
