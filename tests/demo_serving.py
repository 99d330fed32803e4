"""The second half of `make demo`: promote what was approved, and pull it through the gate.

What the commands `promote`, `up --gate` and `token create`, and `docker login` and `docker pull` do.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cli.audit import ledger_folder
from builder.cli.identity import Caller, caller, token_store
from builder.cli.office import open_office
from builder.cli.releasing import ReleaseTools
from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE
from builder.model.outcome import ImageOutcome
from builder.model.reference import Reference
from builder.oci.auth import Credentials
from builder.oci.client import RegistryClient
from builder.report import Reporter
from builder.settings import Settings
from builder.store import Store, write_atomically
from builder.tools import process
from builder.tools.docker_client import Combination
from registry.access.facts import token_fact
from registry.access.roles import EVERYTHING, Permission
from registry.access.tokens import NotAuthenticated
from registry.audit.ledger import Action, Ledger
from registry.gate import daemon
from registry.promotion.office import CANDIDATES
from registry.promotion.promote import promote
from registry.storage.daemon import answers

POLICY = "demo"  # one person's machine: there is nobody else who could approve
_CLIENT_SECONDS = 120
_LEFT = dt.timedelta(hours=1)
_HOLDER = "demo"


@dataclass(frozen=True)
class Client:
    """A developer's docker, logged in at the gate with a configuration folder of its own."""

    program: Path
    environment: Mapping[str, str]
    gate: str
    folder: Path
    token: str

    @property
    def registry(self) -> RegistryClient:
        """The same for verification."""
        return RegistryClient(self.gate, credentials=Credentials(_HOLDER, self.token))

    def pull(self, reference: str, ok: tuple[int, ...] = (0,)) -> process.Completed:
        """Pull with docker."""
        argv = [self.program, "pull", "--quiet", reference]
        return process.run(argv, environment=self.environment, timeout_seconds=_CLIENT_SECONDS, ok=ok)


def release(outcomes: list[ImageOutcome], gate: str, reporter: Reporter) -> None:
    """Promote images to `stable`: verified and judged once more, recorded in the ledger."""
    with open_office(POLICY) as (workshop, made, who):
        office = replace(made, hosts=(*made.hosts, gate))
        for outcome in outcomes:
            target = workshop.catalogue.find(outcome.ref)
            repo = f"{CANDIDATES}/{target.definition.name}"
            who.require(Permission.PROMOTE, repo)
            with reporter.stage(outcome.ref, "promote"):
                where = Reference.parse(outcome.reference)
                promote(office, office.client.reference(repo, digest=where.digest), target, "make demo")


def address(settings: Settings) -> str:
    """Where the gate listens: where it did, or where `goldsmith up --gate` starts it, or at a free port."""
    known = daemon.status(settings)
    own = settings.mirror if settings.mirror.startswith("127.0.0.1:") else daemon.LISTEN
    host, _, port = own.rpartition(":")
    if known.pid is not None:
        return known.address
    if not answers(host, int(port)):
        return own
    with socket.create_server((host, 0)) as free:
        return f"{host}:{free.getsockname()[1]}"


def log_in(tools: ReleaseTools, docker: Combination, gate: str) -> Client:
    """A client that shows a token of a day, and nothing of the user's own configuration."""
    settings, store = tools.workshop.settings, tools.workshop.store
    folder = store.root / "demo-client"
    folder.mkdir(mode=0o700, exist_ok=True)
    token = _token(settings, store, tools, folder / "token")
    environment = {
        **settings.child_environment,
        "DOCKER_HOST": docker.engine.host,
        "DOCKER_CONFIG": str(folder),
    }
    client = Client(docker.client, environment, gate, folder, token)
    process.run(
        [docker.client, "login", "--username", _HOLDER, "--password-stdin", gate],
        environment=environment,
        timeout_seconds=_CLIENT_SECONDS,
        stdin=folder / "token",
    )
    return client


def refused(client: Client, outcome: ImageOutcome, storage: RegistryClient) -> str:
    """What docker prints for an image that somebody brought into the storage past the pipeline."""
    name = outcome.ref.partition(":")[0]
    index = Reference.parse(outcome.reference)
    data, _, _ = storage.get_manifest(storage.reference(name, digest=index.digest))
    platform = json.loads(data)["manifests"][0]["digest"]
    data, _, _ = storage.get_manifest(storage.reference(name, digest=platform))
    strange = json.dumps({**json.loads(data), "annotations": {"by": "nobody knows whom"}}).encode()
    where = storage.reference(name, digest=Digest.of(strange))
    storage.put_manifest(where, strange, MANIFEST_TYPE)
    done = client.pull(f"{client.gate}/{name}@{where.digest}", ok=(0, 1))
    if done.returncode == 0 or "denied" not in done.log:
        raise ToolError("the gate handed out what nobody approved", context=str(where))
    return done.log.strip()


def _token(settings: Settings, store: Store, tools: ReleaseTools, path: Path) -> str:
    """The token of the run before while it is good for a while, else a new one."""
    tokens, who = token_store(store), caller(settings, store)
    try:
        shown = path.read_text()
        tokens.read().check(shown, settings.now + _LEFT)
        return shown
    except (FileNotFoundError, NotAuthenticated):
        return _new_token(settings, store, tools, path, who)


def _new_token(settings: Settings, store: Store, tools: ReleaseTools, path: Path, who: Caller) -> str:
    tokens = token_store(store)
    who.require(Permission.MANAGE_TOKENS, EVERYTHING)
    token, shown = tokens.draft(_HOLDER, ("developer",), (EVERYTHING,), days=1, by=who.name, now=settings.now)
    ledger = Ledger(ledger_folder(store), tools.trust)
    fact = token_fact(token, Action.CREATE_TOKEN, who.name, "make demo")
    ledger.append(fact, tools.keys.verdict, settings.now)
    tokens.add(token)
    write_atomically(path, shown.encode(), mode=0o600)
    return shown
