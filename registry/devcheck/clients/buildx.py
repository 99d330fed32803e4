"""Docker Buildx with a builder in a container: its network goes nowhere but to the mirror.

The mirrors in buildkitd.toml fall back to the public hub, so they are not used. Sources: BuildKit,
docs/buildkitd.toml.md; buildx reference, "docker-container driver" (env.*); BuildKit source
policies (sourcepolicy/pb/policy.proto: the last rule that fits decides).
"""

from __future__ import annotations

import json

from registry.devcheck.clients.mirror import DEAD_PROXY, File, Mirror

TITLE = "Docker Buildx (builder in a container) and BuildKit"
ENFORCES = (
    "a builder by create-builder.sh reaches the mirror and nothing else: images, frontends, ADD, git",
    "with the source policy, a build stops at an image of another registry and names it",
)
CANNOT = (
    "whoever may make another builder can build without it: let CI offer this one only",
    "the source policy is the client's: without EXPERIMENTAL_BUILDKIT_SOURCE_POLICY it does not exist",
    "RUN has the network that the build gives it, without these settings: build with --network=none",
)


def files(mirror: Mirror) -> tuple[File, ...]:
    """The script that makes the builder, its configuration, and the source policy."""
    proxies = {"http_proxy": DEAD_PROXY, "https_proxy": DEAD_PROXY, "no_proxy": mirror.host}
    options = "".join(f"  --driver-opt 'env.{name}={value}' \\\n" for name, value in proxies.items())
    script = (
        "#!/bin/sh\n# Makes the builder and takes it as the default.\nset -e\n"
        "docker buildx create --name goldsmith --driver docker-container --use \\\n"
        f"{options}  --buildkitd-config buildkitd.toml\n"
        'echo "then: export EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=$PWD/source-policy.json"\n'
    )
    config = f'[registry."{mirror.host}"]\n  http = {str(mirror.plain).lower()}\n'
    policy = {
        "rules": [
            {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
            {"action": "ALLOW", "selector": {"identifier": f"docker-image://{mirror.host}/*"}},
        ]
    }
    return (
        File("create-builder.sh", script),
        File("buildkitd.toml", config),
        File("source-policy.json", json.dumps(policy, indent=2) + "\n"),
    )
