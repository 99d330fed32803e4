"""A local OpenID Connect issuer: keys, a discovery document, and tokens that may be anything."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.images import NOW

AUDIENCE = "goldsmith"


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One of a few keys, made once."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """The same on P-256."""
    return ec.derive_private_key(1000 + number, ec.SECP256R1())


def jwk(key: Any, number: str, **changes: Any) -> dict[str, Any]:
    """The public part of a key as an entry of a set."""
    algorithm: Any = (
        jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    )
    entry = json.loads(algorithm.to_jwk(key.public_key()))
    return {**entry, "kid": number, "use": "sig", **changes}


def pem(key: Any) -> bytes:
    """The public key as PEM."""
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def part(value: Any) -> str:
    """A part of a token that was not made by a library."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Issuer:
    """What the issuer says, and how; tests change it."""

    address: str
    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk(rsa_key(), "r1"), jwk(ec_key(), "e1")])
    status: int = 200
    discovery: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a good token; None takes one away."""
        now = int(NOW.timestamp())
        claims = {
            "iss": self.address,
            "aud": AUDIENCE,
            "sub": "ann@example.com",
            "groups": ["developers"],
            "iat": now,
            "exp": now + 600,
            **changes,
        }
        return {k: v for k, v in claims.items() if v is not None}

    def token(
        self,
        key: Any = None,
        algorithm: str = "RS256",
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token by this issuer, good unless something is said."""
        default = {"kid": "r1" if algorithm == "RS256" else "e1"}
        signer = key or (rsa_key() if algorithm == "RS256" else ec_key())
        return jwt.encode(self.claims(**claims), signer, algorithm, headers={**default, **(headers or {})})

    def entry(self, name: str = "corp") -> str:
        """Its entry in access.yaml: developers pull everything, the nightly job keeps python."""
        return (
            f"  - name: {name}\n    issuer: {self.address}\n    audience: {AUDIENCE}\n    grants:\n"
            '      - {group: developers, roles: [developer], images: ["*"]}\n'
            "      - {subject: nightly, roles: [robot, curator], images: [python]}\n"
        )


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            if self.path == "/.well-known/openid-configuration":
                said = {"issuer": issuer.address, "jwks_uri": f"{issuer.address}/keys", **issuer.discovery}
            else:
                said = {"keys": issuer.keys}
            body = json.dumps(said).encode()
            self.send_response(issuer.status)
            self.send_header("Content-Length", str(len(body)))
            if issuer.status == 302:
                self.send_header("Location", f"{issuer.address}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
