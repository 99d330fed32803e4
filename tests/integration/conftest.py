"""One small catalogue of today, and one pool, for all tests that build for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.settings import Settings
from registry.storage import service
from tests.support.catalogue import small_copy

ROOT = Path(__file__).parents[2]
_SECONDS_MAX = 600
_KEPT = ("PATH", "HOME", "GOLDSMITH_DEBIAN_MIRROR", "DOCKER_HOST", "SSL_CERT_FILE", "CI")


@dataclass(frozen=True)
class Checkout:
    """A catalogue of its own with a state directory of its own: another machine, so to speak."""

    catalogue: Path
    state: Path
    environment: Mapping[str, str]

    def copy(self, folder: Path, environment: Mapping[str, str]) -> Checkout:
        """The same catalogue in another folder, with another state, and the same packages at hand."""
        copy = _checkout(folder, self.catalogue, environment)
        if (self.state / "pool").is_dir():
            shutil.copytree(self.state / "pool", copy.state / "pool", copy_function=os.link)
        return copy

    def goldsmith(
        self, *arguments: str, ok: bool = True, prefix: tuple[str, ...] = (), seconds: int = _SECONDS_MAX
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in this checkout, as a user does."""
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "builder", *arguments],
            cwd=self.catalogue,
            env={**self.environment, "PYTHONPATH": self._path, "GOLDSMITH_STATE": str(self.state)},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if ok:
            assert done.returncode == 0, done.stderr + done.stdout
        return done

    @property
    def _path(self) -> str:
        return os.pathsep.join(filter(None, (str(ROOT), self.environment.get("PYTHONPATH"))))

    def open_registry(self) -> None:
        """A storage that asks nobody who he is: programs that the tests run have no account there."""
        environment = {**self.environment, "GOLDSMITH_STATE": str(self.state)}
        service.up(Settings.load(environment, directory=self.catalogue))


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The variables that a run really needs; nothing of the developer's."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


@pytest.fixture(scope="session")
def today(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[Checkout]:
    """Base and Python, locked against the archive of today; what the checked-in lock names may be gone."""
    checkout = _checkout(tmp_path_factory.mktemp("today"), ROOT, clean_environment)
    checkout.goldsmith("lock")
    yield checkout
    checkout.goldsmith("down")


@pytest.fixture
def another_checkout(
    tmp_path: Path, today: Checkout, clean_environment: dict[str, str]
) -> Iterator[Callable[..., Checkout]]:
    """Makes further checkouts of today's catalogue, in other folders, with the same packages at hand."""

    made: list[Checkout] = []

    def make(name: str, folder: Path = tmp_path, **environment: str) -> Checkout:
        checkout = today.copy(folder / name, {**clean_environment, **environment})
        made.append(checkout)
        return checkout

    yield make
    for checkout in made:
        if checkout.catalogue.is_dir():
            checkout.goldsmith("down")


def _checkout(folder: Path, source: Path, environment: Mapping[str, str]) -> Checkout:
    catalogue = small_copy(source, folder / "catalogue")
    return Checkout(catalogue, folder / "state", environment)
