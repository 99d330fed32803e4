"""What `client-config` writes, to the byte. Regenerate: `GOLDEN_UPDATE=1 make unit`, and read the diff."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
import yaml

from builder.cli import main as command_line
from registry.devcheck.clients import CLIENTS, podman
from registry.devcheck.clients.mirror import File, Mirror
from tests.support.evidence import new_keys

GOLDEN = Path(__file__).parent / "client-config"
PEM = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
MIRROR = Mirror("mirror.example:5000", PEM.format("BUILDER"), PEM.format("VERDICT"))
CASES = {name: client.files(MIRROR) for name, client in CLIENTS.items()}
CASES["podman-without-signatures"] = podman.files_without_signatures(MIRROR)


@pytest.mark.parametrize("name", CASES)
def test_the_files_are_the_reviewed_ones(name: str) -> None:
    for file in CASES[name]:
        golden = GOLDEN / name / file.path.removeprefix("kubectl apply -f ").lstrip("/")
        if os.environ.get("GOLDEN_UPDATE"):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(file.text)
        assert file.text == golden.read_text(), f"{golden} differs"


@pytest.mark.parametrize("file", [f for files in CASES.values() for f in files], ids=lambda f: f.path)
def test_the_files_are_of_their_format(file: File) -> None:
    if file.path.endswith((".toml", "registries.conf")):
        assert tomllib.loads(file.text)
    elif file.path.endswith(".json"):
        assert json.loads(file.text)
    elif file.path.endswith(".yaml"):
        assert all(yaml.safe_load_all(file.text))


@pytest.mark.parametrize("name", CLIENTS)
def test_each_says_what_it_can_and_cannot(name: str) -> None:
    assert CLIENTS[name].ENFORCES
    assert CLIENTS[name].CANNOT


def test_keys_stand_in_the_policies() -> None:
    (policy,) = yaml.safe_load_all(CASES["kyverno"][0].text)
    rule = policy["spec"]["rules"][1]["verifyImages"][0]
    assert "BUILDER" in rule["attestors"][0]["entries"][0]["keys"]["publicKeys"]
    assert "VERDICT" in rule["attestations"][0]["attestors"][0]["entries"][0]["keys"]["publicKeys"]
    config, signature, verdict = yaml.safe_load_all(CASES["policy-controller"][0].text)
    assert config["data"] == {"no-match-policy": "deny"}
    assert "BUILDER" in signature["spec"]["authorities"][0]["key"]["data"]
    assert "VERDICT" in verdict["spec"]["authorities"][0]["key"]["data"]


def test_every_key_that_is_believed_stands_in_the_policies() -> None:
    """After a rotation, what the key before signed is still pulled."""
    two = Mirror(
        "mirror.example",
        PEM.format("BUILDER") + PEM.format("BEFORE"),
        PEM.format("VERDICT") + PEM.format("EARLIER"),
    )
    kyverno = yaml.safe_load(CLIENTS["kyverno"].files(two)[0].text)
    (entry,) = kyverno["spec"]["rules"][1]["verifyImages"][0]["attestors"][0]["entries"]
    assert entry["keys"]["publicKeys"].count("BEGIN PUBLIC KEY") == 2
    _, signature, verdict = yaml.safe_load_all(CLIENTS["policy-controller"].files(two)[0].text)
    assert [a["name"] for a in signature["spec"]["authorities"]] == ["builder", "builder-2"]
    assert "BEFORE" in signature["spec"]["authorities"][1]["key"]["data"]
    assert "EARLIER" in verdict["spec"]["authorities"][1]["key"]["data"]
    assert all(a["attestations"] for a in verdict["spec"]["authorities"])
    files = {f.path: f.text for f in podman.files(two)}
    ((requirement,),) = json.loads(files["/etc/containers/policy.json"])["transports"]["docker"].values()
    assert [PEM.format(n) for n in ("BUILDER", "BEFORE")] == [files[p] for p in requirement["keyPaths"]]
    assert "keyPath" not in requirement


@pytest.mark.parametrize("host", ["", "UPPER", "a b", 'a"\n', "https://a", "a/b", "-a"])
def test_a_host_that_could_break_out_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="not a registry host"):
        Mirror(host, "", "")


def test_the_command_writes_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_keys(tmp_path / "keys")
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    common = ["--mirror", "mirror.example", "--trust", str(tmp_path / "keys")]
    assert command_line.run(["client-config", "podman", *common, "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/etc/containers/policy.json").is_file()
    assert "cannot:" in capsys.readouterr().out
    assert command_line.run(["client-config", "docker", *common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["path"].endswith("goldsmith-mirror.conf")
    assert command_line.run(["client-config", "lynx", *common]) == 2
    assert command_line.run(["client-config", "docker", *common, "--no-signatures"]) == 2
    assert (
        command_line.run(["client-config", "docker", "--mirror", "A B", "--trust", str(tmp_path / "keys")])
        == 2
    )
