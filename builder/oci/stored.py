"""The credentials that `docker login` left for a registry: read from its file, for exactly that host.

Source: Docker's `config.json` (`auths`, base64 of `USER:PASSWORD`). Credential helpers are programs
of others; they are not run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from builder.errors import RegistryError, UsageError
from builder.oci.auth import Credentials
from builder.oci.manifest import parse_json
from builder.store import read_file

_SIZE_MAX = 1 << 20  # bytes


def stored_credentials(host: str, environment: Mapping[str, str]) -> Credentials | None:
    """What was stored for `host[:port]`; None when nothing was. Raises UsageError for a broken file.

    The file is `config.json` in `DOCKER_CONFIG`, or in `.docker` of `HOME`.
    """
    folder = environment.get("DOCKER_CONFIG")
    home = environment.get("HOME")
    if not folder and not home:
        return None
    path = (Path(folder) if folder else Path(str(home)) / ".docker") / "config.json"
    try:
        found = parse_json(read_file(path, _SIZE_MAX), str(path), _SIZE_MAX)
        auths = found.get("auths", {})
        entry = auths.get(host, auths.get(f"https://{host}", {}))
        shown = entry.get("auth")
        if shown is None:
            return None
        user, colon, password = base64.b64decode(shown, validate=True).decode().partition(":")
    except OSError:
        return None
    except (RegistryError, AttributeError, TypeError, ValueError, binascii.Error) as error:
        raise _broken(path, type(error).__name__) from None
    if not colon:
        raise _broken(path, "no USER:PASSWORD")
    return Credentials(user, password)


def _broken(path: Path, context: str) -> UsageError:
    return UsageError(
        f"the file of logins cannot be read: {path}",
        context=context,
        hint="log in again (`docker login`), or mend the file",
    )
