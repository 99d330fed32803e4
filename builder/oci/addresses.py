"""Where a name of somebody else's host may lead: the address that was checked is the one connected to.

Who answers for a name can answer anything, and differently the next time (DNS rebinding). So a name
is resolved once for each connection, every address of the answer is checked, and the connection
goes to one of these and to nothing else. A name that was public stays public.
Sources: IANA special-purpose address registries (RFC 6890); RFC 6052 and 8215 (IPv4 in IPv6).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

from builder.errors import RegistryError
from builder.oci.auth import is_loopback

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
# Where clouds hand out credentials, beside the link-local addresses.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_HOSTS_MAX = 1000  # that are remembered
_ADDRESSES_MAX = 16  # of one name that are tried

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[..., list[Any]]  # as socket.getaddrinfo


class Addresses:
    """Resolves the names of hosts that others run; safe in threads."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve
        self._public: dict[str, bool] = {}
        self._lock = threading.Lock()

    def of(self, host: str, port: int | None) -> tuple[str, ...]:
        """The addresses to connect to, as digits; raises OSError, and RegistryError for a forbidden one.

        Loopback is reached only by a name that means this machine.
        """
        name = host.strip("[]").lower()
        resolve = self._resolve or socket.getaddrinfo
        answers = resolve(name, port, type=socket.SOCK_STREAM)[:_ADDRESSES_MAX]
        found = [_parsed(str(answer[4][0])) for answer in answers]
        for address in found:
            if not _allowed(address, is_loopback(name)):
                raise _forbidden(host, address, "that is no address of a registry or issuer elsewhere")
        self._check_scope(host, found)
        return tuple(dict.fromkeys(map(str, found)))

    def _check_scope(self, host: str, found: list[Address]) -> None:
        public = [_meant(address).is_global for address in found]
        with self._lock:
            if len(self._public) >= _HOSTS_MAX:
                self._public.clear()
            before = self._public.setdefault(host, all(public)) if found else False
        if any(public) != all(public) or (before and not all(public)):
            inside = found[public.index(False)]
            raise _forbidden(host, inside, "the name is also one of the public network")


def _parsed(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])


def _meant(address: Address) -> Address:
    """The IPv4 address within an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped or address.sixtofour:
            return address.ipv4_mapped or address.sixtofour or address
        if any(address in network for network in _NAT64):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _allowed(address: Address, here: bool) -> bool:
    meant = _meant(address)
    if here or meant.is_loopback:
        return here and meant.is_loopback
    old = isinstance(meant, ipaddress.IPv6Address) and (meant.is_site_local or meant.teredo is not None)
    strange = meant.is_link_local or meant.is_multicast or meant.is_unspecified or meant.is_reserved
    zero = isinstance(meant, ipaddress.IPv4Address) and meant.packed[0] == 0
    return not (strange or old or zero or meant in _METADATA)


def _forbidden(host: str, address: Address, why: str) -> RegistryError:
    return RegistryError(
        f"the name {host} leads to {address}: {why}",
        hint="look at who answers for this name; nothing was sent there",
        reference="forbidden-address",
    )
