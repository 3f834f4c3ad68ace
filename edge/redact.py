"""Hide what looks like a secret in any text that leaves the process: log lines, errors, health, support archives.

Rules:
1. What is not known to be harmless is hidden. In an address this is the user-info, each value whose key is not in
   `_HARMLESS_KEYS`, and each part of the path that looks random. In a pipeline it is each property that is not in
   `_HARMLESS_PROPERTIES`.
2. An address need not parse: `rtsp:/admin:pw@host`, `rtsp://admin:pw/host` and `admin:pw@host` are hidden, too.
3. In other text, a value is hidden if its key names a secret: `password=x`, `Authorization: Bearer x`.
4. Redacting twice gives the same as redacting once.

`edge.known_secrets` removes the exact values of the configuration as well.
"""

from __future__ import annotations

import ipaddress
import re
from itertools import pairwise
from urllib.parse import unquote

MARK = "***"
# Options of cameras and files. Their values are shown if they are short words or numbers
_HARMLESS_KEYS = re.compile(
    r"(?ix) width | height | fps | framerate | loop | channels? | chn? | cam(?:era)? | subtype | stream(?:_?type)?"
    r"| type | profile | resolution | size | codec | videocodec | audio | video | proto(?:col)? | transport(?:mode)?"
    r"| unicast | multicast | quality | compression | rotation | track(?:id)? | inst | (?:bit)?rate | mode | latency"
    r"| timeout | version | enablesrtp | real_stream | tcp | udp | main | sub"
)
_HARMLESS_VALUE = re.compile(r"[A-Za-z0-9.,:_+-]{0,24}")
# Properties of GStreamer's elements and fields of its caps that hold no secret
_HARMLESS_PROPERTIES = re.compile(
    r"(?ix) name | a?sync | drop(?:-on-latency)? | latency | max-buffers | max-size-(?:buffers|bytes|time) | leaky"
    r"| protocols | is-live | num-buffers | pattern | width | height | framerate | format | pixel-aspect-ratio"
    r"| interlace-mode | colorimetry | method | (?:sensor-|io-)?mode | device | sensor-id | port | buffer-size"
    r"| do-timestamp | loop | media | encoding-name | payload | clock-rate | (?:tcp-)?timeout | qos | skip-frame"
    r"| config-interval | bitrate | speed-preset | tune | key-int-max | video-direction | fields | stream-format"
    r"| alignment | profile | level | parsed"
)
_LOCAL = frozenset({"file", "folder", "v4l2", "csi"})
_OPENING, _CLOSING = "'\"([{<", "'\")]}>,.:;"
# The end of a scheme also as people mistype it: rtsp:/ rtsp:/// rtsp// rtsp;// rtsp:\\
_SCHEME = re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*)(?::[/\\]{1,3}|;?[/\\]{2})")
_AUTHORITY = re.compile(r"(\[[^\[\]@/\\\s]+\]|[^:\[\]@/\\\s]*)(?::([0-9]{1,5}))?")
_SPACED = re.compile(rf"{_SCHEME.pattern}(?P<first>[^\s@]{{1,200}})[ \t][^\n@]{{0,200}}@")
_VALUE = r"""(?:"(?:\\.|[^"\\\n])*"|'(?:''|\\.|[^'\\\n])*'|[^\s&;!,'"]+)"""
_NAME = (  # of a secret: some words within any other, some as a part of their own
    r"(?:[\w.-]{0,60}(?:passw|passphrase|pwd|token|secret|credential|api-?key|signature|cookie|authorization)"
    r"[\w.-]{0,60}"
    r"|(?:[\w.-]{0,60}[_.-])?(?:pass|pw|psw|key|sig|auth|cred|login|user|user-?name|user-?id|session|sid|otp|pin|jwt)"
    r"(?:[_.-][\w.-]{0,60})?)"
)
_PAIR = re.compile(rf"(?i)(?<![\w.-])({_NAME})=({_VALUE})")
_FIELD = re.compile(rf"(?i)(?<![\w.-])([\"']?{_NAME}[\"']?\s*:[ \t]*)({_VALUE})")
_PROPERTY = re.compile(rf"(?<![\w:-])([\w:-]{{1,64}})[ \t]*=[ \t]*({_VALUE})")
_BEARER = re.compile(r"(?i)\b(bearer|basic|digest)\s+[A-Za-z0-9._~+/=-]{6,}")
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z0-9_:%~+=-]{12,}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-fA-F-]{32,}")
_CHANGES = 0.4  # of a random text's characters differ in kind from the one before; of a name's, fewer


def redact(text: str) -> str:
    """Return a text with everything hidden that looks like a secret."""
    return _redact(text, [])


def redact_address(text: str) -> str:
    """Return one address with everything hidden that may be a secret.

    Unlike `redact`, it takes the whole text as one address, also if that does not parse or contains blanks.
    """
    return _redact_address(text, [])


def redact_fields(text: str) -> str:
    """Return YAML or JSON text with the values of keys that name a secret hidden, and the rest redacted."""
    return redact(_FIELD.sub(lambda match: match[1] + (f'"{MARK}"' if match[2].startswith('"') else MARK), text))


def secrets_in(address: str) -> set[str]:
    """Return what `redact_address` hides in an address: whole, and the password alone, decoded and not."""
    hidden: list[str] = []
    _redact_address(address, hidden)
    found = set(hidden)
    for value in hidden:
        user, colon, password = value.partition(":")
        if colon and user:
            found.add(password)
    found |= {unquote(value) for value in found}
    return {value for value in found if value.strip("*")}


def has_ambiguous_credentials(address: str) -> bool:
    """Return whether an @ behind the host may end a password that contains a bare /, ? or #.

    By the standard, the host of `rtsp://u:p@ss/w@camera` is `ss`. The @ of `rtsp://cam/live@1` is not ambiguous: what
    is before it is no user and password.
    """
    authority, tail = _split(address.partition("://")[2])
    return "@" in tail and _may_hold_credentials(authority)


def _redact(text: str, hidden: list[str]) -> str:
    text = _PEM.sub(rf"-----\1 {MARK}-----", text)
    text = _BEARER.sub(rf"\1 {MARK}", text)
    text = _SPACED.sub(lambda match: _redact_spaced(match, hidden), text)
    text = re.sub(r"\S+", lambda match: _redact_word(match[0], hidden), text)
    return _PAIR.sub(_redact_pair, text)


def _redact_pair(match: re.Match[str]) -> str:
    closing = "" if match[2][0] in "'\"" else match[2][len(match[2].rstrip(_CLOSING)) :]
    return f"{match[1]}={MARK}{closing}"


def _redact_spaced(match: re.Match[str], hidden: list[str]) -> str:
    """Hide a password with a blank, as in rtsp://admin:my pw@host, where no host stands before the blank."""
    scheme = match[0][: match.start("first") - match.start()]
    authority, tail = _split(match["first"].rstrip(_CLOSING))
    if scheme.endswith("://") and (tail or _AUTHORITY.fullmatch(authority)):
        return match[0]
    hidden.append(match[0][len(scheme) : -1])
    return f"{scheme}{MARK}@"


def _redact_word(word: str, hidden: list[str]) -> str:
    scheme = _SCHEME.search(word)
    if scheme is not None:
        body = word[scheme.end() :].rstrip(_CLOSING)
        closing = word[scheme.end() + len(body) :]
        return word[: scheme.end()] + _redact_body(body, scheme[1], hidden) + closing
    before, at, after = word.rpartition("@")
    if at and ":" in before:
        start = len(before) - len(before.lstrip(_OPENING))
        hidden.append(before[start:])
        return f"{before[:start]}{MARK}@{_redact_body(after, '', hidden)}"
    path, mark, query = word.partition("?")
    return path + _redact_tail(mark + query, hidden) if "=" in query else word


def _redact_address(text: str, hidden: list[str]) -> str:
    if text.startswith("gst:"):
        return _redact_pipeline(text, hidden)
    scheme = _SCHEME.match(text.lstrip())
    start = len(text) - len(text.lstrip()) + scheme.end() if scheme else 0
    kind = scheme[1] if scheme else ""
    if not (scheme and scheme[0].endswith("://")):  # it does not parse: up to the last @ all may be a secret
        before, at, after = text[start:].rpartition("@")
        if at:
            hidden.append(before)
            return f"{text[:start]}{MARK}@{_redact_body(after, kind, hidden)}"
    return text[:start] + _redact_body(text[start:], kind, hidden)


def _redact_body(body: str, scheme: str, hidden: list[str], following: int = 8) -> str:
    """Redact what follows `scheme://`: one address, and so many more in the same word. Others are hidden whole."""
    authority, tail = _split(body)
    if "@" in body and _may_hold_credentials(authority):
        userinfo, _, body = body.rpartition("@")
        hidden.append(userinfo)
        return f"{MARK}@{_redact_body(body, scheme, hidden, following)}"
    if scheme.lower() in _LOCAL:
        cut = _find_first(body, "?#")
        return body[:cut] + _redact_tail(body[cut:], hidden)
    if not _AUTHORITY.fullmatch(authority) and authority != MARK:  # user:password without an @
        hidden.append(authority)
        authority = MARK
    other = _SCHEME.search(tail)
    if other is None:
        return authority + _redact_tail(tail, hidden)
    head, rest = authority + _redact_tail(tail[: other.start()], hidden), tail[other.end() :]
    if following == 0:
        hidden.append(rest)
        return head + MARK
    return head + other[0] + _redact_body(rest, other[1], hidden, following - 1)


def _find_first(text: str, marks: str) -> int:
    return min((index for index in map(text.find, marks) if index >= 0), default=len(text))


def _split(body: str) -> tuple[str, str]:
    """Return the authority, and path, query and fragment."""
    end = _find_first(body, "/?#\\")
    return body[:end], body[end:]


def _may_hold_credentials(authority: str) -> bool:
    """Return whether this may be `user:password`, perhaps cut short: not a plain host, nor an IP address and a port."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return True
    try:
        ipaddress.ip_address(match[1].strip("[]").partition("%")[0])
    except ValueError:
        return match[2] is not None
    return False


def _redact_tail(tail: str, hidden: list[str]) -> str:
    """Redact path, query and fragment."""
    cut = _find_first(tail, "?#")
    path = re.sub(r"[^/\\]+", lambda match: _redact_segment(match[0], hidden), tail[:cut])
    return path + re.sub(r"[^?#&;]+", lambda match: _redact_item(match[0], hidden), tail[cut:])


def _redact_segment(segment: str, hidden: list[str]) -> str:
    if "=" in segment:  # of a path: /user=admin&password=x&channel=1
        return re.sub(r"[^&;!]*=[^&;!]*", lambda match: _redact_item(match[0], hidden), segment)
    if _is_random(segment):
        hidden.append(segment)
        return MARK
    return segment


def _redact_item(item: str, hidden: list[str]) -> str:
    """Redact `key=value` or a lone word of a query."""
    key, equals, value = item.partition("=")
    if _HARMLESS_KEYS.fullmatch(key) and _HARMLESS_VALUE.fullmatch(value):
        return item
    if equals and _HARMLESS_VALUE.fullmatch(key):
        hidden.append(value)
        return f"{key}={MARK}"
    hidden.append(item)
    return MARK


def _is_random(segment: str) -> bool:
    """Return whether a part of a path is a token, such as the last of rtsps://nvr:7441/AbCdEfGh1234IjKl.

    A SHA-256 is none: it names an object of a repository.
    """
    stem = segment.partition(".")[0]
    if _SHA256.fullmatch(stem) or not _TOKEN.fullmatch(stem):
        return False
    if _HEX.fullmatch(stem):
        return True
    kinds = ["lower" if c.islower() else "upper" if c.isupper() else "digit" for c in stem if c.isalnum()]
    changes = sum(a != b for a, b in pairwise(kinds))
    return len(set(kinds)) == len(("lower", "upper", "digit")) and changes >= _CHANGES * len(kinds)


def _redact_pipeline(text: str, hidden: list[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        key, value = match[1], match[2].strip("'\"")
        if "://" in value:
            return f"{key}={_redact_address(value, hidden)}"
        if _HARMLESS_PROPERTIES.fullmatch(key) and "@" not in value:
            return match[0]
        hidden.append(value)
        return f"{key}={MARK}"

    return redact(_PROPERTY.sub(replace, text))
