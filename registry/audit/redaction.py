"""What looks like a secret is taken out of a text before it is written where it stays for ever. Pure.

Rather too much than too little: a reason that lost a word can be told again, a leaked key cannot.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"
TEXT_MAX = 500  # characters

_NAMED = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|"
    r"authori[sz]ation|credentials?|cookie"
)
_PATTERNS = (
    # PEM, with or without its end
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|$)", re.DOTALL),
    # user and password in an address
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),
    # Authorization headers
    re.compile(r"(?i)(?<=\b)(?:bearer|basic)\s+[A-Za-z0-9+/=._~-]{4,}"),
    # password=…, token: …, "secret": "…", --password …
    re.compile(rf"(?i)(?:{_NAMED})[\"']?\s*(?:[=:]\s*|(?<=\w)\s+is\s+)[\"']?[^\s\"',;&]+"),
    re.compile(rf"(?i)--?(?:{_NAMED})[ =]+\S+"),
    # JSON Web Tokens, and the marked tokens of well-known services
    re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(
        r"\b(?:gh[oprsu]_|github_pat_|glpat-|xox[abeoprs]-|sk-|npm_|dckr_pat_|hvs\.)[A-Za-z0-9_-]{8,}"
    ),
    re.compile(r"\bgs_[a-z2-7]{6,}_[A-Za-z0-9_-]{8,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"),
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}(?![0-9a-zA-Z])")
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{20,}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{32,}")


def redact(text: str) -> str:
    """`text` on one line, without control characters and what looks like a secret, at most TEXT_MAX long."""
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    pieces, end = [], 0
    for digest in _DIGEST.finditer(text):
        pieces += [_RUN.sub(_judge, text[end : digest.start()]), digest[0]]
        end = digest.end()
    text = "".join((*pieces, _RUN.sub(_judge, text[end:])))
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:TEXT_MAX]


def _judge(run: re.Match[str]) -> str:
    """Long runs of letters of both cases and digits, or of hexadecimal digits, are no words."""
    text = run[0]
    mixed = all(any(test(c) for c in text) for test in (str.isupper, str.islower, str.isdigit))
    return REDACTED if mixed or _HEXADECIMAL.search(text) else text
