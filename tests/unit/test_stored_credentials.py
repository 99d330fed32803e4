"""What `docker login` left: found for exactly that host, and never told."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.oci.stored import stored_credentials

AUTH = base64.b64encode(b"ann:s3:cret").decode()


def write(folder: Path, text: str) -> dict[str, str]:
    (folder / "config.json").write_text(text)
    return {"DOCKER_CONFIG": str(folder)}


@pytest.mark.parametrize("key", ["images.example.com", "https://images.example.com"])
def test_a_login_is_found_for_its_host(tmp_path: Path, key: str) -> None:
    environment = write(tmp_path, json.dumps({"auths": {key: {"auth": AUTH}}, "credsStore": "x"}))
    found = stored_credentials("images.example.com", environment)
    assert found is not None
    assert (found.username, found.password) == ("ann", "s3:cret")
    assert "s3" not in repr(found)
    for other in (
        "example.com",
        "images.example.com:443",
        "evil-images.example.com",
        "images.example.co",
        "",
    ):
        assert stored_credentials(other, environment) is None


def test_the_file_lies_in_the_home_folder_when_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    write(tmp_path / ".docker", json.dumps({"auths": {"h:5000": {"auth": AUTH}}}))
    assert stored_credentials("h:5000", {"HOME": str(tmp_path)})
    assert stored_credentials("h:5000", {"HOME": "/nonexistent"}) is None
    assert stored_credentials("h:5000", {}) is None


@pytest.mark.parametrize(
    "text", ["{}", '{"auths": {}}', '{"auths": {"h": {}}}', '{"auths": {"h": {"email": "x"}}}']
)
def test_where_nothing_is_stored_there_is_nothing(tmp_path: Path, text: str) -> None:
    assert stored_credentials("h", write(tmp_path, text)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"auths": []}',
        '{"auths": {"h": []}}',
        '{"auths": {"h": "auth"}}',
        '{"auths": {"h": {"auth": 7}}}',
        '{"auths": {"h": {"auth": "!!"}}}',
        '{"auths": {"h": {"auth": "YW5u"}}}',
    ],
)
def test_a_broken_file_is_told_without_what_is_in_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        stored_credentials("h", write(tmp_path, text))
    assert "config.json" in caught.value.message and "YW5u" not in caught.value.context
