"""containerd (Kubernetes nodes, nerdctl): every registry's name leads to the mirror.

With `server` set to the mirror there is no fallback to the registry that was named.
Source: containerd, docs/hosts.md ("_default", `server`) and docs/cri/registry.md.
"""

from __future__ import annotations

from registry.devcheck.clients.mirror import File, Mirror

TITLE = "containerd 1.5 and newer"
ENFORCES = (
    "the kubelet (CRI) and nerdctl ask the mirror, whatever registry an image names; its refusal is the end",
    "the mirror sees the registry that was meant as ?ns=",
)
CANNOT = (
    "ctr reads these files only with --hosts-dir; without it, it asks the registry that is named",
    "ctr images import brings images without a registry",
    "other folders below certs.d go before _default: remove them",
    "containerd 1.6 prints 403 Forbidden without the mirror's reason",
)


def files(mirror: Mirror) -> tuple[File, ...]:
    """The default for every registry, and where CRI looks for it."""
    hosts = (
        f'# No fallback: the server itself is the mirror.\nserver = "{mirror.url}"\n\n'
        f'[host."{mirror.url}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    config = (
        "# Merge into config.toml; in version 3 the table is called\n"
        "# plugins.'io.containerd.cri.v1.images'.registry. Then: systemctl restart containerd\n"
        "version = 2\n\n"
        '[plugins."io.containerd.grpc.v1.cri".registry]\n'
        '  config_path = "/etc/containerd/certs.d"\n'
    )
    return (
        File("/etc/containerd/certs.d/_default/hosts.toml", hosts),
        File("/etc/containerd/config.toml", config),
    )
