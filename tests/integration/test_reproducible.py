"""The same input gives the same digest: whatever engine, folder, time, umask, locale and user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.oci.layout import verify_layout
from tests.integration.conftest import Checkout
from tests.support import oracles
from tests.support.requires import tool

pytestmark = pytest.mark.integration


def build(checkout: Checkout, image: str, engine: str, prefix: tuple[str, ...] = ()) -> dict:
    """Build from nothing (no reuse) and return the result."""
    shutil.rmtree(checkout.state / "records" / "built", ignore_errors=True)
    return json.loads(checkout.goldsmith("build", image, "--engine", engine, "--json", prefix=prefix).stdout)


def build_both(checkout: Checkout, engine: str, prefix: tuple[str, ...] = ()) -> dict[str, dict]:
    """Python built from nothing, and the base that was built on the way, by image."""
    python = build(checkout, "python:3.13", engine, prefix)
    base = json.loads(
        checkout.goldsmith("build", "base:13", "--engine", engine, "--json", prefix=prefix).stdout
    )
    assert (python["outcome"], base["outcome"]) == ("built", "unchanged")
    return {"base:13": base, "python:3.13": python}


def digests_of(built: dict[str, dict]) -> dict[str, str]:
    return {image: result["digest"] for image, result in built.items()}


@pytest.fixture(scope="module")
def first(today: Checkout) -> dict[str, dict]:
    """What the direct engine makes in the first checkout."""
    return build_both(today, "direct")


@pytest.fixture(scope="module")
def digests(first: dict[str, dict]) -> dict[str, str]:
    return digests_of(first)


def test_another_checkout_in_another_mood_gives_the_same_digests(
    digests: dict[str, str], another_checkout: Callable[..., Checkout]
) -> None:
    other = another_checkout(
        "a folder with blanks", TZ="Asia/Tokyo", LANG="tr_TR.UTF-8", LC_ALL="tr_TR.UTF-8"
    )
    umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    assert digests_of(build_both(other, "direct", umask)) == digests


def test_another_user_gives_the_same_digest(
    digests: dict[str, str],
    another_checkout: Callable[..., Checkout],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # Not below pytest's own folders: those are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        other = another_checkout("nobody's", Path(folder), HOME="/nonexistent")
        subprocess.run(["chown", "-R", "65534:65534", str(other.state.parent)], check=True)
        setpriv = (str(tool("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups")
        assert build(other, "python:3.13", "direct", setpriv)["digest"] == digests["python:3.13"]


def test_docker_and_direct_give_the_same_digests(
    digests: dict[str, str], another_checkout: Callable[..., Checkout], today: Checkout
) -> None:
    umask = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    # The daemon belongs to the first checkout's state directory.
    other = another_checkout("docker's", TZ="America/Lima", DOCKER_HOST=_engine_of(today))
    built = build_both(other, "docker", umask)
    assert digests_of(built) == digests
    for result in built.values():
        verify_layout(Path(result["layout"]))


def test_buildah_and_direct_give_the_same_digests(
    digests: dict[str, str], another_checkout: Callable[..., Checkout]
) -> None:
    path = f"{oracles.buildah()}:{os.environ['PATH']}"
    other = another_checkout("buildah's", TZ="America/Lima", PATH=path)
    umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    assert digests_of(build_both(other, "buildah", umask)) == digests
    assert not list((other.state / "tmp").iterdir())


def test_an_unchanged_input_is_not_built_again(today: Checkout, digests: dict[str, str]) -> None:
    again = json.loads(today.goldsmith("build", "python:3.13", "--json").stdout)
    assert (again["outcome"], again["digest"]) == ("unchanged", digests["python:3.13"])


def test_layers_are_few_and_shared(first: dict[str, dict]) -> None:
    base, python = (result["platforms"]["linux/amd64"]["layers"] for result in first.values())
    assert python[: len(base)] == base
    assert len(python) <= 12


def test_a_damaged_image_in_the_state_directory_is_built_again(
    today: Checkout, first: dict[str, dict]
) -> None:
    (Path(first["base:13"]["layout"]) / "index.json").write_text("{}")
    again = json.loads(today.goldsmith("build", "base:13", "--json").stdout)
    assert (again["outcome"], again["digest"]) == ("built", first["base:13"]["digest"])


def _engine_of(checkout: Checkout) -> str:
    found = json.loads(checkout.goldsmith("up", "--no-registry", "--json").stdout)
    return str(found["engine"]["host"])
