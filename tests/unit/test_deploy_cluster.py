"""The cluster's manifests: mutual TLS everywhere, one image at a time, no rights and no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).parents[2] / "registry" / "deploy" / "kubernetes" / "cluster.yaml"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(PATH.read_text()))


def pods() -> list[dict[str, Any]]:
    return [d["spec"]["template"]["spec"] for d in DOCUMENTS if "template" in d.get("spec", {})]


def containers() -> list[dict[str, Any]]:
    return [c for pod in pods() for c in pod["containers"]]


def test_scheduler_and_workers_speak_tls_only() -> None:
    assert len(containers()) == 2
    for container in containers():
        command = container["command"]
        assert "--protocol=tls" in command or any(a.startswith("tls://") for a in command)
        for option in ("--tls-ca-file=", "--tls-cert=", "--tls-key="):
            assert any(a.startswith(option) for a in command)


def test_a_worker_takes_one_image_at_a_time() -> None:
    from builder.cluster import RESOURCE

    (worker,) = [c for c in containers() if c["name"] == "worker"]
    assert {"--nthreads=1", f"--resources={RESOURCE}=1"} <= set(worker["command"])


def test_who_starts_first_leaves_credentials_that_nobody_else_may_read() -> None:
    (first,) = [c for pod in pods() for c in pod.get("initContainers", [])]
    assert "os.umask(0o077)" in first["command"][-1]
    compile(first["command"][-1], "cluster.yaml", "exec")
    (worker,) = [c for c in containers() if c["name"] == "worker"]
    state = {m["mountPath"] for m in worker["volumeMounts"] if m["name"] == "state"}
    assert state == {"/state"} == {e["value"] for e in worker["env"] if e["name"] == "GOLDSMITH_STATE"}


def test_nothing_has_rights_or_a_signing_key() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert {v.get("secret", {}).get("secretName") for v in pod["volumes"]} <= {
            None,
            "cluster-tls",
            "goldsmith-publisher",
        }
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "@sha256:" in container["image"]
        names = {e["name"] for e in container.get("env", [])}
        assert not any("KEY" in n or "TOKEN" in n or "PASSPHRASE" in n for n in names)
