"""What should have moved by now, and what is in its way; and the schedules that make it move."""

from __future__ import annotations

import configparser
import datetime as dt
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder import watchdog
from builder.cli import main as command_line
from builder.model.rebuild import RebuildRequest
from builder.watchdog import Late
from tests.architecture.test_docs import mistake
from tests.support.catalogue import image, write
from tests.support.images import NOW
from tests.support.promotion import policy

HOUR = dt.timedelta(hours=1)
WITHIN = 26 * HOUR
SCHEDULES = Path(__file__).parents[2] / "registry" / "deploy" / "schedule"


DEADLINES = policy().data.deadlines


def late(
    night: Any, requests: list[RebuildRequest], now: dt.datetime, within: dt.timedelta
) -> tuple[Late, ...]:
    return watchdog.late(night, requests, now, within, DEADLINES)


def night(began: dt.datetime = NOW, **blocked: dt.datetime) -> dict[str, Any]:
    return {
        "began": began.isoformat(),
        "blocked": [
            {"what": what, "by": f"a reason of {what}", "since": since.isoformat(), "hint": "do it"}
            for what, since in blocked.items()
        ],
    }


def request(asked: dt.datetime, severity: str = "CRITICAL", exploited: bool = False) -> RebuildRequest:
    digest = "sha256:" + "ab" * 32
    value = {
        "ref": "python:3.13",
        "digest": digest,
        "vulnerability": "CVE-2026-4711",
        "package": "libssl3t64",
        "fixed_version": "3.5.8",
        "severity": severity,
        "requested_at": asked.isoformat(),
        "known_exploited": exploited,
    }
    return RebuildRequest.parse(value)


def test_nothing_is_late_after_a_good_night() -> None:
    assert late(night(NOW - 25 * HOUR), [request(NOW - 23 * HOUR)], NOW, WITHIN) == ()


def test_a_night_that_never_came_is_noticed() -> None:
    assert "no night has run" in late(None, [], NOW, WITHIN)[0].blocked_by
    (found,) = late(night(NOW - 30 * HOUR), [], NOW, WITHIN)
    assert found.hours(NOW) == 4
    assert "no night since" in found.blocked_by


def test_what_is_blocked_says_since_when_and_by_what() -> None:
    (found,) = late(night(NOW, base=NOW - 35 * HOUR, fresh=NOW - HOUR), [], NOW, WITHIN)
    assert found.sentence(NOW) == "base should have moved 9 h ago: blocked by a reason of base"


@pytest.mark.parametrize(
    ("severity", "exploited", "hours"),
    [
        ("CRITICAL", False, 24),
        ("LOW", True, 24),
        ("HIGH", False, 168),
        ("MEDIUM", False, 720),
        ("LOW", False, 2160),
    ],
)
def test_deadlines_by_severity(severity: str, exploited: bool, hours: int) -> None:
    asked = NOW - hours * HOUR
    assert late(night(), [request(asked, severity, exploited)], NOW, WITHIN) == ()
    (found,) = late(night(), [request(asked - HOUR, severity, exploited)], NOW, WITHIN)
    assert found.what == "python:3.13 (CVE-2026-4711 in libssl3t64)"
    assert found.hours(NOW) == 1


def test_a_late_fix_names_what_blocks_its_image() -> None:
    report = night()
    report["blocked"] = [
        {
            "what": "promotion of python:3.13",
            "by": "an approval is missing",
            "since": NOW.isoformat(),
            "hint": "",
        }
    ]
    (found,) = late(report, [request(NOW - 30 * HOUR)], NOW, WITHIN)
    assert found.blocked_by == "an approval is missing"


def test_the_command_ends_with_4_when_something_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write(tmp_path / "catalogue", image("base")))
    monkeypatch.delenv("GOLDSMITH_CATALOGUE", raising=False)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    assert command_line.run(["watchdog"]) == 4
    assert "no night has run here yet" in capsys.readouterr().out
    report = tmp_path / "state" / "nightly" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps(night(dt.datetime.now(dt.UTC))))
    assert command_line.run(["watchdog", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"late": []}
    for text in ("", "[]", '{"began": 7}', '{"began": "2026-03-01T00:00:00Z", "blocked": [7]}'):
        report.write_text(text)
        assert command_line.run(["watchdog"]) == 5, text


# The schedules are files that people copy: each has to be whole, and to call commands that there are.


def commands(file: Path) -> list[list[str]]:
    """The calls of goldsmith in a file."""
    found = re.findall(
        r"(?:/opt/goldsmith/bin/)?goldsmith ((?:nightly|notify|watchdog)\b[^\n\"|>;]*)", file.read_text()
    )
    return [shlex.split(call) for call in found]


def test_every_schedule_calls_commands_that_there_are() -> None:
    files = [f for f in SCHEDULES.iterdir() if f.suffix != ".timer"]
    for file in files:
        calls = commands(file)
        if file.name == "cronjob.yaml":
            (job,) = yaml.safe_load_all(file.read_text())
            calls = [job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]]
        assert calls, file
        assert [mistake(call) for call in calls] == [""] * len(calls), file


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(SCHEDULES / name)
    return parsed


def test_the_timer_runs_nightly_and_catches_up() -> None:
    timer, service = unit("goldsmith-nightly.timer"), unit("goldsmith-nightly.service")
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d:\d\d UTC", timer["Timer"]["OnCalendar"])
    assert timer["Timer"]["Persistent"] == "true"
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["User"] != "root"
    assert service["Service"]["SuccessExitStatus"] == "4"


def test_the_cron_table_is_whole() -> None:
    lines = [x for x in (SCHEDULES / "crontab").read_text().splitlines() if x and not x.startswith("#")]
    entries = [x.split(None, 6) for x in lines if "=" not in x.split()[0]]
    for minute, hour, *days, user, command in entries:
        assert minute.isdigit()
        assert hour == "*" or hour.isdigit()
        assert days == ["*"] * 3
        assert user == "goldsmith"
        assert command.startswith("/opt/goldsmith/bin/goldsmith ")
    assert len(entries) == 3


def test_the_cluster_runs_one_night_at_a_time_without_rights() -> None:
    (job,) = yaml.safe_load_all((SCHEDULES / "cronjob.yaml").read_text())
    spec = job["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert not any("value" in e and "PASS" in e["name"] for e in container["env"])


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_examples_for_services_run_one_night_at_a_time(name: str) -> None:
    value = yaml.safe_load((SCHEDULES / name).read_text())
    if name.startswith("github"):
        assert value["concurrency"] == {"group": "goldsmith-nightly", "cancel-in-progress": False}
        steps = value["jobs"]["nightly"]["steps"]
        assert all(set(step) <= {"name", "run", "if"} for step in steps), "no action of a stranger"
        assert value["permissions"] == {"contents": "read"}
    else:
        assert value["nightly"]["resource_group"] == "goldsmith-nightly"
        assert value["nightly"]["artifacts"]["reports"]["junit"] == "report/report.xml"
