"""The probe: what can only be seen from inside a running container of the candidate.

A shell, `date` and `openssl` from the assembler's root are mounted read-only; they run with
the image's own C library, certificates and time zones. One run answers all three questions.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from builder.checks.hardening import CERTIFICATES_MIN, NONROOT, result
from builder.errors import ToolError
from builder.model.evidence import CheckResult, Outcome
from builder.tools.container import Observation, Trial

MOUNT = "/.goldsmith"
PROBE_SECONDS = 30
_PROGRAMS = ("usr/bin/dash", "usr/bin/date", "usr/bin/openssl")
_SCRIPT_NAME = "probe.sh"

RULES = (
    ("locked-down", "In a container it can write nothing and reach nobody, without any privilege"),
    ("ca-bundle-works", "OpenSSL reads the certificate authorities"),
    ("time-zones-work", "Local times are right"),
)

# Only built-in commands of the shell, but for the programs at $P.
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
echo "Zurich: $(TZ=Europe/Zurich $P/date -d @1782900000 +%z)"
echo "NewYork: $(TZ=America/New_York $P/date -d @1767225600 +%z)"
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
echo "Certificates: $($P/openssl storeutl -noout -certs "$bundle" | while read -r line; do last=$line
    case $last in Total*) echo "${last##* }" ;; esac; done)"
echo "Verified: $($P/openssl verify -no_check_time -CAfile "$bundle" "$bundle")"
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


def probe_trial(folder: Path) -> Trial:
    """The probe as a command."""
    return Trial(
        (f"{MOUNT}/dash", f"{MOUNT}/{_SCRIPT_NAME}"),
        PROBE_SECONDS,
        mount=folder,
        mount_at=MOUNT,
        environment={"OPENSSL_CONF": "/dev/null"},
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
        return tuple(CheckResult(i, t, Outcome.FAILED, detail) for i, t in RULES)
    return tuple(result(i, t, judge(answers)) for (i, t), judge in zip(RULES, judges, strict=True))


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
