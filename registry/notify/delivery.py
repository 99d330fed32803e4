"""Sends messages through apprise: webhooks, mail, chats. The address of a target holds its secret."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping


def sender(addresses: Mapping[str, str]) -> Callable[[str, str, str], str]:
    """A function `send(target, title, body)` that returns what went wrong, empty when nothing did.

    `addresses` are apprise URLs by target. No address ever stands in what is returned.
    """
    from apprise import Apprise, NotifyFormat

    # It would log addresses.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)

    def send(target: str, title: str, body: str) -> str:
        address = addresses.get(target)
        if address is None:
            return f"no address: set GOLDSMITH_NOTIFY_{target.upper().replace('-', '_')}"
        service = Apprise()
        if not service.add(address):
            return "the address is none that apprise knows"
        try:
            taken = service.notify(title=title, body=body, body_format=NotifyFormat.TEXT)
        except Exception as error:  # noqa: BLE001 - plug-ins raise what they like
            return f"the service failed: {type(error).__name__}"
        return "" if taken else "the service did not take it"

    return send
