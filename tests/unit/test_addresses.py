"""Names of other people's hosts: where they may lead, and that nobody answers twice."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.oci.addresses import Addresses
from builder.oci.client import RegistryClient
from builder.oci.faults import Temporary
from builder.oci.transport import Limits
from registry.access import jwks

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1::1"
LIMITS = Limits(connect_seconds=1, read_seconds=1, total_seconds=5, attempts=1)


class Resolver:
    """Answers as it is told, one answer after the other, the last one for ever."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int | None, **options: Any) -> list[Any]:
        self.asked += 1
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in now]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "169.254.169.254",
        "fe80::1%eth0",
        "fec0::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:1::1",
    ],
)
def test_a_name_never_leads_to_this_machine_or_its_metadata(address: str) -> None:
    with pytest.raises(RegistryError) as caught:
        Addresses(Resolver((PUBLIC, address))).of("hub.example", 443)
    assert caught.value.reference == "forbidden-address"


@pytest.mark.parametrize("address", [PUBLIC, OTHER, "10.1.2.3", "fd12::1", "64:ff9b::5db8:d822"])
def test_a_name_may_be_public_or_of_one_s_own_network(address: str) -> None:
    assert Addresses(Resolver((address, address))).of("hub.example", 443) == (address,)


def test_only_a_name_of_this_machine_leads_to_it() -> None:
    assert Addresses(Resolver(("127.0.0.1", "::1"))).of("localhost", 80) == ("127.0.0.1", "::1")
    assert Addresses().of("127.0.0.1", 80) == ("127.0.0.1",)
    with pytest.raises(RegistryError):
        Addresses(Resolver((PUBLIC,))).of("localhost", 80)


def test_a_public_name_does_not_become_a_private_one() -> None:
    names = Addresses(Resolver((PUBLIC,), ("10.0.0.1",)))
    assert names.of("hub.example", 443) == (PUBLIC,)
    with pytest.raises(RegistryError, match=r"10\.0\.0\.1"):
        names.of("hub.example", 443)
    with pytest.raises(RegistryError, match=r"10\.0\.0\.1"):
        Addresses(Resolver((PUBLIC, "10.0.0.1"))).of("hub.example", 443)
    assert Addresses(Resolver(("10.0.0.1",), (PUBLIC,))).of("inside.example", 443)


def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver((PUBLIC, OTHER), ("127.0.0.1",))
    tried: list[str] = []

    def connect(address: tuple[str, int], *rest: object, **options: object) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.getaddrinfo", resolver)
    monkeypatch.setattr("socket.create_connection", connect)
    client = RegistryClient("hub.example", limits=LIMITS, foreign=True)
    with pytest.raises(Temporary):
        client.ping()
    assert (tried, resolver.asked) == ([PUBLIC, OTHER], 1)  # digits: nobody is asked again
    with pytest.raises(RegistryError) as caught:
        client.ping()  # the second answer
    assert caught.value.reference == "forbidden-address"
    assert tried == [PUBLIC, OTHER]


def test_keys_of_an_issuer_are_not_fetched_from_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("socket.getaddrinfo", Resolver(("127.0.0.1",)))
    with pytest.raises(jwks.IssuerAway, match=r"127\.0\.0\.1"):
        jwks.fetched("https://login.example/keys", None)


def test_a_name_that_nobody_knows_is_a_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*names: object, **options: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(Temporary, match="cannot be reached"):
        RegistryClient("hub.example", limits=LIMITS, foreign=True).ping()
