"""What section 4 of the CIS Docker Benchmark asks of images, and what here answers it.

`checks` are rules of `hardening.py` and `probe.py`, `policy` rules of the policy. Source: CIS
Docker Benchmark 1.6.0, section 4 "Container Images and Build File Configuration".
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "CIS Docker Benchmark 1.6.0, section 4"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommendation, the rules that hold it, and what they cannot say."""

    number: str
    title: str
    checks: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    note: str = ""


SECTION_4 = (
    Recommendation("4.1", "A user for the container has been created", ("not-root", "accounts-locked")),
    Recommendation(
        "4.2",
        "Containers use only trusted base images",
        policy=("evidence-complete",),
        note="a parent is built here and pinned by digest; it is named in the attested provenance",
    ),
    Recommendation(
        "4.3",
        "Unnecessary packages are not installed",
        (
            "no-shell",
            "no-package-manager",
            "no-privilege-tools",
            "no-maintainer-tools",
            "no-build-tools",
            "no-network-tools",
            "no-caches",
        ),
    ),
    Recommendation(
        "4.4",
        "Images are scanned and rebuilt to include security patches",
        policy=("known-exploited", "vulnerabilities-fixable", "vulnerabilities-unfixed", "database-fresh"),
        note="`goldsmith nightly` rebuilds, the clock measures how long it took",
    ),
    Recommendation(
        "4.5",
        "Content trust is enabled",
        note="every image is signed before a tag moves; `goldsmith client-config` makes clients demand it",
    ),
    Recommendation(
        "4.6",
        "HEALTHCHECK instructions have been added",
        note="not held, on purpose: a base image runs nothing of its own, and orchestrators bring their own "
        "probes; an image built on it adds one",
    ),
    Recommendation("4.7", "Update instructions are not used alone", ("plain-history", "no-caches")),
    Recommendation(
        "4.8",
        "Setuid and setgid permissions are removed",
        ("no-setuid", "no-file-capabilities", "no-privilege-tools"),
    ),
    Recommendation("4.9", "COPY is used instead of ADD", ("plain-history",), ("dockerfile-lint",)),
    Recommendation(
        "4.10",
        "Secrets are not stored in Dockerfiles",
        ("no-secrets-in-configuration", "no-private-keys", "no-histories"),
        ("secrets",),
    ),
    Recommendation(
        "4.11",
        "Only verified packages are installed",
        ("plain-history",),
        ("scanner-identity",),
        "a lock is made from an index that the archive's keys signed; the scan has to see exactly "
        "its packages",
    ),
    Recommendation(
        "4.12",
        "All signed artifacts are validated",
        note="`goldsmith verify`, the gate and the client configurations verify before use",
    ),
)
