"""What runs: on which base, how that is known, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from builder.cli import developers, trusting
from builder.cli import main as command_line
from builder.errors import ToolError, UsageError
from builder.model.digest import Digest
from registry.devcheck.known import Known
from registry.inventory.bases import Placed, counted, place, running_digests
from registry.inventory.kept import Look, keep, looks
from registry.inventory.running import Running, of_containers, of_list, of_pods
from tests.support.images import NOW
from tests.support.known import MIRROR, TODAY, build, digest, image, known

LIBC, OPENSSL, OLD_SSL, PYTHON, OWN = (Digest(digest(n)) for n in ("libc", "ssl", "old ssl", "py", "own"))
NOW_ON = f"{MIRROR}/candidate/python:3.13@{digest('3.13.5')}"


def stacked() -> Known:
    """Python on base; one earlier build of each."""
    base = image(
        "base:13",
        current=build("base-2", "libc6=2.41", layers={"linux/amd64": (LIBC, OPENSSL)}),
        previous=(build("base-1", "libc6=2.41", layers={"linux/amd64": (LIBC, OLD_SSL)}),),
    )
    python = image("python:3.13")
    current = python.current.model_copy(update={"layers": {"linux/amd64": (LIBC, OPENSSL, PYTHON)}})
    return known(base, python.model_copy(update={"current": current}))


def one(running: Running, catalogue: Known | None = None, today: dt.date = TODAY) -> Placed:
    (found,) = place([running], catalogue or stacked(), today)
    return found


def runs(*digests: str, **fields: Any) -> Running:
    return Running("pod web", "image", tuple(Digest(d) for d in digests), **fields)


def test_the_newest_digest_is_current() -> None:
    found = one(runs(digest("3.13.5")))
    assert (found.ref, found.by, found.states, found.instead) == ("python:3.13", "digest", (), "")
    assert one(runs(digest("3.13.5/amd64"))).ref == "python:3.13"


def test_an_earlier_digest_is_outdated_and_says_what_moving_mends() -> None:
    found = one(runs(digest("3.13.4")))
    assert found.states == ("outdated", "vulnerable")
    assert found.fixed == ("CVE-2026-7",)
    assert found.instead == NOW_ON


def test_an_image_of_a_developer_is_known_by_the_base_that_it_names() -> None:
    found = one(runs(OWN, base=Digest(digest("3.13.4"))))
    assert (found.by, found.states[0], found.digest) == ("annotation", "outdated", digest("3.13.4"))


@pytest.mark.parametrize(
    ("layers", "ref", "states"),
    [
        ((LIBC, OPENSSL, PYTHON, OWN), "python:3.13", ()),
        ((LIBC, OPENSSL, OWN), "base:13", ()),
        ((LIBC, OLD_SSL, OWN), "base:13", ("outdated",)),
        ((OWN, LIBC, OPENSSL), "", ("foreign",)),
        ((LIBC,), "", ("foreign",)),
    ],
)
def test_an_image_is_known_by_the_layers_that_it_stands_on(
    layers: tuple[Digest, ...], ref: str, states: tuple[str, ...]
) -> None:
    found = one(runs(OWN, layers=layers))
    assert (found.ref, found.states) == (ref, states)
    assert found.by == ("layers" if ref else "")


def test_what_has_neither_digest_nor_layers_is_unknown_and_not_fine() -> None:
    assert one(runs()).states == ("unknown",)


@pytest.mark.parametrize(
    ("changes", "today", "state"),
    [
        ({"channel": "withdrawn", "reason": "leaks", "replacement": "python:3.12"}, TODAY, "withdrawn"),
        ({"channel": "deprecated", "replacement": "python:3.12"}, TODAY, "deprecated"),
        ({"replacement": "python:3.12"}, dt.date(2030, 1, 1), "out-of-life"),
        ({"refused": "expired", "replacement": "python:3.12"}, TODAY, "not-approved"),
    ],
)
def test_a_line_that_has_ended_names_its_replacement(
    changes: dict[str, Any], today: dt.date, state: str
) -> None:
    alive = image("python:3.12", end_of_life=dt.date(2031, 1, 1))
    found = one(runs(digest("3.13.5")), known(image("python:3.13", **changes), alive), today)
    assert found.states == (state,)
    assert found.instead.startswith(f"{MIRROR}/candidate/python:3.12@")


def test_a_digest_that_was_called_back_is_withdrawn() -> None:
    line = image("python:3.13")
    back = line.previous[0].model_copy(update={"withdrawn": "a bad build"})
    found = one(runs(digest("3.13.4")), known(line.model_copy(update={"previous": (back,)})))
    assert found.states[0] == "withdrawn"
    assert found.instead == NOW_ON


def test_what_is_wrong_comes_first_and_is_counted() -> None:
    found = place([runs(digest("3.13.5")), runs(OWN), runs(digest("3.13.4"))], stacked(), TODAY)
    assert [bool(p.states) for p in found] == [True, True, False]
    assert counted(found) == {"current": 1, "foreign": 1, "outdated": 1, "vulnerable": 1}
    assert running_digests(found) == {digest("3.13.5"), digest("3.13.4")}


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "mirror.example/python:3.13"}]},
        "status": status,
    }


def container(text: str) -> dict[str, Any]:
    return {"name": "app", "image": "mirror.example/python:3.13", "imageID": text}


def test_pods_are_read_as_their_status_tells() -> None:
    pinned = "mirror.example/python@" + digest("3.13.5")
    listed = {
        "kind": "List",
        "items": [
            pod("web", containerStatuses=[container(f"docker-pullable://{pinned}")]),
            pod("job", phase="Succeeded", containerStatuses=[container(pinned)]),
            pod("soon", phase="Pending"),
            pod("init", initContainerStatuses=[container(pinned)], containerStatuses=[container(pinned)]),
        ],
    }
    found = of_pods(json.dumps(listed).encode())
    assert [r.where.partition(",")[0] for r in found] == [
        "pod shop/web",
        "pod shop/soon",
        *["pod shop/init"] * 2,
    ]
    assert [r.digests for r in found] == [(digest("3.13.5"),), (), *[(digest("3.13.5"),)] * 2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items": 7}',
        b'{"kind": "List", "items": [7]}',
        b'{"kind": "PodList", "items": [{}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_list_of_pods_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="not a list of pods"):
        of_pods(data)


def test_a_list_has_a_reference_or_digest_a_line() -> None:
    found = of_list(f"# ours\n\nmirror.example/python:3.13@{digest('3.13.5')}\n{digest('own')}\npython:3\n")
    assert [(r.where, r.digests) for r in found] == [
        ("line 3", (digest("3.13.5"),)),
        ("line 4", (digest("own"),)),
        ("line 5", ()),
    ]


def test_containers_bring_layers_digests_and_labels() -> None:
    details = {
        "RepoDigests": [f"mirror.example/python@{digest('3.13.5')}"],
        "RootFS": {"Layers": [str(LIBC), str(OWN)]},
        "Config": {"Labels": {"org.opencontainers.image.base.digest": digest("base-1"), "x": "y"}},
    }
    (found,) = of_containers([{"name": "web", "image": "web:1", "details": details}])
    assert (found.where, found.digests) == ("container web", (digest("3.13.5"),))
    assert (found.layers, found.base) == ((LIBC, OWN), digest("base-1"))


@pytest.mark.parametrize("details", [{}, {"Config": None, "RootFS": None, "RepoDigests": None}])
def test_a_container_of_which_little_is_known(details: dict[str, Any]) -> None:
    (found,) = of_containers([{"name": "web", "image": "web:1", "details": details}])
    assert one(found).states == ("unknown",)


def test_the_command_wants_something_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.run(["inventory"]) == 2
    assert "--docker, --pods FILE or --list FILE" in capsys.readouterr().err


def test_what_ran_is_remembered_and_lives_with_torn_lines(tmp_path: Path) -> None:
    folder, hour = tmp_path / "running", dt.timedelta(hours=1)
    assert looks(folder, NOW) == ()
    first = Look("shop", NOW - hour, frozenset({digest("3.13.4")}))
    keep(folder, first)
    with open(folder / "shop.jsonl", "ab") as handle:
        handle.write(b'{"at": "2026')
    second = Look("shop", NOW, frozenset({digest("3.13.5"), digest("3.13.4")}))
    keep(folder, second)
    (folder / "other.jsonl").write_bytes(
        b'[]\n{"at": 7}\n\xff\n{"at": "2026-03-01T00:00:00Z", "digests": 7}\n'
    )
    assert looks(folder, NOW - hour) == (first, second)
    assert looks(folder, NOW) == (second,)
    for name in ("", "../shop", "Shop", "-", "a" * 64):
        with pytest.raises(UsageError, match="not a name"):
            keep(folder, Look(name, NOW, frozenset()))
    with pytest.raises(ToolError, match="cannot be remembered"):
        keep(folder / "shop.jsonl", first)


def test_the_command_remembers_a_look_for_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(trusting, "trusted", lambda *_: None)
    monkeypatch.setattr(developers, "known_images", lambda *_: stacked())
    listed = tmp_path / "digests.txt"
    listed.write_text(f"{digest('3.13.5')}\n{digest('somebody else')}\n")
    assert command_line.run(["inventory", "--list", str(listed), "--keep", "shop", "--json"]) == 4
    (found,) = looks(tmp_path / "state" / "running", NOW)
    assert (found.place, found.digests) == ("shop", {digest("3.13.5")})
    assert command_line.run(["inventory", "--list", str(listed), "--keep", "a b"]) == 2
