"""Podman, Buildah, Skopeo, CRI-O: a policy that rejects, and names of public registries rewritten.

A `[[registry.mirror]]` falls back to the primary after a refusal; `prefix` and `location` do not.
Source: containers-policy.json(5), containers-registries.conf(5), containers-registries.d(5).
"""

from __future__ import annotations

import json
from typing import Any

from registry.devcheck.clients.mirror import PUBLIC, File, Mirror, single_keys

TITLE = "Podman, Buildah, Skopeo and CRI-O"
ENFORCES = (
    "no image from another registry is taken in, whatever its name: the policy rejects it",
    "every platform's manifest must be signed by the builder's key",
    "names of the large public registries lead to the mirror, so that its reason is printed",
)
CANNOT = (
    "a registry that is not in registries.conf is asked for its manifest before the policy rejects the image",
    "users can name another policy (--signature-policy, ~/.config/containers/policy.json)",
    "Debian 12 builds these programs without sigstoreSigned and refuses the policy: use --no-signatures",
    "with a second key after a rotation the policy has keyPaths, which programs before 2024 refuse",
    "the policy checks the signature, not the verdict: expiry and withdrawal are the mirror's to refuse",
)
KEY = "/etc/containers/goldsmith-builder.pub"


def files(mirror: Mirror) -> tuple[File, ...]:
    """The policy, the rewriting of names, where signatures are, and the keys: any of them will do."""
    single = single_keys(mirror.builder_key)
    keys = dict(zip((KEY, *(f"{KEY[:-4]}-{n}.pub" for n in range(2, len(single) + 1))), single, strict=True))
    requirement: dict[str, Any] = {
        "type": "sigstoreSigned",
        **({"keyPath": KEY} if len(keys) == 1 else {"keyPaths": list(keys)}),
        "signedIdentity": {"type": "matchRepository"},
    }
    return (
        _policy(mirror, requirement),
        _registries(mirror),
        File(
            "/etc/containers/registries.d/goldsmith.yaml",
            f"docker:\n  {mirror.host}:\n    use-sigstore-attachments: true\n",
        ),
        *(File(path, pem.strip() + "\n") for path, pem in keys.items()),
    )


def files_without_signatures(mirror: Mirror) -> tuple[File, ...]:
    """The same for programs that cannot verify: the mirror is believed for its address."""
    return (_policy(mirror, {"type": "insecureAcceptAnything"}), _registries(mirror))


def _policy(mirror: Mirror, requirement: dict[str, Any]) -> File:
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {mirror.host: [requirement]}}}
    return File("/etc/containers/policy.json", json.dumps(policy, indent=2) + "\n")


def _registries(mirror: Mirror) -> File:
    own = f'[[registry]]\nprefix = "{mirror.host}"\nlocation = "{mirror.host}"\n'
    own += "insecure = true\n" if mirror.plain else ""
    others = "".join(
        f'\n[[registry]]\nprefix = "{host}"\nlocation = "{mirror.host}"\n'
        + ("insecure = true\n" if mirror.plain else "")
        for host in PUBLIC
        if host != mirror.host
    )
    text = (
        f'unqualified-search-registries = ["{mirror.host}"]\nshort-name-mode = "enforcing"\n\n{own}{others}'
    )
    return File("/etc/containers/registries.conf", text)
