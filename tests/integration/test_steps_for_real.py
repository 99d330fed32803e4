"""Accounts and a company's authority on both engines; a program that is run, on the only one that may."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
import yaml

from tests.integration.conftest import Checkout
from tests.support.catalogue import image, stream
from tests.support.requires import tool
from tests.unit.test_steps import authority

pytestmark = pytest.mark.integration


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def define(checkout: Checkout, name: str, files: dict[str, bytes], **changes: object) -> None:
    folder = checkout.catalogue / "images" / name
    folder.mkdir()
    for path, content in files.items():
        (folder / path).write_bytes(content)
    document = image(name, **{"from": "base", "streams": {"1": stream(**changes)}})
    document["streams"]["1"]["packages"] = ["netbase"]  # which base has: nothing is added
    (folder / "image.yaml").write_text(yaml.safe_dump(document))
    (folder / "checks.yaml").write_text("schema: 1\nfiles: [{path: /etc/os-release}]\n")


def test_steps_give_one_digest_on_both_engines_and_a_program_needs_docker(
    another_checkout: Callable[..., Checkout],
) -> None:
    tool("docker")
    checkout = another_checkout("steps")
    root = authority()
    define(
        checkout,
        "company",
        {"root.pem": root},
        users={"app": {"id": 10001, "home": "/srv/app"}},
        directories={"/srv/app": {"owner": "app", "mode": "0700"}},
        certificates=[{"source": "root.pem", "sha256": sha256(root)}],
    )
    made = {"/etc/ld.so.cache": {"sha256": "0" * 64}}
    command = ["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "--version"]
    define(
        checkout, "running", {}, run=[{"command": command, "reason": "to see that it runs", "makes": made}]
    )
    checkout.goldsmith("lock", "company", "running")
    both = checkout.goldsmith("build", "company", "--engine", "direct", "--engine", "docker", "--json")
    assert json.loads(both.stdout)["outcome"] == "built"
    refused = checkout.goldsmith("build", "running", ok=False)
    assert refused.returncode == 1 and "runs no program" in refused.stderr
    # It ran, without a shell; that it did not write what was said is found.
    lying = checkout.goldsmith("build", "running", "--engine", "docker", ok=False)
    assert lying.returncode == 7 and "/etc/ld.so.cache" in lying.stderr
