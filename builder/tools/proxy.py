"""The proxy that this host's own apt uses, for a host whose only way out is one.

Source: apt.conf(5) and apt-transport-http(1), `Acquire::http::Proxy`; the environment variables
`http_proxy`, `https_proxy` and `no_proxy` go before it, as they do for apt.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from builder.errors import ToolError
from builder.tools.process import find, run

_SECONDS = 10
_LOOPBACK = "127.0.0.1,localhost,::1"
_QUESTION = ("http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy")


def with_host_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, with the proxy of the host's apt if it names none; never one for loopback."""
    found = dict(environment)
    if not (found.get("http_proxy") or found.get("https_proxy")):
        found.update(_of_apt(environment))
    if found.get("http_proxy") or found.get("https_proxy"):
        found["no_proxy"] = ",".join(filter(None, (found.get("no_proxy"), _LOOPBACK)))
    return found


def _of_apt(environment: Mapping[str, str]) -> dict[str, str]:
    apt_config = find("apt-config", environment)
    if apt_config is None:
        return {}
    try:
        said = run([apt_config, "shell", *_QUESTION], environment=environment, timeout_seconds=_SECONDS).text
    except ToolError:
        return {}  # no worse than without a proxy: the download then says what is wrong
    proxies = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        address = value.strip("'")
        if name in ("http_proxy", "https_proxy") and urlsplit(address).scheme in ("http", "https", "socks5h"):
            proxies[name] = address
    return proxies
