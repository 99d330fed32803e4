"""The composition root of a release: settings → the tools that check, scan, judge, sign, publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.cli.extending import extension_versions, find_policy_of
from builder.cli.kits import kit_of, tool_versions
from builder.cli.trusting import trusted
from builder.cli.wiring import Workshop, client_of
from builder.model.digest import Digest
from builder.model.evidence import CheckReport, Evidence, LintReport, NotDone, Sboms, ScanReport
from builder.model.image import BuildContext, BuiltImage, PlatformImage, Target
from builder.model.release import PublishedImage, SignedImage
from builder.model.verdict import Verdict
from builder.oci.client import RegistryClient
from builder.pipeline.denied import Means
from builder.pipeline.prepare import Prepared
from builder.pipeline.release import Tools
from builder.policy.schema import Policy
from builder.signing.keys import BUILDER, VERDICT, Keys, load_keys, load_public
from builder.signing.trust import Trust
from builder.store import file_digest
from builder.tools.emulator import runnable
from builder.tools.hadolint import Hadolint
from builder.tools.trivy import Trivy
from builder.tools.trivy_db import Database
from builder.version import version

if TYPE_CHECKING:
    from builder.cli.sources import Historian

_PROVENANCE_VERSION = 3  # 2: it says what an image is made of, and who wrote that; 3: it names a kit


@dataclass(frozen=True)
class ReleaseTools:
    """The tools of one release, each made when it is first needed."""

    workshop: Workshop
    policy_name: str
    database_source: str | None

    @cached_property
    def policy(self) -> Policy:
        """The named policy: the catalogue's own, or else the installed one."""
        return find_policy_of(self.workshop.settings, self.policy_name)

    @cached_property
    def client(self) -> RegistryClient:
        """The client of the configured registry."""
        return client_of(self.workshop.settings)

    @cached_property
    def keys(self) -> Keys:
        """The signers, which sign what will be believed; only the sign stage asks for them."""
        settings = self.workshop.settings
        keys = load_keys(self.workshop.store.keys, settings.key_uris, settings.passphrase)
        for signer in (keys.builder, keys.verdict):
            self.trust.require(signer.public, settings.now)
        return keys

    @cached_property
    def trust(self) -> Trust:
        """The public keys."""
        return trusted(self.workshop.store)

    @cached_property
    def trivy(self) -> Trivy:
        """The scanner."""
        from builder.tools.trivy import locate

        return locate(self.workshop.settings.trivy_binary, self.workshop.settings.child_environment)

    @cached_property
    def hadolint(self) -> Hadolint:
        """The linter."""
        from builder.tools.hadolint import locate

        return locate(self.workshop.settings.hadolint_binary, self.workshop.settings.child_environment)

    @cached_property
    def source(self) -> str | None:
        """Where the database is: the pinned copy of `database_source`, once it was mirrored."""
        from builder.stages.sync import read_pin

        pin = read_pin(self.workshop.store)
        return pin.reference if pin and self.database_source in (None, pin.asked) else self.database_source

    @cached_property
    def database(self) -> Database:
        """The vulnerability database, pinned by its digest."""
        from builder.tools.trivy_db import open_database

        return open_database(
            self.workshop.store,
            self.source,
            now=self.workshop.settings.now,
            age_days_max=self.policy.data.database.age_days_max,
        )

    def tools(self) -> Tools:
        """The tools of a release; raises what stands in the way of all images (keys, database)."""
        return Tools(
            check=self.check,
            scan=self.scan,
            lint=self.lint,
            judge=self.judge,
            provenance=self._provenance,
            sign=self._sign,
            publish=self._publish,
            identity=self.identity(str(self.database.identity.digest)),
            kit=lambda image: kit_of(self.workshop, image),
            means=self.means,
        )

    def identity(self, database: str | None) -> dict[str, Any]:
        """Everything that a verdict depends on beside the image; another part asks for a new verdict."""
        return {
            "policy": self.policy.digest,
            "exploited": self.policy.exploited.digest if self.policy.exploited else None,
            "database": database,
            "scanner": self._scanner_stamp(),
            "keys": [load_public(self.workshop.store.keys, role).hint for role in (BUILDER, VERDICT)],
            "registry": self.workshop.settings.registry,
            "goldsmith": version(),
            "provenance": _PROVENANCE_VERSION,
            "runs": runnable(self.workshop.settings.child_environment),
        }

    def means(self) -> Means:
        """Everything that the evidence on an image depends on beside the image; where it ran, no good result
        of a check depends on."""
        from builder.stages.check import CHECK_VERSION
        from builder.stages.lock import builder_lock_path

        settings, who = self.workshop.settings, self.workshop.extensions.identities
        probe = builder_lock_path(settings.catalogue)
        return Means(
            checks={
                "goldsmith": version(),
                "checks": CHECK_VERSION,
                "probe": file_digest(probe) if probe.is_file() else None,
                "runs": runnable(settings.child_environment),
                "extensions": [e.as_dict() for e in who("check")],
            },
            scan={
                "goldsmith": version(),
                "database": asdict(self.database.identity),
                "scanner": self._scanner_stamp(),
                "extensions": [e.as_dict() for e in who("scanner")],
            },
        )

    def last_identity(self) -> dict[str, Any]:
        """The same with the database that was opened last; nothing is fetched."""
        from builder.tools.trivy_db import current_digest

        return self.identity(current_digest(self.workshop.store, self.source))

    def still_published(self, image: BuiltImage) -> bool:
        """Whether the registry's tags still point to this image."""
        from builder.stages.publish import find_published

        return find_published(self.client, image.target, image.immutable_tag) == image.digest

    def in_place(self, prepared: Prepared, digest: Digest) -> bool:
        """The same, of an image that is known by its input and its digest."""
        from builder.stages.publish import find_published

        return find_published(self.client, prepared.target, prepared.immutable_tag) == digest

    def _scanner_stamp(self) -> list[object]:
        """Which scanner it is, without reading 150 MB of it in each run."""
        from builder.tools.trivy import binary

        path = binary(self.workshop.settings.trivy_binary, self.workshop.settings.child_environment)
        stat = path.stat()
        return [str(path), stat.st_size, stat.st_mtime_ns]

    def check(self, target: Target, image: PlatformImage) -> CheckReport:
        """Check one platform of an image."""
        return self.workshop.check(target, image)

    def scan(self, target: Target, image: PlatformImage, work: Path) -> tuple[ScanReport, Sboms]:
        """Scan one platform of an image."""
        from builder.stages.scan import scan

        further = self.workshop.extensions.scanners
        return scan(
            image,
            name=target.ref,
            database=self.database,
            trivy=self.trivy,
            work=work,
            further=further,
        )

    def lint(self, context: BuildContext) -> LintReport | NotDone:
        """Lint a rendered Dockerfile."""
        return self.hadolint.lint(context.files["Dockerfile"], variant=context.lock.variant)

    def judge(self, image: BuiltImage, evidence: tuple[Evidence, ...]) -> Verdict:
        """The policy's verdict as of now."""
        from builder.stages.judge import judge

        return judge(image, evidence, self.policy, self.workshop.settings.now)

    @cached_property
    def historian(self) -> Historian:
        """Who tells what images are made of, and who wrote that."""
        from builder.cli.identity import caller
        from builder.cli.sources import Historian

        workshop = self.workshop
        return Historian(
            catalogue=workshop.catalogue,
            environment=workshop.settings.child_environment,
            registry=self.client,
            host=workshop.settings.registry,
            believes=self.trust.unrevoked(BUILDER),
            publisher=caller(workshop.settings, workshop.store).name,
        )

    def _provenance(
        self, prepared: Prepared, image: BuiltImage, parent: BuiltImage | None
    ) -> Mapping[str, Any]:
        from builder.signing.predicates import provenance

        catalogue = self.workshop.catalogue
        return provenance(
            image,
            definition=catalogue.digest_of(f"images/{image.target.definition.name}/image.yaml"),
            templates={path: digest for path, digest in catalogue.read.items() if path.endswith(".j2")},
            tools={**tool_versions(), **extension_versions(self.workshop.settings)},
            parent=(parent.target.ref, parent.digest) if parent else None,
            made_of=self.historian.sources(image.target, prepared.locks),
        )

    def _sign(
        self,
        image: BuiltImage,
        evidence: tuple[Evidence, ...],
        verdict: Verdict,
        provenance: Mapping[str, Any],
    ) -> SignedImage:
        from builder.stages.publish import repository
        from builder.stages.sign import sign

        name = f"{self.workshop.settings.registry}/{repository(image.target)}"
        return sign(image, evidence, verdict, provenance, self.keys, name)

    def _publish(self, signed: SignedImage) -> PublishedImage:
        from builder.stages.publish import publish

        return publish(signed, self.client)
