"""The ways in which a registry fails us, and how they are told: without secrets, and briefly."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from builder.errors import RegistryError

# urllib3 begins with the connection's own name, which says nothing to people.
_CONNECTION = re.compile(r"^\w+\(host='[^']*', port=\d+\): ")


class RegistryRefused(RegistryError):
    """The registry answered with a status that says no; `status` is the HTTP status code."""

    def __init__(self, status: int, message: str, context: str, hint: str) -> None:
        super().__init__(message, context=context, hint=hint, reference="registry-refused")
        self.status = status


class Temporary(RegistryError):
    """A fault that may pass by itself; `retry_after` is what the registry asked for, in seconds."""

    def __init__(self, message: str, context: str, retry_after: float | None = None) -> None:
        super().__init__(
            message,
            context=context,
            hint="start or mend the registry (goldsmith up starts the one of this machine), and run again; "
            "no tag was moved",
            reference="registry-unavailable",
        )
        self.retry_after = retry_after


def other_content(context: str) -> RegistryError:
    """The error for bytes that are not what was promised."""
    return RegistryError(
        "the registry holds other content than its digest says",
        context=context,
        hint="check the registry's storage; nothing of it was used, and no tag was moved",
        reference="content-mismatch",
    )


def unusable(message: str) -> RegistryError:
    """The error for a reply that no registry gives."""
    return RegistryError(
        message,
        hint="look at what answers at this address; it may not be a registry",
        reference="unusable-reply",
    )


def unreadable(error: OSError) -> RegistryError:
    """The error for a file of ours that was to be uploaded."""
    return RegistryError(
        f"a blob cannot be read: {error.filename}",
        context=str(error.strerror),
        hint="the layout is damaged; remove it and build the image again",
        reference="layout-damaged",
    )


def foreign(host: str, url: str) -> RegistryError:
    """The error for an address that our requests and credentials must not go to."""
    return RegistryError(
        "the registry sends us to another host",
        context=f"{host} names {redacted(url)}",
        hint="serve blobs through the registry itself (storage redirect disabled), or allow that host",
        reference="foreign-redirect",
    )


def redacted(url: str) -> str:
    """The address without query (upload states, signatures) and user information."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


def why(error: BaseException) -> str:
    """The innermost reason, short and without an address."""
    while True:
        inner: Any = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = _CONNECTION.sub("", str(text))
    return text.rpartition(">: ")[2].partition("url:")[0][:200]
