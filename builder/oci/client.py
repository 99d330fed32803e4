"""The door to registries: every byte is checked against its digest, every operation ends.

Built on oras (its addresses and its reading of challenges); what oras leaves open is done here and
in `oci/transport.py`: digests, sizes, deadlines, retries, tokens by scope, mounts, referrers.
Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import Content
from builder.model.reference import Reference
from builder.oci.auth import Login
from builder.oci.faults import other_content, unusable
from builder.oci.layout import replacing
from builder.oci.listing import list_repositories, list_tags
from builder.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_MAX,
    MANIFEST_TYPES,
    parse_digest,
    parse_manifest,
)
from builder.oci.referrers import NOTHING, Referrers
from builder.oci.removing import remove_manifest
from builder.oci.transport import Body, Limits, Reply, Transport

_ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
_BLOB_TYPE = "application/octet-stream"


class RegistryClient:
    """One registry at `host` (`NAME[:PORT]`): plain http on loopback, https everywhere else.

    All operations raise RegistryError (with the status and the address, without secrets) when the
    registry cannot be reached within the limits, refuses, or sends other bytes than promised.
    `repo` is a repository's name without the host; of a `foreign` host every address is checked;
    `sleep` waits between tries. Safe in threads.
    """

    def __init__(
        self,
        host: str,
        *,
        credentials: Login | None = None,
        limits: Limits | None = None,
        ca_bundle: Path | None = None,
        token_hosts: frozenset[str] = frozenset(),
        redirect_hosts: frozenset[str] = frozenset(),
        foreign: bool = False,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.host = host
        self._transport = Transport(
            host,
            credentials=credentials,
            limits=limits,
            ca_bundle=ca_bundle,
            token_hosts=token_hosts,
            redirect_hosts=redirect_hosts,
            foreign=foreign,
            sleep=sleep,
        )
        self._referrers = Referrers(self, self._transport)

    def reference(self, repo: str, tag: str | None = None, digest: Digest | None = None) -> Reference:
        """A reference in this registry; raises RegistryError when a part is malformed."""
        try:
            return Reference(self.host, repo, tag, digest)
        except ValueError as error:
            raise RegistryError(
                str(error), hint="names are lower-case words, joined by '-' and '/'"
            ) from None

    def ping(self) -> None:
        """Make sure that a registry answers here."""

        def action(ends: float) -> None:
            with self._send(ends, "GET", "/v2/", "ping", ok=(200,)):
                pass

        self._transport.retrying(action)

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What the reference points to; None when there is no such tag or digest.

        A registry's claim: `get_manifest` checks it.
        """

        def action(ends: float) -> Descriptor | None:
            path = self._manifest_path(ref)
            with self._send(ends, "HEAD", path, f"pull {ref.name}", ok=(200, 404), Accept=_ACCEPT) as reply:
                if reply.status == 404:
                    return None
                stated = self._stated_digest(reply, ref)
                length = reply.headers.get("Content-Length", "")
                media_type = _media_type(reply)
            if stated is None:
                return Descriptor(media_type, NOTHING, 0)
            return Descriptor(media_type, stated, int(length) if length.isdigit() else 0)

        found = self._transport.retrying(action)
        if found is None or found.size:
            return found
        data, media_type, digest = self.get_manifest(ref)  # the registry does not say enough
        return Descriptor(media_type, digest, len(data))

    def get_manifest(self, ref: Reference) -> tuple[bytes, str, Digest]:
        """A manifest's bytes, media type and digest.

        The bytes have the digest that was asked for and the one that the registry states, and
        they parse as what the registry says they are.
        """

        def action(ends: float) -> tuple[bytes, str, Digest]:
            path = self._manifest_path(ref)
            with self._send(ends, "GET", path, f"pull {ref.name}", ok=(200,), Accept=_ACCEPT) as reply:
                stated = self._stated_digest(reply, ref)
                media_type = _media_type(reply)
                data = reply.read(MANIFEST_MAX)
            digest = Digest.of(data)
            if digest not in (ref.digest or digest,) or digest != (stated or digest):
                raise other_content(f"{ref} is {digest}, the registry says {stated}")
            parse_manifest(data, media_type)
            return data, media_type, digest

        return self._transport.retrying(action)

    def put_manifest(self, ref: Reference, data: bytes, media_type: str) -> Digest:
        """Store a manifest's bytes under the reference's digest, or else its tag; returns its digest.

        Raises RegistryError also when the reply or the reference names another digest.
        """
        return self._put_manifest(ref, data, media_type)[0]

    def put_referrer(self, repo: str, data: bytes, media_type: str) -> bool:
        """Store a manifest with a subject, by digest; returns whether the registry listed it.

        When it did not, the caller has to list it with `put_referrers_fallback`.
        """
        ref = self.reference(repo, digest=Digest.of(data))
        return self._put_manifest(ref, data, media_type)[1]

    def delete_manifest(self, ref: Reference) -> bool:
        """Take a manifest away by its digest; returns whether the registry does such a thing."""
        return remove_manifest(self._transport, self._manifest_path(ref), ref.name)

    def has_blob(self, repo: str, digest: Digest, size: int | None = None) -> bool:
        """Whether the repository has the blob; with `size`, whether it also has that size."""

        def action(ends: float) -> bool:
            path = self._transport.place(repo).get_blob_url(digest)
            with self._send(ends, "HEAD", path, f"pull {repo}", ok=(200, 404)) as reply:
                length = reply.headers.get("Content-Length", "")
                return reply.status == 200 and (size is None or length == str(size))

        self.reference(repo)
        return self._transport.retrying(action)

    def put_blob(self, repo: str, source: Content, digest: Digest, mount_from: str | None = None) -> int:
        """Upload a blob in one stream; returns how many bytes were sent.

        With `mount_from` (another repository of this registry) nothing is sent when the registry
        can link the blob from there. A cut upload starts again. The registry checks the digest.
        """
        self.reference(repo)
        body = Body(source)

        def action(ends: float) -> int:
            with self._start_upload(ends, repo, digest, mount_from) as reply:
                if reply.status == 201:
                    self._stated_digest(reply, self.reference(repo, digest=digest))
                    return 0
                location = self._transport.location(reply)
            parts = urlsplit(location)
            query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", digest)])
            url = parts._replace(query=query).geturl()
            with self._send(
                ends, "PUT", url, f"push {repo}", ok=(201,), body=body, Content_Type=_BLOB_TYPE
            ) as reply:
                self._stated_digest(reply, self.reference(repo, digest=digest))
                return body.size

        return self._transport.retrying(action, body.size)

    def mount_blob(self, repo: str, digest: Digest, source_repo: str) -> bool:
        """Link a blob from another repository of this registry; whether that was possible."""
        self.reference(repo)

        def action(ends: float) -> bool:
            with self._start_upload(ends, repo, digest, source_repo) as reply:
                if reply.status == 201:
                    return True
                location = self._transport.location(reply)
            with (
                contextlib.suppress(RegistryError),
                self._send(ends, "DELETE", location, f"cancel {repo}", ok=(204,)),
            ):
                pass
            return False

        return self._transport.retrying(action)

    def get_blob(self, repo: str, descriptor: Descriptor, to: Path) -> None:
        """Download a blob to the file `to`, which appears only when size and digest agree.

        Raises ToolError when the file cannot be written.
        """

        def action(ends: float) -> None:
            with replacing(to) as out:
                for chunk in self._checked_chunks(ends, repo, descriptor):
                    out.write(chunk)

        self._transport.retrying(action, descriptor.size)

    def check_blob(self, repo: str, descriptor: Descriptor) -> None:
        """Read a blob back and compare size and digest, keeping nothing."""

        def action(ends: float) -> None:
            for _ in self._checked_chunks(ends, repo, descriptor):
                pass

        self._transport.retrying(action, descriptor.size)

    def get_blob_bytes(self, repo: str, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob's bytes, checked; raises RegistryError when it is larger than `limit`."""
        if descriptor.size > limit:
            raise RegistryError(
                f"the blob {descriptor.digest.short} is larger than {limit} bytes",
                context=f"{repo}: {descriptor.size} bytes",
                reference="reply-too-large",
            )
        return self._transport.retrying(
            lambda ends: b"".join(self._checked_chunks(ends, repo, descriptor)), descriptor.size
        )

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository, sorted; empty when there is no such repository."""
        names = list_tags(self._transport, self.reference(repo).name)
        return tuple(sorted(self.reference(repo, tag).tag or "" for tag in names))

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories, sorted."""
        return tuple(sorted(self.reference(name).name for name in list_repositories(self._transport)))

    def referrers(
        self, repo: str, subject: Digest, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest: from the referrers API, else from the fallback tag.

        A registry's claim: get and check what is listed.
        """
        found = self._referrers.listed(repo, subject)
        return tuple(d for d in found if artifact_type in (None, d.artifact_type))

    def supports_referrers(self, repo: str) -> bool:
        """Whether the registry has the referrers API (asked once)."""
        return self._referrers.has_api(repo)

    def put_referrers_fallback(
        self,
        repo: str,
        subject: Digest,
        descriptors: Sequence[Descriptor],
        *,
        replace_same_kind: bool = False,
        listed: tuple[Descriptor, ...] | None = None,
    ) -> None:
        """List referrers under the fallback tag; as `Referrers.put_fallback` does."""
        self._referrers.put_fallback(repo, subject, descriptors, replace_same_kind, listed)

    def _send(
        self,
        ends: float,
        method: str,
        path: str,
        use: str,
        *,
        ok: tuple[int, ...],
        body: Body | None = None,
        **headers: str,
    ) -> Reply:
        """One request; `_` in a header's name stands for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._transport.send(ends, method, path, use=use, ok=ok, headers=sent, body=body)

    def _manifest_path(self, ref: Reference) -> str:
        if ref.host != self.host:
            raise RegistryError(f"{ref} is not in the registry {self.host}", reference="other-registry")
        if ref.tag is None and ref.digest is None:
            raise RegistryError(f"{ref} names no tag and no digest", hint="add :TAG or @sha256:…")
        return str(self._transport.place(ref.name).manifest_url(ref.digest or ref.tag))

    def _put_manifest(self, ref: Reference, data: bytes, media_type: str) -> tuple[Digest, bool]:
        parsed = parse_manifest(data, media_type)
        digest = Digest.of(data)
        if ref.digest not in (None, digest):
            raise other_content(f"{ref} is to be written, but the manifest is {digest}")

        def action(ends: float) -> bool:
            path, use = self._manifest_path(ref), f"push {ref.name}"
            with self._send(
                ends, "PUT", path, use, ok=(201,), body=Body(data), Content_Type=media_type
            ) as reply:
                self._stated_digest(reply, self.reference(ref.name, digest=digest))
                listed = reply.headers.get("OCI-Subject")
            return parsed.subject is not None and listed == parsed.subject.digest

        return digest, self._transport.retrying(action)

    def _start_upload(self, ends: float, repo: str, digest: Digest, mount_from: str | None) -> Reply:
        path, use = self._transport.place(repo).upload_blob_url(), f"push {repo}"
        if mount_from is None:
            return self._send(ends, "POST", path, use, ok=(202,))
        source = self.reference(mount_from).name
        path += "?" + urlencode({"mount": digest, "from": source})
        return self._send(ends, "POST", path, f"{use} mount {source}", ok=(201, 202))

    def _stated_digest(self, reply: Reply, ref: Reference) -> Digest | None:
        """The digest that the registry states; raises RegistryError when it is not the one asked for."""
        raw = reply.headers.get("Docker-Content-Digest")
        if not raw:
            return None
        stated = parse_digest(raw, "Docker-Content-Digest")
        if ref.digest is not None and stated != ref.digest:
            raise other_content(f"{reply.where}: the registry answers with {stated}")
        return stated

    def _checked_chunks(self, ends: float, repo: str, descriptor: Descriptor) -> Iterator[bytes]:
        path = self._transport.place(repo).get_blob_url(descriptor.digest)
        sha, size = hashlib.sha256(), 0
        with self._send(ends, "GET", path, f"pull {repo}", ok=(200,)) as reply:
            for chunk in reply.chunks():
                size += len(chunk)
                if size > descriptor.size:
                    break
                sha.update(chunk)
                yield chunk
            if size != descriptor.size:
                raise other_content(f"{reply.where}: {descriptor.size} bytes were expected")
            if sha.hexdigest() != descriptor.digest.hex:
                raise other_content(f"{reply.where}: the bytes are sha256:{sha.hexdigest()}")


def _media_type(reply: Reply) -> str:
    stated = reply.headers.get("Content-Type", "").partition(";")[0].strip()
    if stated not in (*MANIFEST_TYPES, *INDEX_TYPES):
        raise unusable(f"{reply.where}: not a manifest's media type: {stated[:100]!r}")
    return stated
