"""Who wrote what, by a real git, in repositories of people who do not want it to be known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.sources import Historian
from builder.model.image import Target
from builder.model.reference import Reference
from builder.model.sources import Origin, Tree
from builder.stages.define import load_catalogue
from builder.tools import process
from builder.tools.git import UNNAMED, Git, Range, writer
from tests.support import catalogue as files
from tests.support.requires import tool

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
ALL = (Range("", ("images",)),)


class Repository:
    """A catalogue in a git repository."""

    def __init__(self, folder: Path) -> None:
        tool("git")
        self.root = files.write(folder, files.image("base"), files.image("app", **{"from": "base"}))
        self.git = Git(self.root, ENVIRONMENT)
        self.run("init", "--quiet", "--initial-branch=main")

    def run(self, *arguments: str, **environment: str) -> str:
        done = process.run(
            ["git", *arguments],
            environment={**ENVIRONMENT, **environment},
            timeout_seconds=60,
            directory=self.root,
        )
        return done.text.strip()

    def commit(
        self, file: str, name: str = "Ann", email: str = "ann@x", message: str = "change", committer: str = ""
    ) -> str:
        path = self.root / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.read_text() + "# more\n" if path.exists() else "# new\n")
        self.run("add", "--all")
        self.run(
            "commit",
            "--quiet",
            "--message",
            message,
            GIT_AUTHOR_NAME=name,
            GIT_AUTHOR_EMAIL=email,
            GIT_COMMITTER_NAME=committer or name,
            GIT_COMMITTER_EMAIL=f"{committer}@x" if committer else email,
        )
        return self.run("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "catalogue")


def test_the_state_of_a_tree(repository: Repository) -> None:
    git = repository.git
    assert git.state(["images"]) == (Tree.DIRTY, "")
    head = repository.commit("images/app/image.yaml")
    assert git.state(["images"]) == (Tree.CLEAN, head)
    (repository.root / "notes").write_text("beside")
    assert git.state(["images"]) == (Tree.CLEAN, head)
    (repository.root / "images" / "app" / "image.yaml").write_text("schema: 1\n")
    assert git.state(["images/app"]) == (Tree.DIRTY, head)
    assert git.state(["images/base"]) == (Tree.CLEAN, head)


@pytest.mark.parametrize("ignored", [False, True], ids=["new", "ignored"])
def test_a_file_that_git_does_not_know_is_a_change(repository: Repository, ignored: bool) -> None:
    if ignored:
        (repository.root / ".gitignore").write_text("*.j2\n")
    repository.commit("images/app/image.yaml")
    (repository.root / "templates" / "new.j2").write_text("x")
    assert repository.git.state(["templates"])[0] is Tree.DIRTY


def test_without_git_nothing_is_told(tmp_path: Path, repository: Repository) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    assert Git(outside, ENVIRONMENT).state(["images"]) == (Tree.NONE, "")
    nowhere = {**ENVIRONMENT, "PATH": str(outside)}
    assert Git(outside, nowhere).state(["images"]) == (Tree.NONE, "")
    assert Git(repository.root, nowhere).state(["images"]) == (Tree.UNKNOWN, "")


def test_a_history_that_was_cut_off_is_unknown(tmp_path: Path, repository: Repository) -> None:
    repository.commit("images/app/image.yaml")
    head = repository.commit("images/app/image.yaml", "Bob", "bob@x")
    shallow = tmp_path / "shallow"
    repository.run("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(shallow))
    assert Git(shallow, ENVIRONMENT).state(["images"]) == (Tree.UNKNOWN, head)


def test_a_repository_that_git_refuses_is_unknown(repository: Repository) -> None:
    repository.commit("images/app/image.yaml")
    (repository.root / ".git" / "HEAD").write_text("nonsense")
    (repository.root / ".git" / "config").write_text("[core\n")
    assert repository.git.state(["images"])[0] is Tree.UNKNOWN


def test_authors_committers_and_co_authors_wrote_it(repository: Repository) -> None:
    repository.commit("images/app/image.yaml")
    message = "x\n\nCo-authored-by: Eve <eve@x>\nCo-authored-by: Only A Name\nReviewed-by: Dan <dan@x>"
    repository.commit("images/app/image.yaml", "Bob", "bob@x", message, committer="Carl")
    expected = ("Ann <ann@x>", "Bob <bob@x>", "Carl <Carl@x>", "Eve <eve@x>", "Only A Name <>")
    assert repository.git.writers(ALL) == expected


def test_only_what_is_new_and_at_the_paths_counts(repository: Repository) -> None:
    first = repository.commit("images/app/image.yaml")
    repository.commit("images/base/image.yaml", "Bob", "bob@x")
    repository.commit("images/app/image.lock", "Robot", "ci@x")
    without = ("images", ":(exclude)images/app/image.lock")
    assert repository.git.writers([Range(first, without)]) == ("Bob <bob@x>",)
    assert repository.git.writers([Range(first, ("images/app",))]) == ("Robot <ci@x>",)
    assert repository.git.writers([Range(first, ("templates",))]) == ()


def test_a_change_that_comes_by_a_merge_has_its_writer(repository: Repository) -> None:
    first = repository.commit("images/app/image.yaml")
    repository.run("checkout", "--quiet", "-b", "side")
    repository.commit("images/app/checks.yaml", "Eve", "eve@x")
    repository.run("checkout", "--quiet", "main")
    repository.commit("images/base/image.yaml", "Bob", "bob@x")
    named = {
        "GIT_AUTHOR_NAME": "M",
        "GIT_AUTHOR_EMAIL": "m@x",
        "GIT_COMMITTER_NAME": "M",
        "GIT_COMMITTER_EMAIL": "m@x",
    }
    repository.run("merge", "--quiet", "--no-edit", "side", **named)
    assert repository.git.writers([Range(first, ("images",))]) == ("Bob <bob@x>", "Eve <eve@x>")
    # A merge that brings something of its own was written by who merged.
    (repository.root / "images" / "app" / "checks.yaml").write_text("schema: 1\n")
    repository.run("commit", "--quiet", "--all", "--amend", "--no-edit", **named)
    assert "M <m@x>" in (repository.git.writers([Range(first, ("images",))]) or ())


def test_the_configuration_of_a_repository_adds_nothing(repository: Repository) -> None:
    repository.commit("images/app/image.yaml")
    (repository.root / ".mailmap").write_text("Bob <bob@x> Ann <ann@x>\n")
    for key, value in {
        "log.showSignature": "true",
        "log.mailmap": "true",
        "log.follow": "true",
        "color.ui": "always",
        "core.fsmonitor": "touch ran; false",
        "diff.external": "touch ran",
        "core.pager": "touch ran",
        "log.showRoot": "false",
    }.items():
        repository.run("config", key, value)
    assert repository.git.writers(ALL) == ("Ann <ann@x>",)
    assert repository.git.state(["images"])[0] is Tree.CLEAN
    assert "--- a/images" not in repository.git.difference("HEAD", ["images"])
    assert not (repository.root / "ran").exists()


@pytest.mark.parametrize(
    ("name", "email", "shown"),
    [
        ("Ann", "ann@x", "Ann <ann@x>"),
        ("A\x1b[31m\nnn\0", "ann@x", "A [31m nn <ann@x>"),
        ("An\u202en\u200b", "a\u200bnn@x", "Ann <ann@x>"),
        ("<Bob> <bob@x>", "ann@x", "Bob bob@x <ann@x>"),
        ("\uff21nn", "ann@x", "Ann <ann@x>"),
        ("n" * 500, "ann@x", "n" * 97 + " <ann@x>"),
        ("Ann", "a" * 101, UNNAMED),
        (" ", "\u200b", UNNAMED),
    ],
)  # fmt: skip
def test_a_name_is_one_short_line_and_never_another_ones(name: str, email: str, shown: str) -> None:
    assert writer(name, email) == shown


def test_more_writers_than_can_be_told_are_unknown(repository: Repository) -> None:
    lines = "\n".join(f"Co-authored-by: N{n} <n{n}@x>" for n in range(250))
    repository.commit("images/app/image.yaml", message=f"x\n\n{lines}")
    assert repository.git.writers(ALL) is None


def test_a_difference_is_text(repository: Repository) -> None:
    first = repository.commit("images/app/image.yaml")
    assert repository.git.difference(first, ["images"]) == ""
    (repository.root / "images" / "app" / "image.yaml").write_text("title: x\n")
    assert "+title: x" in repository.git.difference(first, ["images"]).splitlines()
    assert not repository.git.has("0" * 40)
    assert not repository.git.has("HEAD")
    assert repository.git.has(first)


# ------------------------------------------------------------------ since when


class History(Historian):
    """One that knows without a registry which commits were stable."""

    stable: Mapping[str, str] = {}

    def _stable_commit(self, target: Target, git: Git) -> str:
        return self.stable.get(target.ref, "")


def origin(repository: Repository, ref: str, **stable: str) -> Origin:
    catalogue = load_catalogue(repository.root)

    def nothing(*_: object) -> bool:
        raise AssertionError

    history = History(catalogue, ENVIRONMENT, None, "x", nothing, "carl@host")  # type: ignore[arg-type]
    object.__setattr__(history, "stable", {k.replace("_", ":"): v for k, v in stable.items()})
    return history.origin(catalogue.find(ref))


def test_writers_of_an_image_are_those_since_it_was_stable(repository: Repository) -> None:
    first = repository.commit("images/app/image.yaml")
    second = repository.commit("templates/_partials/x.j2", "Bob", "bob@x")
    repository.commit("images/app/image.lock", "Robot", "ci@x")
    head = repository.commit("images/base/image.lock", "Robot", "ci@x")
    got = origin(repository, "app:1", app_1=first)
    expected = Origin(Tree.CLEAN, "carl@host", head, (("app:1", first),), ("Bob <bob@x>",), ("Robot <ci@x>",))
    assert got == expected
    assert origin(repository, "app:1", app_1=second) == replace(
        expected, since=(("app:1", second),), writers=()
    )


def test_a_new_image_on_one_that_is_stable_has_the_writers_of_its_own_files(repository: Repository) -> None:
    repository.commit("templates/_partials/x.j2", "Bob", "bob@x")
    stable = repository.commit("images/base/checks.yaml", "Bob", "bob@x")
    repository.commit("images/app/image.yaml", "Eve", "eve@x")
    found = origin(repository, "app:1", base_1=stable)
    assert found.writers == ("Bob <bob@x>", "Eve <eve@x>")  # Bob's first commit made app's folder, too
    assert found.since == (("base:1", stable),)


def test_the_stable_image_is_asked_in_the_registry(repository: Repository) -> None:
    asked: list[str] = []

    class Nothing:
        def head_manifest(self, ref: Reference) -> None:
            asked.append(str(ref))

    catalogue = load_catalogue(repository.root)
    repository.commit("images/app/image.yaml")
    history = Historian(catalogue, ENVIRONMENT, Nothing(), "r.example", lambda *_: True, "carl@host")  # type: ignore[arg-type]
    assert history.origin(catalogue.find("app")).since == ()
    assert asked == ["r.example/app:1", "r.example/base:1"]
