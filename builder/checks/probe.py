"""The probe: what can only be seen from inside a running container of the candidate.

A shell, `date` and `openssl` from the assembler's root are mounted read-only; they run with
the image's own libraries, certificates and time zones. An image that has no such libraries, or
those of another release, is probed with the assembler's. One run answers all three questions.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from builder.checks.configuration import NONROOT
from builder.checks.rule import About, result
from builder.checks.system import CERTIFICATES_MIN
from builder.errors import ToolError
from builder.model.evidence import CheckResult, Outcome
from builder.tools.container import Observation, Trial

MOUNT = "/.goldsmith"
PROBE_SECONDS = 60
_PROGRAMS = ("usr/bin/dash", "usr/bin/date", "usr/bin/openssl")
# The packages of the assembler's root that hold the programs and their libraries.
PACKAGES = frozenset({"coreutils", "dash", "libc6", "libssl3t64", "libzstd1", "openssl", "zlib1g"})
_LIBRARY = re.compile(
    r"usr/lib(?:64)?/(?:[a-z0-9_]+-linux-gnu/)?((?:lib(?:c|ssl|crypto|z|zstd)\.so\.\d+)|(?:ld-linux[a-z0-9-]*\.so\.\d+))"
)
_LOADER = "loader"
_SCRIPT_NAME = "probe.sh"

RULES = (
    About(
        id="locked-down",
        title="In a container it can write nothing and reach nobody, without any privilege",
        rationale="An image that works with a read-only root, without capabilities, new privileges or "
        "network "
        "can be run so; many that claim to were never tried.",
        source="CIS Docker Benchmark 1.6.0, 5.3, 5.12 and 5.25; NIST SP 800-190, 4.4.3 and 4.4.4",
        looks_at="a running container",
    ),
    About(
        id="ca-bundle-works",
        title="OpenSSL reads the certificate authorities",
        rationale="What is in the bundle only counts if the image's own OpenSSL accepts it.",
        source="Goldsmith's golden path",
        looks_at="a running container",
    ),
    About(
        id="time-zones-work",
        title="Local times are right",
        rationale="Zones that are there and not found give UTC without a word.",
        source="Goldsmith's golden path",
        looks_at="a running container",
    ),
)

# Only built-in commands of the shell, but for the programs at $P, which $R runs.
_SCRIPT = """\
P=/.goldsmith
while read -r key value rest; do
    case $key in
        Uid: | Gid: | CapInh: | CapPrm: | CapEff: | CapBnd: | CapAmb: | NoNewPrivs:) echo "$key $value" ;;
    esac
done </proc/self/status
for place in / /etc /usr /usr/bin /var /tmp /home/nonroot; do
    if (: >"$place/.goldsmith-probe") 2>/dev/null; then echo "Writable: $place"; fi
done
{ read -r _; read -r _; while read -r name _; do echo "Interface: ${name%%:*}"; done; } </proc/net/dev
echo "Zurich: $(TZ=Europe/Zurich $R $P/date -d @1782900000 +%z)"
echo "NewYork: $(TZ=America/New_York $R $P/date -d @1767225600 +%z)"
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
echo "Certificates: $($R $P/openssl storeutl -noout -certs "$bundle" | while read -r line; do last=$line
    case $last in Total*) echo "${last##* }" ;; esac; done)"
echo "Verified: $($R $P/openssl verify -no_check_time -CAfile "$bundle" "$bundle")"
echo "End: probe"
"""


def probe_folder(assembler: Path) -> Path:
    """The folder with the probe's programs, taken from the assembler's tar beside it.

    Raises ToolError when the tar lacks one of them or the folder cannot be written.
    """
    folder = assembler.with_suffix(".probe")
    script = _SCRIPT.encode()
    marker = folder / _SCRIPT_NAME
    if marker.is_file() and marker.read_bytes() == script:
        return folder
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(mode=0o755)
        with tarfile.open(assembler, mode="r:") as tar:
            for program in _PROGRAMS:
                source = tar.extractfile(program)
                if source is None:
                    raise KeyError(program)
                target = temporary / program.rpartition("/")[2]
                with open(target, "wb") as out:
                    shutil.copyfileobj(source, out)
                target.chmod(0o755)
            _copy_libraries(tar, temporary)
        (temporary / _SCRIPT_NAME).write_bytes(script)
        (temporary / _SCRIPT_NAME).chmod(0o644)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise ToolError(
            "the probe's programs cannot be made", context=str(error), hint="goldsmith lock"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _copy_libraries(tar: tarfile.TarFile, folder: Path) -> None:
    libraries = folder / "lib"
    libraries.mkdir(mode=0o755)
    for member in tar.getmembers():
        match = _LIBRARY.fullmatch(member.name)
        source = tar.extractfile(member) if match and not member.isdir() else None
        if match and source is not None:
            target = libraries / (_LOADER if match[1].startswith("ld-") else match[1])
            with open(target, "wb") as out:
                shutil.copyfileobj(source, out)
            target.chmod(0o755)
    libraries.chmod(0o755)


def probe_trial(folder: Path, prefix: tuple[str, ...] = (), own_libraries: bool = False) -> Trial:
    """The probe as a command; `prefix` goes before every program that the container starts by itself.

    With `own_libraries` the programs take those of the assembler and not the image's.
    """
    loader = (f"{MOUNT}/lib/{_LOADER}", "--library-path", f"{MOUNT}/lib") if own_libraries else ()
    return Trial(
        (*loader, f"{MOUNT}/dash", f"{MOUNT}/{_SCRIPT_NAME}"),
        PROBE_SECONDS,
        mount=folder,
        mount_at=MOUNT,
        environment={"OPENSSL_CONF": "/dev/null", "R": " ".join((*prefix, *loader))},
    )


def judge_probe(seen: Observation) -> tuple[CheckResult, ...]:
    """The results of the probe's rules. A probe that did not come to its end passes nothing."""
    lines = seen.stdout.decode("utf-8", "replace").splitlines()
    answers: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(": ")
        answers.setdefault(key, []).append(value.strip())
    broken = seen.problem or ("" if lines and lines[-1] == "End: probe" else _why(seen))
    judges = (_locked_down, _certificates, _zones)
    if broken:
        detail = f"the probe did not run to its end: {broken}"
        return tuple(CheckResult(r.id, r.title, Outcome.FAILED, detail) for r in RULES)
    return tuple(result(r.id, r.title, judge(answers)) for r, judge in zip(RULES, judges, strict=True))


def _why(seen: Observation) -> str:
    said = seen.stderr.decode("utf-8", "replace").strip()[-200:]
    return f"exit code {seen.exit_code}, {said or 'nothing said'}"


def _locked_down(answers: dict[str, list[str]]) -> Iterator[str]:
    for key in ("Uid", "Gid"):
        if answers.get(key) != [str(NONROOT)]:
            yield f"{key} is {answers.get(key)}"
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if answers.get(key) != ["0" * 16]:
            yield f"{key} is {answers.get(key)}"
    if answers.get("NoNewPrivs") != ["1"]:
        yield "new privileges can be gained"
    for place in answers.get("Writable", []):
        yield f"{place[:60]} can be written"
    if answers.get("Interface") != ["lo"]:
        yield f"network interfaces: {answers.get('Interface')}"


def _certificates(answers: dict[str, list[str]]) -> Iterator[str]:
    count = (answers.get("Certificates") or [""])[0]
    if not count.isdigit() or int(count) < CERTIFICATES_MIN:
        yield f"OpenSSL found {count[:40] or 'no'} certificates"
    if not (answers.get("Verified") or [""])[0].endswith(": OK"):
        yield "OpenSSL does not accept an authority of the bundle"


def _zones(answers: dict[str, list[str]]) -> Iterator[str]:
    for key, expected in (("Zurich", "+0200"), ("NewYork", "-0500")):
        if answers.get(key) != [expected]:
            yield f"{key} gives {answers.get(key)}, not {expected}"
