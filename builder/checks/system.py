"""Hardening rules about what makes a file system a Debian release, and about its accounts."""

from __future__ import annotations

from collections.abc import Iterator

from builder.checks.rule import Facts, Rule

CERTIFICATES_MIN = 100
_CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_ZONES = ("usr/share/zoneinfo/Europe/Zurich", "usr/share/zoneinfo/America/New_York")
_OS_RELEASE, _DEBIAN_VERSION = "usr/lib/os-release", "etc/debian_version"
_PASSWD, _SHADOW = "etc/passwd", "etc/shadow"
WANTED = (_CA_BUNDLE, *_ZONES, _OS_RELEASE, "etc/os-release", _DEBIAN_VERSION, _PASSWD, _SHADOW)
_RELEASES = {"bookworm": "12", "trixie": "13"}


def _accounts_locked(facts: Facts) -> Iterator[str]:
    accounts = _table(facts.files.read(_PASSWD), 7)
    if not accounts:
        yield f"/{_PASSWD} is missing or empty"
    for fields in accounts:
        name = fields[0][:40]
        if len(fields) != 7:
            yield f"/{_PASSWD} has a malformed line for {name!r}"
            continue
        if fields[1] not in ("x", "*", "!"):
            yield f"{name} has a password in /{_PASSWD}"
        if fields[6] not in ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false"):
            yield f"{name} may log in with {fields[6][:40] or 'the default shell'}"
        if fields[2] == "0" and name != "root":
            yield f"{name} is another root"
    for fields in _table(facts.files.read(_SHADOW), 9):
        if len(fields) < 2 or not fields[1].startswith(("!", "*")):
            yield f"{fields[0][:40]} is not locked in /{_SHADOW}"


def _table(data: bytes | None, columns: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    return [line.split(":", columns) for line in lines if line.strip()]


def _ca_bundle(facts: Facts) -> Iterator[str]:
    import ssl

    data = facts.files.read(_CA_BUNDLE)
    if data is None:
        yield f"/{_CA_BUNDLE} is missing"
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        yield f"/{_CA_BUNDLE} is damaged: {str(error)[:100]}"
        return
    count = context.cert_store_stats()["x509_ca"]
    if count < CERTIFICATES_MIN:
        yield f"/{_CA_BUNDLE} holds {count} certificates, fewer than {CERTIFICATES_MIN}"


def _time_zones(facts: Facts) -> Iterator[str]:
    for path in _ZONES:
        if not (facts.files.read(path) or b"").startswith(b"TZif"):
            yield f"/{path} is missing or no time zone (tzfile(5))"


def _os_release(facts: Facts) -> Iterator[str]:
    text = (facts.files.read("etc/os-release") or facts.files.read(_OS_RELEASE) or b"").decode(
        "utf-8", "replace"
    )
    fields = {k: v.strip("\"'") for k, _, v in (line.partition("=") for line in text.splitlines())}
    release = _RELEASES.get(facts.suite, "?")
    expected = {"ID": "debian", "VERSION_ID": release, "VERSION_CODENAME": facts.suite}
    for key, value in expected.items():
        if fields.get(key) != value:
            yield f"os-release says {key}={fields.get(key, '')[:40]!r}, not {value!r}"
    version = (facts.files.read(_DEBIAN_VERSION) or b"").decode("utf-8", "replace").strip()
    if version.partition(".")[0] != release:
        yield f"/{_DEBIAN_VERSION} says {version[:40]!r}, not {release}"


RULES = (
    Rule(
        id="accounts-locked",
        title="Nobody can log in",
        rationale="An account with a password or a shell is a way in as soon as anything lets one log in.",
        source="CIS Debian Linux 12 Benchmark, user accounts; NIST SP 800-190, 4.1.2",
        looks_at="contents",
        failures=_accounts_locked,
    ),
    Rule(
        id="ca-bundle",
        title="The bundle of certificate authorities is complete",
        rationale="Without it programs cannot tell who answers, and people switch the verification off.",
        source="Goldsmith's golden path",
        looks_at="contents",
        failures=_ca_bundle,
    ),
    Rule(
        id="time-zones",
        title="The time zones are there",
        rationale="A program that falls back to UTC without a word computes wrong days, and logs wrong "
        "times.",
        source="Goldsmith's golden path; tzfile(5)",
        looks_at="contents",
        failures=_time_zones,
    ),
    Rule(
        id="os-release",
        title="The system says which release it is",
        rationale="Scanners look for no vulnerability in a system that they do not recognise, and say "
        "so nowhere.",
        source="Goldsmith's golden path; os-release(5)",
        looks_at="contents",
        failures=_os_release,
    ),
)
