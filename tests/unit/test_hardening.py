"""Each hardening rule passes on a sound image and fails on one planted violation."""

from __future__ import annotations

import gzip
import io
import ssl
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.checks.files import check_files
from builder.checks.hardening import RULES, WANTED, Facts, harden
from builder.errors import ToolError
from builder.model.definition import FileCheck
from builder.model.digest import Digest
from builder.model.evidence import Outcome
from builder.model.image import LAYER_TYPE, Descriptor, Layer
from builder.oci.filesystem import FileSystem, read_filesystem
from builder.oci.layout import create_layout, write_blob
from tests.support.certificates import authorities
from tests.support.images import platform_image

CONFIG: Mapping[str, object] = {
    "User": "65532:65532",
    "Env": ["PATH=/usr/bin"],
    "Labels": {"org.opencontainers.image.title": "test"},
}
NOLOGIN = "/usr/sbin/nologin"


@dataclass(frozen=True)
class Item:
    """One entry of a crafted layer."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)


def _sound() -> list[Item]:
    return [
        Item("etc/passwd", f"root:x:0:0:root:/root:{NOLOGIN}\nnonroot:x:65532:65532::/:{NOLOGIN}\n".encode()),
        Item("etc/debian_version", b"13.7\n"),
        Item("etc/os-release", kind=tarfile.SYMTYPE, link="../usr/lib/os-release", mode=0o777),
        Item("usr/lib/os-release", b'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n'),
        Item("etc/ssl/certs/ca-certificates.crt", authorities()),
        Item("usr/share/zoneinfo/Europe/Zurich", b"TZif2"),
        Item("usr/share/zoneinfo/America/New_York", b"TZif2"),
        Item("tmp", kind=tarfile.DIRTYPE, mode=0o1777),
        Item("usr/share/bash", kind=tarfile.DIRTYPE, mode=0o755),
        Item("usr/share/doc/dash/copyright", b"text"),
    ]


def _layer(layout: Path, items: list[Item]) -> Layer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.size, info.mode, info.type, info.linkname = len(item.data), item.mode, item.kind, item.link
            info.pax_headers = dict(item.xattrs)
            tar.addfile(info, io.BytesIO(item.data))
    compressed = gzip.compress(out.getvalue(), mtime=0)
    blob = Descriptor(LAYER_TYPE, write_blob(layout, compressed), len(compressed))
    return Layer(blob, Digest.of(out.getvalue()), "test")


def _files(folder: Path, *layers: list[Item]) -> FileSystem:
    layout = create_layout(folder / "layout")
    return read_filesystem(platform_image(layout, [_layer(layout, x) for x in layers]), WANTED)


def _failed(
    folder: Path, *layers: list[Item], variant: str = "runtime", config: Mapping[str, object] = CONFIG
) -> dict[str, str]:
    results = harden(Facts(_files(folder, *layers), config, variant, "trixie"))
    return {r.id: r.detail for r in results if r.outcome is not Outcome.PASSED}


def _without(path: str) -> list[Item]:
    return [x for x in _sound() if x.path != path]


def test_a_sound_image_passes_every_rule(tmp_path: Path) -> None:
    assert _failed(tmp_path, _sound()) == {}


PLANTED = [
    ("no-shell", Item("usr/bin/dash", b"x", 0o755)),
    ("no-shell", Item("usr/bin/sh", kind=tarfile.SYMTYPE, link="elsewhere")),
    ("no-shell", Item("opt/tool/busybox", b"x", 0o755)),
    ("no-package-manager", Item("usr/bin/dpkg", b"x", 0o755)),
    ("no-package-manager", Item("usr/bin/apt-get", b"x", 0o644)),
    ("no-package-manager", Item("usr/local/bin/pip3.13", b"x", 0o755)),
    ("no-setuid", Item("usr/bin/su", b"x", 0o4755)),
    ("no-setuid", Item("var/mail", kind=tarfile.DIRTYPE, mode=0o2775)),
    ("no-world-writable", Item("etc/open", b"x", 0o666)),
    ("no-world-writable", Item("srv", kind=tarfile.DIRTYPE, mode=0o1777)),
    ("no-world-writable", Item("tmp", kind=tarfile.DIRTYPE, mode=0o777)),
    (
        "no-file-capabilities",
        Item("usr/bin/ping", b"x", 0o755, xattrs={"SCHILY.xattr.security.capability": "\x01"}),
    ),
    ("no-devices", Item("dev/null", kind=tarfile.CHRTYPE, mode=0o644)),
    ("no-devices", Item("run/pipe", kind=tarfile.FIFOTYPE)),
    ("accounts-locked", Item("etc/shadow", b"root::19000:0:99999:7:::\n", 0o640)),
    ("accounts-locked", Item("etc/shadow", b"root:$y$j9T$abc:19000:0:99999:7:::\n", 0o640)),
    ("accounts-locked", Item("etc/passwd", b"root::0:0:root:/root:/usr/sbin/nologin\n")),
    ("accounts-locked", Item("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n")),
    ("accounts-locked", Item("etc/passwd", b"toor:x:0:0:root:/root:/usr/sbin/nologin\n")),
    ("accounts-locked", Item("etc/passwd", b"")),
    ("ca-bundle", Item("etc/ssl/certs/ca-certificates.crt", b"")),
    ("ca-bundle", Item("etc/ssl/certs/ca-certificates.crt", b"-----BEGIN CERTIFICATE-----\n?\n")),
    ("time-zones", Item("usr/share/zoneinfo/Europe/Zurich", b"")),
    ("os-release", Item("usr/lib/os-release", b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')),
    ("os-release", Item("etc/debian_version", b"trixie/sid\n")),
]


@pytest.mark.parametrize(
    ("rule", "item"), PLANTED, ids=[f"{r}-{i.path}-{n}" for n, (r, i) in enumerate(PLANTED)]
)
def test_a_planted_violation_fails_its_rule_and_no_other(tmp_path: Path, rule: str, item: Item) -> None:
    assert list(_failed(tmp_path, _sound(), [item])) == [rule]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("ca-bundle", "etc/ssl/certs/ca-certificates.crt"),
        ("time-zones", "usr/share/zoneinfo/America/New_York"),
        ("os-release", "usr/lib/os-release"),
        ("os-release", "etc/debian_version"),
        ("accounts-locked", "etc/passwd"),
    ],
)
def test_a_missing_file_fails_its_rule(tmp_path: Path, rule: str, path: str) -> None:
    assert list(_failed(tmp_path, _without(path))) == [rule]


def test_too_few_authorities_fail(tmp_path: Path) -> None:
    first = authorities().split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    ssl.create_default_context(cadata=first.decode())
    failed = _failed(tmp_path, _sound(), [Item("etc/ssl/certs/ca-certificates.crt", first)])
    assert "holds 1 certificates" in failed["ca-bundle"]


def test_the_dev_variant_may_have_a_shell_and_a_package_manager(tmp_path: Path) -> None:
    extra = [Item("usr/bin/dash", b"x", 0o755), Item("usr/bin/dpkg", b"x", 0o755)]
    assert _failed(tmp_path, _sound(), extra, variant="dev") == {}


@pytest.mark.parametrize("user", ["", "root", "0:0", "65532", "nonroot", "4294967296:65532", None])
def test_only_the_numeric_unprivileged_user_passes(tmp_path: Path, user: str | None) -> None:
    assert "not-root" in _failed(tmp_path, _sound(), config={**CONFIG, "User": user})


@pytest.mark.parametrize(
    "change",
    [
        {"User": "4294967296:65532"},
        {"Env": ["A=" + "x" * 5000]},
        {"Env": ["A=\x1b[31m"]},
        {"Entrypoint": "/bin/sh -c true"},
        {"Entrypoint": ["/bin/true", 7]},
        {"Labels": {"a": "\x1b]0;title\x07"}},
        {"Labels": {"a": 1}},
        {"Labels": ["a"]},
        {"Volumes": {"/data": {}}},
        {"Healthcheck": {"Test": ["CMD", "true"]}},
    ],
)
def test_a_hostile_configuration_fails(tmp_path: Path, change: Mapping[str, object]) -> None:
    assert "plain-configuration" in _failed(tmp_path, _sound(), config={**CONFIG, **change})


def test_a_whiteout_takes_away_what_lies_below(tmp_path: Path) -> None:
    below = [Item("usr/bin/dash", b"x", 0o755), Item("opt/a/sh", b"x", 0o755), Item("opt/b", b"")]
    above = [Item("usr/bin/.wh.dash"), Item("opt/.wh..wh..opq")]
    assert _failed(tmp_path, _sound() + below, above) == {}
    assert "opt/b" not in _files(tmp_path / "again", below, above).entries


def test_a_whiteout_cannot_hide_what_its_own_layer_brings(tmp_path: Path) -> None:
    above = [Item("usr/bin/dash", b"x", 0o755), Item("usr/bin/.wh.dash")]
    assert "no-shell" in _failed(tmp_path, _sound(), above)


def test_a_file_that_replaces_a_folder_takes_its_content_away(tmp_path: Path) -> None:
    files = _files(
        tmp_path,
        [Item("opt/x", kind=tarfile.DIRTYPE, mode=0o755), Item("opt/x/sh", b"", 0o755)],
        [Item("opt/x", b"")],
    )
    assert set(files.entries) == {"opt/x"}


def test_links_are_followed_inside_the_image_only(tmp_path: Path) -> None:
    files = _files(
        tmp_path,
        [
            Item("etc/os-release", kind=tarfile.SYMTYPE, link="../../../../usr/lib/os-release"),
            Item("usr/lib/os-release", b"ID=debian\n"),
            Item("loop", kind=tarfile.SYMTYPE, link="loop"),
        ],
    )
    assert files.read("etc/os-release") == b"ID=debian\n"
    assert files.resolve("loop") is None


def test_another_diff_id_is_refused(tmp_path: Path) -> None:
    layout = create_layout(tmp_path / "layout")
    good = _layer(layout, _sound())
    image = platform_image(layout, [Layer(good.blob, Digest.of(b"other"), "test")])
    with pytest.raises(ToolError, match="diff_id"):
        read_filesystem(image, WANTED)


@pytest.mark.parametrize(
    "data", [b"", b"not gzip", gzip.compress(b"x" * 511), gzip.compress(bytes(100 << 20))]
)
def test_a_damaged_layer_or_a_bomb_is_refused(tmp_path: Path, data: bytes) -> None:
    layout = create_layout(tmp_path / "layout")
    layer = Layer(Descriptor(LAYER_TYPE, write_blob(layout, data), len(data)), Digest.of(b"x"), "test")
    with pytest.raises(ToolError):
        read_filesystem(platform_image(layout, [layer]), WANTED)


@pytest.mark.parametrize(
    ("check", "passes"),
    [
        ({"path": "/etc/passwd", "kind": "file", "mode": "0644"}, True),
        ({"path": "/etc/passwd", "mode": "0600"}, False),
        ({"path": "/etc/passwd", "kind": "directory"}, False),
        ({"path": "/etc/os-release", "kind": "link"}, True),
        ({"path": "/etc/nothing"}, False),
        ({"path": "/etc/nothing", "present": False}, True),
        ({"path": "/etc/passwd", "present": False}, False),
        ({"path": "/lib/os-release"}, True),
        ({"path": "/lib/os-release", "present": False}, False),
        ({"path": "/tmp", "kind": "directory", "mode": "1777"}, True),
    ],
)
def test_file_checks(tmp_path: Path, check: dict[str, object], passes: bool) -> None:
    files = _files(tmp_path, [*_sound(), Item("lib", kind=tarfile.SYMTYPE, link="usr/lib")])
    (only,) = check_files(files, (FileCheck.model_validate(check),))
    assert (only.outcome is Outcome.PASSED) is passes


def test_ids_are_unique() -> None:
    assert len({r.id for r in RULES}) == len(RULES)
