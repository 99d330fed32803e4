"""`check_1000`: seconds to check 1,000 Dockerfiles, from the start of the command, against hadolint."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator

from builder.signing.keys import load_keys
from builder.store import Store
from builder.tools import process
from builder.tools.hadolint import locate
from registry.devcheck.known_file import encode
from tests.bench.scene import Scene, Stopwatch
from tests.support.known import digest, known, pinned

_FILES, _RUNS = 1000, 3
_BODY = """# syntax=docker/dockerfile:1
# what this is for
ARG VERSION=3.13
FROM {first} AS build
WORKDIR /src
COPY pyproject.toml requirements.txt ./
RUN --mount=type=cache,target=/root/.cache \\
    python -m venv /venv \\
    # a comment inside
    && /venv/bin/pip install -r requirements.txt \\
    && /venv/bin/pip check
COPY . .
RUN <<EOF
set -e
python -m compileall .
EOF
FROM {second}
ENV PYTHONUNBUFFERED=1 PATH=/venv/bin:$PATH
LABEL org.example.number="{number}" \\
      org.example.more="more"
COPY --from=build /venv /venv
COPY --from=build /src /app
USER 65532
EXPOSE 8000
HEALTHCHECK --interval=30s CMD ["python", "-m", "health"]
ENTRYPOINT ["python", "-m", "app"]
"""


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of the whole command; the catalogue is a signed file, nobody is asked."""
    store = Store(scene.settings.state)
    keys = load_keys(store.keys, scene.settings.key_uris, scene.settings.passphrase)
    now = scene.settings.now
    fresh = known().model_copy(update={"exported": now, "valid_until": now + dt.timedelta(days=1)})
    with store.scratch("bench") as work:
        (work / "catalogue.json").write_bytes(encode(fresh, keys.verdict))
        firsts = (
            pinned("python:3.13"),
            "python:3.13",
            f"{fresh.mirror}/candidate/python:3.13@{digest('3.13.4')}",
        )
        files = []
        for number in range(_FILES):
            path = work / "src" / f"{number % 20}" / f"{number}.Dockerfile"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_BODY.format(first=firsts[number % 3], second=pinned("base:13"), number=number))
            files.append(path)
        command = [sys.executable, "-m", "builder", "check", work / "src", "--json"]
        command += ["--catalogue", work / "catalogue.json", "--trust", store.keys]
        times = []
        for _ in range(_RUNS):
            with Stopwatch() as watch:
                done = process.run(
                    command, environment=scene.settings.child_environment, timeout_seconds=120, ok=(4,)
                )
            times.append(watch.seconds)
        if done.text.count('"digest-behind"') != _FILES // 3:
            raise AssertionError("the check did not look")
        linter = locate(scene.settings.hadolint_binary, scene.settings.child_environment)
        with Stopwatch() as watch:
            process.run(
                [linter.path, "--no-fail", *files],
                environment=scene.settings.child_environment,
                timeout_seconds=300,
            )
    yield "check_1000", sorted(times)[_RUNS // 2], "s", watch.seconds
