"""Docker Engine: every registry but the mirror goes through a proxy that does not exist.

Docker has no list of allowed registries, and after a refusal by `registry-mirrors` it goes on to
the public hub. Source: dockerd reference, "Proxy configuration"; Go's golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

from registry.devcheck.clients.mirror import DEAD_PROXY, File, Mirror

TITLE = "Docker Engine (all versions, with systemd)"
ENFORCES = (
    "docker pull, run and build (with the engine's own BuildKit) reach the mirror and nothing else",
    "the frontend of a # syntax= line and ADD https://… are blocked too, since the engine fetches them",
)
CANNOT = (
    "registries on loopback (127.0.0.1, localhost) are never asked through a proxy",
    "docker load and docker import bring images without a registry",
    "a buildx builder in a container of its own has its own network: see client-config buildx",
    "who may restart the engine can change it; block the public registries in the network as well",
)


def files(mirror: Mirror) -> tuple[File, ...]:
    """A drop-in for the engine's service; remove `registry-mirrors` from daemon.json."""
    proxies = (
        f"HTTP_PROXY={DEAD_PROXY}",
        f"HTTPS_PROXY={DEAD_PROXY}",
        f"NO_PROXY={mirror.host}",
        f"http_proxy={DEAD_PROXY}",
        f"https_proxy={DEAD_PROXY}",
        f"no_proxy={mirror.host}",
    )
    lines = "".join(f'Environment="{p}"\n' for p in proxies)
    text = (
        "# Only the mirror is reached directly. Then: systemctl daemon-reload && systemctl restart docker\n"
        f"[Service]\n{lines}"
    )
    return (File("/etc/systemd/system/docker.service.d/goldsmith-mirror.conf", text),)
