from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import LockError, UsageError
from builder.tools import mirror
from builder.tools.mirror import Mirror

DEBIAN = Mirror("http://mirror.example/debian", "http://mirror.example/debian-security")


def apt_etc(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        folder = tmp_path if name == "sources" else tmp_path / "sources.list.d"
        file = "sources.list" if name == "sources" else name.replace("_", ".")
        (folder / file).write_text(text)
    return tmp_path


def test_one_address_gives_the_security_archive_by_convention() -> None:
    assert mirror.find("http://mirror.example/debian/") == DEBIAN


def test_two_addresses() -> None:
    found = mirror.find("file:/srv/main, https://other.example/security/")
    assert found == Mirror("file:/srv/main", "https://other.example/security")


@pytest.mark.parametrize(
    "text",
    [
        "mirror.example",
        "ftp://mirror.example/debian",
        "http://mirror.example/something",
        "http://mirror.example/debian x",
        "http://mirror.example/debian]\ndeb [trusted=yes] http://evil.example/debian",
        "http://mirror.example/debian,",
    ],
)
def test_what_is_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        mirror.find(text)
    assert caught.value.hint


def test_the_one_line_format(tmp_path: Path) -> None:
    etc = apt_etc(
        tmp_path,
        sources=(
            "# deb http://commented.example/debian trixie main\n"
            "deb-src http://sources.example/debian trixie main\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian/ bookworm main contrib\n"
            "deb http://mirror.example/debian-security bookworm-security main # fixes\n"
        ),
    )
    assert mirror.find(None, etc) == DEBIAN


def test_the_stanza_format(tmp_path: Path) -> None:
    etc = apt_etc(
        tmp_path,
        debian_sources=(
            "Types: deb deb-src\n# a remark\nURIs: http://mirror.example/debian/\n"
            "Suites: trixie\n trixie-updates\nComponents: main\nSigned-By: /k/debian-archive-keyring.gpg\n"
            "\n"
            "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\n"
            "Components: main\n"
        ),
        off_sources=(
            "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n"
        ),
    )
    assert mirror.find(None, etc) == DEBIAN


def test_the_packages_of_others_are_not_taken_for_debian(tmp_path: Path) -> None:
    etc = apt_etc(
        tmp_path,
        a_list=(
            "deb http://vendor.example/apt bookworm main\n"
            "deb http://browser.example/deb stable main\n"
            "deb http://engine.example/linux/debian bookworm stable\n"
            "deb http://database.example/debian bookworm-pgdg main\n"
        ),
        z_list="deb http://mirror.example/debian bookworm main\n",
    )
    assert mirror.find(None, etc) == DEBIAN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "deb http://archive.example/ubuntu jammy main universe\n",
        "deb cdrom:[Debian]/ trixie main\n",
        "deb http://only.example/main trixie main\n",
    ],
)
def test_a_host_that_knows_no_mirror(tmp_path: Path, text: str) -> None:
    with pytest.raises(LockError, match="mirror is known") as caught:
        mirror.find(None, apt_etc(tmp_path, sources=text))
    assert "GOLDSMITH_DEBIAN_MIRROR" in caught.value.hint


def test_where_a_package_may_be() -> None:
    main, security = DEBIAN.addresses("pool/main/h/hello/hello_1_amd64.deb")
    assert main.startswith("http://mirror.example/debian/pool/main/")
    assert security.startswith("http://mirror.example/debian-security/pool/main/")
    assert DEBIAN.addresses("pool/updates/main/x.deb")[0].startswith("http://mirror.example/debian-security/")


@pytest.mark.parametrize("scheme", ["mirror+file://", "mirror+file:", "mirror:file:"])
def test_the_list_of_mirrors_of_a_cloud_image(tmp_path: Path, scheme: str) -> None:
    etc = apt_etc(
        tmp_path,
        debian_sources="".join(
            f"Types: deb deb-src\nURIs: {scheme}{tmp_path}/{name}.list\nSuites: {suite}\nComponents: main\n\n"
            for name, suite in (("debian", "trixie trixie-updates"), ("security", "trixie-security"))
        ),
    )
    (tmp_path / "debian.list").write_text("# ours\n\nhttp://mirror.example/debian/\tpriority:1\n")
    (tmp_path / "security.list").write_text("http://mirror.example/debian-security\n")
    assert mirror.find(None, etc) == DEBIAN


def test_a_list_of_mirrors_that_is_not_there(tmp_path: Path) -> None:
    etc = apt_etc(tmp_path, sources=f"deb mirror+file:{tmp_path}/none.list trixie main\n")
    with pytest.raises(LockError, match="no Debian mirror"):
        mirror.find(None, etc)


@pytest.mark.parametrize("word", ["no", "false", "off"])
def test_a_disabled_source(tmp_path: Path, word: str) -> None:
    etc = apt_etc(
        tmp_path,
        x_sources=f"Enabled: {word}\nTypes: deb\nURIs: http://a.example/debian\nSuites: trixie\nComponents: main\n",
    )
    with pytest.raises(LockError, match="no Debian mirror"):
        mirror.find(None, etc)
