"""The same input gives the same digest: whatever engine, folder, time, umask, locale and user."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from builder.oci.layout import verify_layout
from tests.integration.conftest import Checkout
from tests.support import oracles
from tests.support.catalogue import image
from tests.support.extensions import NAMED, Site
from tests.support.requires import tool

pytestmark = pytest.mark.integration
STEP = """
from builder.model.definition import PlainText, Strict
from builder.model.image import GeneratedEntry
from builder.model.step import Step
class Banner(Strict):
    text: PlainText
def make(values, platform):
    yield GeneratedEntry("/usr/lib/banner", "file", 0o755, content=f"{values.text} {platform}\\n".encode())
    yield GeneratedEntry("/var/lib/banner", "directory", 0o700, owner=65532)
    yield GeneratedEntry("/etc/banner", "link", 0o777, target="/usr/lib/banner")
STEP = Step("acme-banner", "A banner", Banner, make)
"""


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


@dataclass(frozen=True)
class Banner:
    """An image on top of base with one small package and a team's typed step, and what the direct engine makes of it."""

    folder: Path
    environment: dict[str, str]
    digest: str = ""

    def at(self, checkout: Checkout) -> Checkout:
        """A checkout with the image in its catalogue, and the team's package at hand."""
        shutil.copytree(self.folder, checkout.catalogue / "images/banner")
        return replace(checkout, environment={**checkout.environment, **self.environment})

    def built_at(self, checkout: Checkout, engine: str, prefix: tuple[str, ...]) -> str:
        """The digest that an engine makes there, on top of the base that is there already."""
        done = self.at(checkout).goldsmith("build", "banner:1", "--engine", engine, "--json", prefix=prefix)
        made = json.loads(done.stdout)
        assert made["outcome"] == "built"
        return str(made["digest"])


@pytest.fixture(scope="module")
def banner(
    today: Checkout, first: dict[str, dict], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Banner]:
    folder = tmp_path_factory.mktemp("banner")
    (folder / "site").mkdir()
    site = Site(folder / "site")
    site.install({"acme_steps": STEP}, {"goldsmith.steps": {"banner": "acme_steps:STEP"}})
    said = {"suite": "trixie", "packages": ["media-types"], "end_of_life": dt.date(2030, 6, 30)}
    said["steps"] = [{"use": "acme-banner", "with": {"text": "ACME"}}]
    written = image("banner", **{"from": "base", "streams": {"1": said}})
    (folder / "banner").mkdir()
    (folder / "banner/image.yaml").write_text(yaml.safe_dump(written))
    (folder / "banner/checks.yaml").write_text("schema: 1\nfiles: [{path: /etc/banner}]\n")
    environment = {"PYTHONPATH": str(site.folder), "GOLDSMITH_EXTENSIONS": NAMED[0]}
    # Today's state, in which base is built, but another catalogue: others use today's.
    shutil.copytree(today.catalogue, folder / "catalogue")
    here = Banner(folder / "banner", environment).at(replace(today, catalogue=folder / "catalogue"))
    here.goldsmith("lock", "banner")
    made = json.loads(here.goldsmith("build", "banner:1", "--json").stdout)
    found = {}
    for layer in made["platforms"]["linux/amd64"]["layers"]:
        with tarfile.open(Path(made["layout"]) / "blobs" / layer["digest"].replace(":", "/")) as members:
            found |= {m.name.removeprefix("./").rstrip("/"): (m.mode, m.uid, m.linkname) for m in members}
    assert found["usr/lib/banner"] == (0o755, 0, "")
    assert found["var/lib/banner"] == (0o700, 65532, "")
    assert found["etc/banner"][2] == "/usr/lib/banner"
    yield Banner(here.catalogue / "images/banner", environment, made["digest"])


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
    digests: dict[str, str], another_checkout: Callable[..., Checkout], today: Checkout, banner: Banner
) -> None:
    umask = ("sh", "-c", 'umask 027; exec "$@"', "sh")
    # The daemon belongs to the first checkout's state directory.
    other = another_checkout("docker's", TZ="America/Lima", DOCKER_HOST=_engine_of(today))
    built = build_both(other, "docker", umask)
    assert digests_of(built) == digests
    for result in built.values():
        verify_layout(Path(result["layout"]))
    assert banner.built_at(other, "docker", umask) == banner.digest


def test_buildah_and_direct_give_the_same_digests(
    digests: dict[str, str], another_checkout: Callable[..., Checkout], banner: Banner
) -> None:
    path = f"{oracles.buildah()}:{os.environ['PATH']}"
    other = another_checkout("buildah's", TZ="America/Lima", PATH=path)
    umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    assert digests_of(build_both(other, "buildah", umask)) == digests
    assert banner.built_at(other, "buildah", umask) == banner.digest
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
