"""What lies in registry/deploy: it parses, it is confined, its probes and options are ours, it holds no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from typer.main import get_command

from builder.cli import serve
from builder.oci.auth import READER
from builder.oci.issuer import ISSUER, SERVICE
from builder.tools.strict_yaml import parse
from registry.gate.app import Gate
from tests.support.requires import tool

DEPLOY = Path(__file__).parents[2] / "registry" / "deploy"
UNITS = [DEPLOY / "systemd" / f"goldsmith-{name}.service" for name in ("storage", "storage-reader", "gate")]
SCHEDULE = [DEPLOY / "schedule" / f"goldsmith-nightly.{kind}" for kind in ("service", "timer")]
CRONJOB = DEPLOY / "schedule" / "cronjob.yaml"
# The API of Kubernetes 1.33, of the kinds that we use, without the descriptions; unknown fields are wrong.
KUBERNETES = json.loads((Path(__file__).parents[1] / "support" / "kubernetes-1.33.json").read_text())
MANIFESTS = [DEPLOY / "kubernetes" / f"{name}.yaml" for name in ("namespace", "storage", "gate")]
CONFINED = {
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "RestrictSUIDSGID": "yes",
    "IPAddressDeny": "any",
}


def documents() -> Iterator[dict[str, Any]]:
    for file in MANIFESTS:
        for text in re.split(r"^---$", file.read_text(), flags=re.M):
            found = parse(text.encode())
            assert isinstance(found, dict) and {"apiVersion", "kind", "metadata"} <= set(found), file
            yield found


def pods() -> list[dict[str, Any]]:
    return [d["spec"]["template"]["spec"] for d in documents() if d["kind"] == "Deployment"]


def directives(unit: Path) -> dict[str, list[str]]:
    """The directives of the section [Service]; a line that ends in \\ goes on."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, separator, value = line.partition("=")
            assert separator, f"{unit.name}: {line}"
            if section == "Service":
                found.setdefault(name, []).append(value)
    return found


def options_of_serve() -> set[str]:
    app = typer.Typer()
    serve.register(app)
    return {option for parameter in get_command(app).params for option in parameter.opts}


# ------------------------------------------------------------------ systemd


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_confined(unit: Path, tmp_path: Path) -> None:
    found = directives(unit)
    assert {name: found.get(name, ["missing"])[-1] for name in CONFINED} == CONFINED
    assert found["User"] != ["root"] and ("DynamicUser" in found or "Group" in found)
    assert ("LoadCredential" in found) == unit.name.startswith("goldsmith-gate")  # storages hold no secret
    program = shutil.which("systemd-analyze")
    if program:  # where there is systemd, it judges too
        copy = tmp_path / unit.name
        text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/usr/bin/true", unit.read_text())
        copy.write_text(re.sub(r"(?m)^(After|Wants)=.*$", "", text))
        done = subprocess.run(
            [program, "security", "--offline=true", "--threshold=20", copy],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        # Before version 250 it judges installed units alone.
        assert done.returncode == 0 or "unrecognized option" in done.stderr, done.stdout + done.stderr
        checked = subprocess.run(
            [program, "verify", "--man=no", copy], capture_output=True, text=True, check=False, timeout=60
        )
        assert unit.name not in checked.stderr, checked.stderr


@pytest.mark.parametrize("unit", [*UNITS, *SCHEDULE], ids=lambda path: path.name)
def test_systemd_takes_a_unit_without_a_warning(unit: Path, tmp_path: Path) -> None:
    program = tool("systemd-analyze")
    for one in (*UNITS, *SCHEDULE):  # they name each other
        text = re.sub(r"(?m)^(ExecStart|ExecStopPost)=\S+", r"\1=/usr/bin/true", one.read_text())
        (tmp_path / one.name).write_text(text)
    checked = subprocess.run(
        [program, "verify", "--man=no", tmp_path / unit.name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert [line for line in checked.stderr.splitlines() if "goldsmith" in line] == []


def test_systemd_complains_of_a_directive_that_it_does_not_know(tmp_path: Path) -> None:
    """So that the test above says something."""
    unit = tmp_path / "goldsmith-x.service"
    unit.write_text("[Service]\nExecStart=/usr/bin/true\nProtectEverything=yes\n")
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "goldsmith-x.service" in done.stderr and "ProtectEverything" in done.stderr


def test_the_storages_of_systemd_trust_one_key_each_and_the_gate_s_cannot_write() -> None:
    writer, reader = (
        parse((DEPLOY / "systemd" / name).read_bytes()) for name in ("storage.yml", "storage-reader.yml")
    )
    for found, name in ((writer, "writer"), (reader, "reader")):
        assert found["http"]["addr"].startswith("127.0.0.1:")
        token = found["auth"]["token"]
        assert (token["issuer"], token["service"]) == (ISSUER, SERVICE)
        assert token["rootcertbundle"].endswith(f"/{name}.crt")
        assert found["storage"]["delete"] == {"enabled": False}
    root = {found["storage"]["filesystem"]["rootdirectory"] for found in (writer, reader)}
    assert len(root) == 1
    assert reader["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    gate = directives(DEPLOY / "systemd" / "goldsmith-gate.service")
    assert f"--storage {reader['http']['addr']} " in gate["ExecStart"][0]
    assert gate["ExecStartPre"][0].endswith(f"/credentials/{reader['http']['addr']}{READER}")
    unit = directives(DEPLOY / "systemd" / "goldsmith-storage-reader.service")
    assert unit["DynamicUser"] == ["yes"] and "StateDirectory" not in unit and "ReadWritePaths" not in unit


def test_the_web_server_finds_the_blobs_where_the_gate_says() -> None:
    config = (DEPLOY / "nginx" / "goldsmith.conf").read_text()
    (started,) = directives(DEPLOY / "systemd" / "goldsmith-gate.service")["ExecStart"]
    accel = re.search(r"--accel (\S+)", started)
    assert accel and f"location {accel[1]}/ {{\n        internal;" in config
    root = parse((DEPLOY / "systemd" / "storage.yml").read_bytes())["storage"]["filesystem"]["rootdirectory"]
    assert f"alias {root}/docker/registry/v2/blobs/;" in config


# ------------------------------------------------------------------ Kubernetes


@pytest.mark.parametrize(
    "file", sorted((*(DEPLOY / "kubernetes").glob("*.yaml"), CRONJOB)), ids=lambda p: p.name
)
def test_manifests_are_what_the_schema_of_kubernetes_says(file: Path) -> None:
    for text in re.split(r"^---$", file.read_text(), flags=re.M):
        found = parse(text.encode())
        assert isinstance(found, dict)
        kind = KUBERNETES["kinds"][found["kind"]]
        schema = {"$ref": f"#/$defs/{kind}", "$defs": KUBERNETES["$defs"]}
        assert kind.endswith(f".{found['apiVersion'].rpartition('/')[2]}.{found['kind']}")
        jsonschema.validate(found, schema)
        found["spec" if "spec" in found else "metadata"]["surprise"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found, schema)


def test_every_pod_is_confined() -> None:
    assert len(pods()) == 2
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        whole = pod["securityContext"]
        assert whole["runAsNonRoot"] is True and whole["runAsUser"] > 0
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "hostNetwork" not in pod and "hostPID" not in pod
        assert not [v for v in pod["volumes"] if "hostPath" in v]
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"limits", "requests"} <= set(container["resources"])
            mounted = {m["name"] for m in container["volumeMounts"]}
            assert mounted <= {v["name"] for v in pod["volumes"]}


def test_probes_ask_what_there_is() -> None:
    import inspect

    for pod in pods():
        for container in pod["containers"]:
            ports = {p["name"] for p in container["ports"]}
            for kind in ("readinessProbe", "livenessProbe"):
                assert container[kind]["httpGet"]["port"] in ports
    (gate,) = [c for pod in pods() for c in pod["containers"] if c["name"] == "gate"]
    assert gate["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert gate["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert '"/healthz"' in inspect.getsource(Gate) and '"/readyz"' in inspect.getsource(Gate)


def test_the_options_of_the_gate_are_those_that_it_has() -> None:
    (started,) = directives(DEPLOY / "systemd" / "goldsmith-gate.service")["ExecStart"]
    (gate,) = [c for pod in pods() for c in pod["containers"] if c["name"] == "gate"]
    given = re.findall(r"--[a-z-]+", f"{started} {' '.join(gate['args'])}")
    assert len(given) > 8 and set(given) <= options_of_serve()
    assert "--anonymous" not in given and "--accept-sample" not in given


def test_the_gate_s_storage_cannot_write_and_the_other_asks_for_a_token() -> None:
    configs = {
        d["metadata"]["name"]: parse(d["data"]["config.yml"].encode())
        for d in documents()
        if d["kind"] == "ConfigMap"
    }
    reader, writer = configs["goldsmith-storage-reader"], configs["goldsmith-storage-writer"]
    assert reader["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert reader["http"]["addr"].startswith("127.0.0.1:")
    token = writer["auth"]["token"]
    assert (token["issuer"], token["service"]) == (ISSUER, SERVICE)
    assert {"certificate", "key"} <= set(writer["http"]["tls"])
    for config in (reader, writer):
        assert config["storage"]["redirect"] == {"disable": True}
        assert {"accesskey", "secretkey"}.isdisjoint(config["storage"]["s3"])


def test_there_are_no_default_credentials() -> None:
    assert not [d for d in documents() if d["kind"] == "Secret"]
    for pod in pods():
        for container in pod["containers"]:
            for variable in container["env"]:
                secret = re.search(r"SECRET|KEY|PASS|TOKEN", variable["name"])
                assert not secret or set(variable["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    for file in DEPLOY.rglob("*.*"):
        assert not re.search(r"\$2[aby]\$|BEGIN [A-Z ]*KEY|AKIA[0-9A-Z]{16}", file.read_text()), file
