"""The policy's rules and the checks."""

from __future__ import annotations

from generating.form import cell, page, table


def rules() -> str:
    """The policy's rules and the checks."""
    from builder.checks import hardening, probe
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
        "Without a container, from the files and the configuration (`builder/checks/hardening.py`):\n",
        table(
            ("id", "title", "variants"),
            [(f"`{r.id}`", r.title, ", ".join(r.variants)) for r in hardening.RULES],
        ),
        "In the locked-down container (`builder/checks/probe.py`):\n",
        table(("id", "title"), [(f"`{i}`", title) for i, title in probe.RULES]),
    ]
    return page(lines)
