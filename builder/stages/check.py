"""Check: one candidate → what it showed, file by file and in a locked-down container.

In: the target's checks, the candidate by digest, an engine or the reason why there is none.
Out: a report with an outcome for every check. Without an engine the rules about files still
give results, and everything that needs a container says "not run", which no policy accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builder.checks import hardening, probe
from builder.checks.declared import declared
from builder.checks.files import check_files
from builder.checks.hardening import PATTERNS, WANTED, harden
from builder.checks.probe import probe_trial
from builder.checks.rule import Facts, Rule, result, told_history
from builder.errors import ToolError
from builder.model.definition import CommandCheck
from builder.model.evidence import CheckReport, CheckResult, Outcome
from builder.model.image import PlatformImage, Target
from builder.oci.filesystem import read_filesystem
from builder.oci.layout import read_blob_json, read_manifest
from builder.store import Store
from builder.tools.container import Bench, Observation, Trial, loaded
from builder.tools.docker_engine import Engine
from builder.tools.emulator import NATIVE, Emulator

CHECK_VERSION = 3  # moves when the same candidate could get other results
_THREADS = 3
_EMULATED = 8  # how many times longer an emulated command may take
_SHOWN_MAX = 160  # characters of an output that a result quotes


def check(
    target: Target,
    image: PlatformImage,
    engine: Engine | ToolError,
    probe_folder: Callable[[], Path],
    store: Store,
    *,
    emulator: Emulator | ToolError = NATIVE,
    assembler_suite: str = "",
    added: tuple[Rule, ...] = (),
) -> CheckReport:
    """All checks of one platform's candidate.

    `engine` is where containers run, `emulator` how programs of the platform run there; or the
    error that tells why not. `probe_folder` gives the folder with the probe's programs, which are
    of `assembler_suite`. `added` are the checks of extensions. Raises RegistryError or ToolError when
    the candidate's own layers are damaged; an engine that fails makes checks "not run".
    """
    _same_candidate(image)

    def in_containers() -> tuple[str, tuple[CheckResult, ...]]:
        where = "none"
        try:
            if isinstance(engine, ToolError):
                raise engine
            where = f"docker {engine.version}"
            if isinstance(emulator, ToolError):
                raise emulator
            folder = probe_folder()
            with loaded(image, engine, store, emulator.program) as bench:
                trials = [probe_trial(folder, bench.prefix, not _fits(image, assembler_suite))]
                commands = target.command_checks(image.platform)
                trials += [Trial(c.run, c.timeout_seconds) for c in commands]
                if emulator.slow:
                    trials = [replace(t, timeout_seconds=t.timeout_seconds * _EMULATED) for t in trials]
                return where, _dynamic(commands, bench, trials)
        except ToolError as error:
            return where, _not_run(target.command_checks(image.platform), error)

    # The engine loads and runs while we read the layers.
    with ThreadPoolExecutor(1, "files") as side:
        static = side.submit(_static, target, image, added)
        where, dynamic = in_containers()
        results = (*static.result(), *dynamic)
    return CheckReport(image.manifest.digest, image.platform, where, results)


def _fits(image: PlatformImage, suite: str) -> bool:
    """Whether the probe's programs, which are of `suite`, run with the image's own libraries."""
    sources = {p.source for p in image.packages}
    return not suite or (image.lock.suite == suite and {"glibc", "openssl"} <= sources)


def _same_candidate(image: PlatformImage) -> None:
    """What is checked is what the manifest's digest names, not merely something beside it."""
    manifest = read_manifest(image.layout, image.manifest)
    named = (manifest.config.digest if manifest.config else None, *(x.digest for x in manifest.layers))
    if named != (image.config.digest, *(x.blob.digest for x in image.layers)):
        raise ToolError(
            "the candidate's manifest names other content than the candidate", context=image.manifest.digest
        )


def _static(target: Target, image: PlatformImage, added: tuple[Rule, ...]) -> tuple[CheckResult, ...]:
    rules = (*hardening.RULES, *declared(target.common))
    files = read_filesystem(image, {*WANTED, *(path for rule in added for path in rule.reads)}, PATTERNS)
    document = read_blob_json(image.layout, image.config)
    config = document.get("config")
    facts = Facts(
        files,
        config if isinstance(config, dict) else {},
        target.variant,
        target.stream.suite,
        told_history(document),
    )
    ours = (*harden(facts, rules), *check_files(files, target.file_checks(image.platform)))
    # Code of others comes last: nothing is asked of what it may have left behind.
    return (*ours, *harden(facts, added))


def _id(check: CommandCheck) -> str:
    return "command:" + re.sub(r"[^a-z0-9]+", "-", check.name.lower()).strip("-")


def _not_run(commands: tuple[CommandCheck, ...], error: ToolError) -> tuple[CheckResult, ...]:
    reason = f"not run: {error.message}" + (
        f" ({error.context.replace(chr(10), '; ')[:300]})" if error.context else ""
    )
    named = [*((r.id, r.title) for r in probe.RULES), *((_id(c), c.name) for c in commands)]
    return tuple(CheckResult(i, title, Outcome.NOT_RUN, reason) for i, title in named)


def _dynamic(
    commands: tuple[CommandCheck, ...], bench: Bench, trials: Sequence[Trial]
) -> tuple[CheckResult, ...]:
    """The probe and the image's own commands, a few at a time; in the order of the definition."""
    with _threads(bench) as threads:
        probed, *ran = [threads.submit(bench.run, trial) for trial in trials]
        results = [*probe.judge_probe(probed.result())]
        for command, future in zip(commands, ran, strict=True):
            results.append(result(_id(command), command.name, _failures(command, future.result())))
    return tuple(results)


@contextmanager
def _threads(bench: Bench) -> Iterator[ThreadPoolExecutor]:
    """Threads that end at once when we are interrupted: their containers are taken away."""
    threads = ThreadPoolExecutor(_THREADS, "check")
    try:
        yield threads
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        bench.close()
        raise
    finally:
        threads.shutdown()


def _failures(check: CommandCheck, seen: Observation) -> Iterator[str]:
    if seen.problem:
        yield seen.problem
        return
    if seen.exit_code != check.exit_code:
        said = _shown(seen.stderr or seen.stdout)
        yield f"exit code {seen.exit_code}, not {check.exit_code}; it said {said}"
    if check.stdout is not None and seen.stdout != check.stdout.encode():
        yield f"it printed {_shown(seen.stdout)}, not {check.stdout[:_SHOWN_MAX]!r}"
    if check.stdout_contains is not None and check.stdout_contains.encode() not in seen.stdout:
        yield f"it printed {_shown(seen.stdout)}, without {check.stdout_contains[:_SHOWN_MAX]!r}"


def _shown(output: bytes) -> str:
    return repr(output[-_SHOWN_MAX:].decode("utf-8", "replace"))
