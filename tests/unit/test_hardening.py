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

from builder.checks import cis
from builder.checks.files import check_files
from builder.checks.hardening import PATTERNS, RULES, WANTED, harden
from builder.checks.listing import CHECKS
from builder.checks.rule import Facts
from builder.errors import ToolError
from builder.model.definition import FileCheck
from builder.model.digest import Digest
from builder.model.evidence import Outcome
from builder.model.image import LAYER_TYPE, Descriptor, Layer
from builder.oci.filesystem import FileSystem, read_filesystem
from builder.oci.layout import create_layout, write_blob
from builder.policy.rules import RULES as POLICY_RULES
from tests.support.certificates import authorities
from tests.support.images import platform_image

CONFIG: Mapping[str, object] = {
    "User": "65532:65532",
    "Env": ["PATH=/usr/bin"],
    "Labels": {"org.opencontainers.image.title": "test"},
}
NOLOGIN = "/usr/sbin/nologin"
# No key: forty times the same letters.
PEM = b"-----BEGIN %sPRIVATE KEY-----\n" + b"QUJD" * 16 + b"\n-----END PRIVATE KEY-----\n"


@dataclass(frozen=True)
class Item:
    """One entry of a crafted layer."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    gid: int = 0


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
            info.pax_headers, info.uid, info.gid = dict(item.xattrs), item.uid, item.gid
            tar.addfile(info, io.BytesIO(item.data))
    compressed = gzip.compress(out.getvalue(), mtime=0)
    blob = Descriptor(LAYER_TYPE, write_blob(layout, compressed), len(compressed))
    return Layer(blob, Digest.of(out.getvalue()), "test")


def _files(folder: Path, *layers: list[Item]) -> FileSystem:
    layout = create_layout(folder / "layout")
    return read_filesystem(platform_image(layout, [_layer(layout, x) for x in layers]), WANTED, PATTERNS)


def _failed(
    folder: Path,
    *layers: list[Item],
    variant: str = "runtime",
    config: Mapping[str, object] = CONFIG,
    history: tuple[str, ...] = ("goldsmith: glibc", "goldsmith: libstdc++6"),
) -> dict[str, str]:
    results = harden(Facts(_files(folder, *layers), config, variant, "trixie", history))
    return {r.id: r.detail for r in results if r.outcome is Outcome.FAILED}


def _without(path: str) -> list[Item]:
    return [x for x in _sound() if x.path != path]


def test_a_sound_image_passes_every_rule(tmp_path: Path) -> None:
    assert _failed(tmp_path, _sound()) == {}


PLANTED = [
    ("no-shell", Item("usr/bin/dash", b"x", 0o755)),
    ("no-shell", Item("usr/bin/sh", kind=tarfile.SYMTYPE, link="../share/doc/dash/copyright")),
    ("no-shell", Item("opt/tool/busybox", b"x", 0o755)),
    ("no-package-manager", Item("usr/bin/dpkg", b"x", 0o755)),
    ("no-package-manager", Item("usr/bin/apt-get", b"x", 0o644)),
    ("no-package-manager", Item("usr/local/bin/pip3.13", b"x", 0o755)),
    ("no-setuid", Item("usr/bin/tool", b"x", 0o4755)),
    ("no-setuid", Item("var/mail", kind=tarfile.DIRTYPE, mode=0o2775)),
    ("no-world-writable", Item("etc/open", b"x", 0o666)),
    ("no-world-writable", Item("srv", kind=tarfile.DIRTYPE, mode=0o1777)),
    ("no-world-writable", Item("tmp", kind=tarfile.DIRTYPE, mode=0o777)),
    (
        "no-file-capabilities",
        Item("usr/bin/reach", b"x", 0o755, xattrs={"SCHILY.xattr.security.capability": "\x01"}),
    ),
    ("no-devices", Item("dev/null", kind=tarfile.CHRTYPE, mode=0o644)),
    ("no-devices", Item("opt/pipe", kind=tarfile.FIFOTYPE)),
    ("no-privilege-tools", Item("usr/bin/su", b"x", 0o755)),
    ("no-privilege-tools", Item("usr/sbin/unix_chkpwd", b"x", 0o755)),
    ("no-maintainer-tools", Item("usr/bin/update-alternatives", b"x", 0o755)),
    ("no-maintainer-tools", Item("usr/sbin/adduser", b"x", 0o755)),
    ("no-maintainer-tools", Item("var/lib/dpkg/info/libc6:amd64.postinst", b"x", 0o755)),
    ("no-build-tools", Item("usr/bin/x86_64-linux-gnu-gcc-14", b"x", 0o755)),
    ("no-build-tools", Item("opt/gdb", b"x", 0o755)),
    ("no-network-tools", Item("usr/bin/curl", b"x", 0o755)),
    ("programs-of-root", Item("usr/bin/tool", b"x", 0o755, uid=65532)),
    ("programs-of-root", Item("usr/bin/tool", b"x", 0o775, gid=65532)),
    ("no-dangling-links", Item("usr/lib/gone", kind=tarfile.SYMTYPE, link="../share/nothing")),
    ("no-dangling-links", Item("usr/lib/loop", kind=tarfile.SYMTYPE, link="loop")),
    ("no-dangling-links", Item("usr/lib/hard", kind=tarfile.LNKTYPE, link="usr/lib/gone")),
    ("no-private-keys", Item("etc/ssl/server.pem", PEM % b"")),
    ("no-private-keys", Item("opt/app/config", b"key: |\n" + PEM % b"OPENSSH ")),
    (
        "no-private-keys",
        Item("opt/app/old", PEM.replace(b"-\n", b"-\nProc-Type: 4,ENCRYPTED\n", 1) % b"RSA "),
    ),
    ("no-private-keys", Item("root/.ssh/id_ed25519", b"x")),
    ("no-private-keys", Item("opt/app/store.p12", b"x")),
    ("no-private-keys", Item("home/nonroot/.docker/config.json", b"{}")),
    ("no-histories", Item("root/.bash_history", b"ls\n")),
    ("no-histories", Item("home/nonroot/.python_history", b"x\n")),
    ("no-histories", Item("var/log/apt/history.log", b"x")),
    ("no-histories", Item("var/log/dpkg.log", b"x")),
    ("no-caches", Item("var/lib/apt/lists/deb_dists_trixie_InRelease", b"x")),
    ("no-caches", Item("var/cache/apt/pkgcache.bin", b"x")),
    ("no-caches", Item("root/.cache/pip/http/a", b"x")),
    ("no-caches", Item("tmp/left", b"x")),
    ("no-machine-identity", Item("etc/machine-id", b"0123456789abcdef0123456789abcdef\n", 0o444)),
    ("no-machine-identity", Item("var/lib/systemd/random-seed", b"x" * 512)),
    ("no-machine-identity", Item("etc/resolv.conf", b"nameserver 192.0.2.1\n")),
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


def test_a_rule_for_the_other_variant_is_told_as_not_applicable(tmp_path: Path) -> None:
    results = {r.id: r for r in harden(Facts(_files(tmp_path, _sound()), CONFIG, "dev", "trixie", ("x",)))}
    assert results.keys() == {r.id for r in RULES}
    assert results["no-shell"].outcome is Outcome.NOT_APPLICABLE
    assert results["no-setuid"].outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "item",
    [
        Item("usr/lib/libgnutls.so.30", b"\x7fELF" + PEM % b"RSA "),
        Item("usr/share/doc/x/README", b"It starts with -----BEGIN PRIVATE KEY----- and a line.\n"),
        Item("usr/share/app/key.pub", (PEM % b"").replace(b"PRIVATE", b"PUBLIC")),
        Item("etc/machine-id", b"", 0o444),
        Item("etc/machine-id", b"uninitialized\n", 0o444),
        Item("var/log", kind=tarfile.DIRTYPE, mode=0o755),
        Item("etc/mtab", kind=tarfile.SYMTYPE, link="../proc/self/mounts"),
        Item("sbin", kind=tarfile.SYMTYPE, link="usr/sbin"),
        Item("usr/lib/tool", kind=tarfile.SYMTYPE, link="../share/bash"),
        Item("usr/share/zoneinfo/localtime", kind=tarfile.SYMTYPE, link="/etc/localtime"),
        Item("srv/up", kind=tarfile.SYMTYPE, link="../usr/share"),
    ],
    ids=lambda i: i.path,
)
def test_what_only_looks_like_a_violation_passes(tmp_path: Path, item: Item) -> None:
    assert _failed(tmp_path, _sound(), [item]) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"Env": ["DATABASE_PASSWORD=hunter2"]},
        {"Env": ["AWS_SECRET_ACCESS_KEY=x"]},
        {"Env": ["HOME=https://user:word@example.com/"]},
        {"Labels": {"api_key": "x"}},
        {"Cmd": ["--token", "ghp_" + "a" * 36]},
    ],
)
def test_a_secret_in_the_configuration_fails(tmp_path: Path, change: Mapping[str, object]) -> None:
    assert "no-secrets-in-configuration" in _failed(tmp_path, _sound(), config={**CONFIG, **change})


@pytest.mark.parametrize("name", ["PGPASSFILE=/x", "TOKEN_FILE=/run/token", "SECRET=", "LANG=C.UTF-8"])
def test_the_place_of_a_secret_is_no_secret(tmp_path: Path, name: str) -> None:
    assert _failed(tmp_path, _sound(), config={**CONFIG, "Env": [name]}) == {}


@pytest.mark.parametrize(
    "line", ["/bin/sh -c apt-get update", "ADD file:1 in /", "goldsmith: a; rm -rf /", "goldsmith: "]
)
def test_a_layer_that_an_instruction_made_fails(tmp_path: Path, line: str) -> None:
    failed = _failed(tmp_path, _sound(), history=("goldsmith: data", line))
    assert list(failed) == ["plain-history"]


def test_a_failure_names_its_paths_but_not_endlessly(tmp_path: Path) -> None:
    many = [Item(f"srv/open{n}", b"", 0o666) for n in range(30)]
    detail = _failed(tmp_path, _sound(), many)["no-world-writable"]
    assert detail.startswith("/srv/open0 has mode 0666; /srv/open1 ")
    assert detail.endswith("and 10 more")


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


def test_every_check_says_why_and_by_whose_word() -> None:
    assert len({c.id for c in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert len(check.rationale) > 40, check.id
        assert check.source, check.id


def test_every_rule_that_can_be_planted_is() -> None:
    elsewhere = {"not-root", "plain-configuration", "no-secrets-in-configuration", "plain-history"}
    assert {rule for rule, _ in PLANTED} | elsewhere == {r.id for r in RULES}


def test_the_benchmark_of_cis_is_answered_line_by_line() -> None:
    assert [r.number for r in cis.SECTION_4] == [f"4.{n}" for n in range(1, 13)]
    checks, policy = {c.id for c in CHECKS}, {r.id for r in POLICY_RULES}
    for one in cis.SECTION_4:
        assert set(one.checks) <= checks, one.number
        assert set(one.policy) <= policy, one.number
        assert one.checks or one.policy or one.note, one.number
