"""Sends messages through apprise: webhooks, mail, chats. The address of a target holds its secret."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

_SECONDS = 30.0  # for one message


def sender(addresses: Mapping[str, str], seconds: float = _SECONDS) -> Callable[[str, str, str], str]:
    """A function `send(target, title, body)` that returns what went wrong, empty when nothing did.

    `addresses` are apprise URLs by target; a service has so many seconds. No address ever stands in
    what is returned.
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
        said: list[str] = []

        def tell() -> None:
            try:
                taken = service.notify(title=title, body=body, body_format=NotifyFormat.TEXT)
                said.append("" if taken else "the service did not take it")
            except Exception as error:  # noqa: BLE001 - plug-ins raise what they like
                said.append(f"the service failed: {type(error).__name__}")

        # Their own limits are for each byte that comes: one that dribbles would keep us for ever.
        telling = threading.Thread(target=tell, name="notify", daemon=True)
        telling.start()
        telling.join(seconds)
        return said[0] if said else f"the service did not answer within {seconds:g} s"

    return send
