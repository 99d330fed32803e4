"""The policy's rules, the checks, and why each check is there."""

from __future__ import annotations

from generating.form import cell, page, table


def rules() -> str:
    """The policy's rules and the checks."""
    from builder.checks.listing import CHECKS
    from builder.policy.rules import PROMOTION_RULES, RULES

    lines = [
        "# Rules and checks\n",
        "## Rules of the policy\n",
        "A verdict is an approval only when every rule passes. A rule that breaks, or whose evidence is missing, denies.",
        "One file a rule in `builder/policy/rules/`; `goldsmith why IMAGE` prints what each said.\n",
    ]
    rows = [
        (f"`{r.id}`", r.title, cell(f"`{r.failure}`"), cell(r.solution), r.needs or "-")
        for r in (*RULES, *PROMOTION_RULES)
    ]
    lines += [table(("id", "title", "failure message", "what to do", "needs"), rows)]
    lines += [
        "## Checks for all images\n",
        "Ids for `checks.required` and `checks.required_runtime` of a policy. Every check that ran must pass, required or not.",
        "An image's own commands have ids like `command:the-interpreter-runs`; they are not required by id.\n",
        "Why each is there, its source, and what the CIS benchmark asks: [hardening](hardening.md).\n",
        table(
            ("id", "title", "variants", "looks at"),
            [(f"`{r.id}`", r.title, ", ".join(r.variants), r.looks_at) for r in CHECKS],
        ),
    ]
    return page(lines)


def hardening() -> str:
    """The checks for all images with reason and source, and what answers the CIS benchmark."""
    from builder.checks import cis
    from builder.checks.listing import CHECKS

    lines = [
        "# Hardening\n",
        "What every image shows before it is signed. The results are attested with the image (in-toto test result);",
        "`goldsmith why IMAGE --checks` prints them, `goldsmith rules` lists the rules. `builder/checks/` holds them, a table",
        "of data and functions a subject; those that need a container are in `builder/checks/probe.py`.",
        "The level is as in the benchmarks of CIS: 1 costs nobody anything, 2 is defence in depth; all have to pass. A rule",
        "that does not hold for an image's variant says `not-applicable`. See also [the guide](../guide/hardening.md).\n",
        table(
            ("id", "demands", "why", "source", "level", "looks at", "variants"),
            [
                (
                    f"`{r.id}`",
                    r.title,
                    cell(r.rationale),
                    cell(r.source),
                    str(r.level),
                    r.looks_at,
                    ", ".join(r.variants),
                )
                for r in CHECKS
            ],
        ),
        f"## {cis.TITLE}\n",
        table(
            ("", "recommendation", "checks", "rules of the policy", ""),
            [
                (
                    one.number,
                    one.title,
                    ", ".join(f"`{c}`" for c in one.checks) or "-",
                    ", ".join(f"`{c}`" for c in one.policy) or "-",
                    cell(one.note),
                )
                for one in cis.SECTION_4
            ],
        ),
    ]
    return page(lines)
