"""No package has a licence that the policy denies, or that it does not allow."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.evidence import PackageLicence, ScanReport
from builder.model.licence import NOASSERTION, Term, parse_expression, refused
from builder.policy.rule import Case, Rule, Seen
from builder.policy.schema import LicenceLimits


def _check(case: Case) -> Iterator[Seen]:
    limits = case.policy.licences
    for scan in case.scans:
        yield from _as_scanned(scan, limits)
        for package in scan.expressions:
            for licence in _against(package, limits):
                yield {"platform": scan.platform, "package": package.package, "licence": licence}
        if limits.allowed or limits.unknown == "refuse":
            yield from _never_read(scan)


def _as_scanned(scan: ScanReport, limits: LicenceLimits) -> Iterator[Seen]:
    """The names that the scanner reports, of packages and loose files; only denials are by them."""
    denied = {name.casefold() for name in limits.denied}
    for package in scan.licences:
        for licence in package.licences:
            if licence.casefold() in denied:
                said = f"the denied licence {licence}"
                yield {
                    "platform": scan.platform,
                    "package": package.package or "a loose file",
                    "licence": said,
                }


def _never_read(scan: ScanReport) -> Iterator[Seen]:
    """Packages of which nothing was read: reports of before, and images that others made."""
    read = {package.package for package in scan.expressions}
    for name in sorted({package.partition("=")[0] for package in scan.packages} - read):
        yield {"platform": scan.platform, "package": name, "licence": "a licence that was not read"}


def _against(package: PackageLicence, limits: LicenceLimits) -> Iterator[str]:
    if package.expression == NOASSERTION:
        if limits.unknown == "refuse":
            yield "a copyright file that tells no licence, or none"
        return
    try:
        expression = parse_expression(package.expression)
    except ValueError as error:
        yield f"a malformed expression ({error})"
        return
    denied, allowed = _folded(limits.denied), _folded(limits.allowed)

    def accepts(term: Term) -> bool:
        names = {str(term).casefold(), term.category}
        if not term.exception:
            names.add(term.licence.casefold())
        if term.category == "unknown" and limits.unknown == "refuse" and not names & allowed:
            return False
        return not names & denied and (not allowed or bool(names & allowed))

    for term in refused(expression, accepts):
        word = "denied" if {str(term).casefold(), term.category} & denied else "not allowed"
        yield f"the licence {term} ({term.category}), which is {word}"


def _folded(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.casefold() for name in names)


RULE = Rule(
    id="licences",
    title="Only licences that the policy allows",
    failure="{platform}: {package} has {licence}",
    solution="leave the package out, or ask the policy's owner whether the licence is acceptable",
    check=_check,
    needs="scan",
)
