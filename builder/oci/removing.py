"""Taking manifests away, where a registry allows it.

Source: OCI distribution specification 1.1, "Deleting Manifests".
"""

from __future__ import annotations

from builder.oci.transport import Transport

_GONE = (202, 404)
_NOT_ALLOWED = (400, 401, 403, 405)  # switched off, or not for us


def remove_manifest(transport: Transport, path: str, repo: str) -> bool:
    """Take the manifest at a path away; returns whether the registry does such a thing.

    Raises RegistryError when it cannot be reached or fails.
    """

    def action(ends: float) -> bool:
        with transport.send(
            ends, "DELETE", path, use=f"cancel {repo}", ok=(*_GONE, *_NOT_ALLOWED), headers={}
        ) as reply:
            return reply.status in _GONE

    return transport.retrying(action)
