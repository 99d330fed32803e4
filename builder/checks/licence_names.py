"""Debian's short names of licences as SPDX writes them, and texts by which a licence is recognised.

Sources: machine-readable copyright format 1.0, "License specification"; the SPDX licence list.
"""

from __future__ import annotations

import re

from builder.model.licence import KNOWN, PUBLIC_DOMAIN

# Lower case; "+" is "or any later version". What is the SPDX name already needs no line.
_NAMES = {
    "expat": "MIT",
    "mit/expat": "MIT",
    "mit/x11": "MIT",
    "mit-style": "MIT",
    "mit-1": "MIT",
    "apache": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "asl-2.0": "Apache-2.0",
    "bsd-2": "BSD-2-Clause",
    "bsd-2-clauses": "BSD-2-Clause",
    "bsd-2clause": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-3-clauses": "BSD-3-Clause",
    "bsd-3clause": "BSD-3-Clause",
    "bsd-4": "BSD-4-Clause",
    "bsd-4-clause-uc": "BSD-4-Clause-UC",
    "bsd-3-clause-uc": "BSD-3-Clause",
    "bsd-3-clause-regents": "BSD-3-Clause",
    "boost": "BSL-1.0",
    "boost-1.0": "BSL-1.0",
    "bzip2": "bzip2-1.0.6",
    "cc0": "CC0-1.0",
    "mpl-2": "MPL-2.0",
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "gfdl-1.3+": "GFDL-1.3-or-later",
    "gfdl-1.2+": "GFDL-1.2-or-later",
    "gfdl-niv-1.3+": "GFDL-1.3-no-invariants-or-later",
    "gfdl-niv-1.2+": "GFDL-1.2-no-invariants-or-later",
    "gfdl-1.3": "GFDL-1.3-only",
    "gfdl-1.2": "GFDL-1.2-only",
    "openldap-2.8": "OLDAP-2.8",
    "php": "PHP-3.01",
    "psf": "PSF-2.0",
    "psf-2": "PSF-2.0",
    "python": "Python-2.0",
    "public-domain": PUBLIC_DOMAIN,
    "public domain": PUBLIC_DOMAIN,
    "pd": PUBLIC_DOMAIN,
    "publicdomain": PUBLIC_DOMAIN,
    "gpl": "GPL-1.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
    "unicode": "Unicode-DFS-2016",
    "sil-1.1": "OFL-1.1",
    "ofl": "OFL-1.1",
    "mit-x11": "X11",
    "zlib/libpng": "Zlib",
    "permissive-fsf": "FSFULLR",
    "wtfpl-2": "WTFPL",
}
_GNU = re.compile(r"(a?gpl|lgpl)(?:-|v| )?([123](?:\.[01])?)(\+|-only|-or-later)?")
_EXCEPTIONS = {
    "autoconf": "Autoconf-exception-2.0",
    "autoconf-2.0": "Autoconf-exception-2.0",
    "autoconf-2": "Autoconf-exception-2.0",
    "autoconf-3": "Autoconf-exception-3.0",
    "libtool": "Libtool-exception",
    "bison": "Bison-exception-2.2",
    "bison-2.2": "Bison-exception-2.2",
    "font": "Font-exception-2.0",
    "classpath": "Classpath-exception-2.0",
    "gcc": "GCC-exception-3.1",
    "gcc-runtime-library": "GCC-exception-3.1",
}
# Beginnings of names that people give to a known licence with other names of authors in it.
_VARIANTS = (
    ("bsd-3", "BSD-3-Clause"),
    ("bsd-2", "BSD-2-Clause"),
    ("expat", "MIT"),
    ("mit", "MIT"),
    ("isc", "ISC"),
)
_LOWER = {name.lower(): name for name in KNOWN}


def spdx_name(short: str) -> str | None:
    """The SPDX name of a short name (without exception); None when it is not in the tables."""
    name = " ".join(short.lower().split())
    if found := _NAMES.get(name) or _LOWER.get(name):
        return found
    if match := _GNU.fullmatch(name):
        version = match[2] if "." in match[2] else f"{match[2]}.0"
        later = match[3] in ("+", "-or-later")
        found = f"{match[1].upper()}-{version}-{'or-later' if later else 'only'}"
        return found if found in KNOWN else None
    return None


def spdx_exception(name: str) -> str | None:
    """The SPDX name of an exception that Debian calls `NAME exception`; None when unknown."""
    words = name.lower().split()
    if words and words[-1] == "exception":
        words.pop()
    plain = "-".join(words).removesuffix("-exception")
    return _EXCEPTIONS.get(plain)


# (SPDX name, sentences that all have to be in the text): plain search, after white space is one blank
# and letters are small, so that no text can make it slow.
FINGERPRINTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "MIT",
        (
            "permission is hereby granted, free of charge, to any person obtaining a copy of this software "
            "and associated documentation files",
            "the above copyright notice and this permission notice shall be included in all copies or "
            "substantial portions of the software",
        ),
    ),
    (
        "BSD-3-Clause",
        (
            "redistribution and use in source and binary forms, with or without modification, are permitted",
            "may be used to endorse or promote products derived from this software without specific prior",
        ),
    ),
    (
        "ISC",
        (
            "permission to use, copy, modify, and/or distribute this software for any purpose with or "
            "without fee is hereby granted, provided that the above copyright notice and this permission "
            "notice appear",
        ),
    ),
    (
        "Zlib",
        (
            "provided 'as-is', without any express or implied warranty",
            "altered source versions must be plainly marked as such",
        ),
    ),
    (
        "PostgreSQL",
        (
            "permission to use, copy, modify, and distribute this software and its documentation for any "
            "purpose, without fee, and without a written agreement is hereby granted",
        ),
    ),
    ("GPL-3.0-or-later WITH GCC-exception-3.1", ("gcc runtime library exception", "version 3.1")),
    (PUBLIC_DOMAIN, ("is in the public domain",)),
)
# Two clauses only where the third is not there.
BSD_2 = "redistribution and use in source and binary forms, with or without modification, are permitted"


def squeezed(text: str) -> str:
    """A text for plain search: small letters, one blank for all white space, one kind of quotes."""
    return " ".join(text.lower().replace("`", "'").replace("\u2018", "'").replace("\u2019", "'").split())


def fingerprints(text: str) -> set[str]:
    """The licences whose whole text stands in a squeezed text."""
    found = {name for name, sentences in FINGERPRINTS if all(s in text for s in sentences)}
    if "BSD-3-Clause" not in found and BSD_2 in text:
        found.add("BSD-2-Clause")
    return found


def variant_of(short: str, body: str) -> str | None:
    """The licence of which `short` is one author's copy: by its name, and by its text."""
    name = short.lower()
    wanted = next((spdx for prefix, spdx in _VARIANTS if name.startswith(prefix)), None)
    return wanted if wanted and wanted in fingerprints(squeezed(body)) else None
