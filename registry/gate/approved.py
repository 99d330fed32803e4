"""What the gate may serve, in memory: look-ups in constant time, expiry looked at on each use.

The views of repositories are immutable and replaced as a whole, so that a reader in another
thread sees the state before a change or after it, never between. Times are seconds since the epoch.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.manifest import index_bytes
from registry.gate.decision import Approved, Denied, Held, Reason

API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")
_WARN_BEFORE = dt.timedelta(days=90)
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest that may be served until `expires`; `headers` are those of its answer."""

    held: Held
    headers: tuple[tuple[bytes, bytes], ...]
    expires: float
    end_of_life: dt.date | None
    warn_from: float
    deprecated: str


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """What a look at the storage found in a repository: tags to index digests, and the decisions.

    `gone` are tags that were there before; their images may be withdrawn.
    """

    tags: Mapping[str, Digest] = field(default_factory=dict)
    decisions: Mapping[Digest, Approved | Denied] = field(default_factory=dict)
    gone: Mapping[str, Digest] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something of a repository is not served, and which approved image takes its place."""

    denied: Denied
    digest: str
    replacement: str | None


@dataclass(frozen=True, slots=True)
class View:
    """One repository as it is served."""

    name: str
    storage: str
    tags: Mapping[str, str]
    manifests: Mapping[str, Entry]
    blobs: Mapping[str, tuple[int, float]]
    referrers: Mapping[str, tuple[tuple[Descriptor, float], ...]]
    denied: Mapping[str, Denied]
    listed: tuple[str, ...]
    images: tuple[tuple[str, str, float], ...]  # floating or other tag, digest, expiry; newest first

    def instead_of(self, denied: Denied, tag: str | None, now: float) -> str | None:
        """The replacement that was decided, or else the one that there is."""
        return denied.replacement or self.replacement(tag, now)

    def replacement(self, tag: str | None, now: float) -> str | None:
        """`repo:tag@digest` of an approved image: of this tag when there is one, else the newest."""
        valid = [(t, d) for t, d, expires in self.images if expires > now]
        best = next((x for x in valid if x[0] == tag), valid[0] if valid else None)
        return f"{self.name}:{best[0]}@{best[1]}" if best else None


def compile_view(name: str, storage: str, state: RepositoryState) -> View:
    """The view of a repository: what several images share lives as long as the last of them."""
    approved = [a for a in state.decisions.values() if isinstance(a, Approved)]
    approved.sort(key=lambda a: a.issued_at, reverse=True)
    manifests: dict[str, Entry] = {}
    blobs: dict[str, tuple[int, float]] = {}
    referrers: dict[str, tuple[tuple[Descriptor, float], ...]] = {}
    tags: dict[str, str] = {}
    for one in approved:
        expires = one.expires_at.timestamp()
        for held in one.manifests:
            known = manifests.get(held.digest)
            if known is None or known.expires < expires:
                manifests[held.digest] = _entry(held, one, expires)
            for digest, size in held.blobs.items():
                other = blobs.get(digest)
                if other is None or other[1] < expires:
                    blobs[digest] = (size, expires)
        for subject, listed in one.referrers.items():
            if subject not in referrers:
                referrers[subject] = tuple((d, expires) for d in listed)
                continue
            old = {d.digest: (d, e) for d, e in referrers.get(subject, ())}
            new = {d.digest: (d, max(expires, old.get(d.digest, (d, 0.0))[1])) for d in listed}
            referrers[subject] = tuple({**old, **new}.values())
        for tag, digest in one.tags.items():
            tags.setdefault(tag, digest)
    for key in referrers:
        tags.setdefault(f"sha256-{key[7:]}", key)  # answered as a list, see `manifest`
    denied: dict[str, Denied] = {}
    for digest, decision in state.decisions.items():
        if isinstance(decision, Denied):
            denied |= {d: decision for d in (digest, *decision.digests) if d not in manifests}
    serving = {a.index: a for a in approved}
    by_tag = {tag: serving[d] for tag, d in state.tags.items() if d in serving}
    images = sorted(by_tag, key=lambda t: (-by_tag[t].issued_at.timestamp(), len(t), t))
    return View(
        name,
        storage,
        {**tags, **state.gone, **state.tags},
        manifests,
        blobs,
        referrers,
        denied,
        tuple(sorted(by_tag)),
        tuple((t, str(by_tag[t].index), by_tag[t].expires_at.timestamp()) for t in images),
    )


class ApprovedSet:
    """All views; safe to read from one thread while another one replaces them."""

    def __init__(self) -> None:
        self._views: Mapping[str, View] = {}
        self._names: tuple[str, ...] = ()

    def replace(self, views: Mapping[str, View]) -> None:
        """Serve exactly these from now on."""
        names = tuple(sorted(n for n, v in views.items() if v.listed))
        self._views, self._names = views, names

    def view(self, name: str) -> View | None:
        """The repository of that public name, if there is one."""
        return self._views.get(name)

    @property
    def views(self) -> Mapping[str, View]:
        """All repositories."""
        return self._views

    def manifest(self, name: str, reference: str, is_digest: bool, now: float) -> Entry | Refusal | None:
        """What to answer for a manifest: it, a refusal, or None when nothing is known of it."""
        view = self._views.get(name)
        if view is None:
            return None
        digest = reference if is_digest else view.tags.get(reference)
        if digest is None:
            return None
        entry = view.manifests.get(digest)
        if entry is not None and entry.expires > now:
            if not is_digest and reference == f"sha256-{digest[7:]}":
                return self._referrers_tag(view, digest, now)
            return entry
        tag = None if is_digest else reference
        if entry is not None:
            return Refusal(_expired(entry.expires), digest, view.replacement(tag, now))
        denied = view.denied.get(digest)
        return Refusal(denied, digest, view.instead_of(denied, tag, now)) if denied else None

    def blob(self, name: str, digest: str, now: float) -> tuple[str, int] | Refusal | None:
        """Repository in the storage and size of a blob that an approved manifest of `name` holds."""
        view = self._views.get(name)
        found = view.blobs.get(digest) if view else None
        if view is None or found is None:
            return None
        if found[1] <= now:
            return Refusal(_expired(found[1]), digest, view.replacement(None, now))
        return view.storage, found[0]

    def referrers(self, name: str, digest: str, now: float) -> tuple[Descriptor, ...] | None:
        """What is attached to a manifest; None when there is no such repository."""
        view = self._views.get(name)
        if view is None:
            return None
        return tuple(d for d, expires in view.referrers.get(digest, ()) if expires > now)

    def tags(self, name: str, count: int, last: str) -> tuple[tuple[str, ...], bool] | None:
        """A page of the approved tags after `last`, and whether more follow."""
        view = self._views.get(name)
        return _page(view.listed, count, last) if view and view.listed else None

    def repositories(
        self, count: int, last: str, sees: Callable[[str], bool] = lambda name: True
    ) -> tuple[tuple[str, ...], bool]:
        """A page of the names of repositories with something approved in them, of those that are seen."""
        return _page(tuple(filter(sees, self._names)), count, last)

    def _referrers_tag(self, view: View, subject: str, now: float) -> Entry | None:
        """cosign's list under `sha256-HEX`, for clients without the referrers API."""
        listed = tuple(d for d, expires in view.referrers.get(subject, ()) if expires > now)
        if not listed:
            return None
        data = index_bytes(listed)
        held = Held(Digest.of(data), INDEX_TYPE, data, {})
        return Entry(held, headers_of(held), _NEVER, None, _NEVER, "")


def headers_of(held: Held) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of a manifest's answer."""
    return (
        (b"content-type", held.media_type.encode()),
        (b"content-length", str(len(held.data)).encode()),
        (b"docker-content-digest", held.digest.encode()),
        (b"etag", f'"{held.digest}"'.encode()),
        API_VERSION,
    )


def _entry(held: Held, image: Approved, expires: float) -> Entry:
    warn_from = _NEVER
    if image.end_of_life is not None:
        noon = dt.datetime.combine(image.end_of_life, dt.time(), dt.UTC)
        warn_from = (noon - _WARN_BEFORE).timestamp()
    if image.deprecated:
        warn_from = 0.0
    return Entry(held, headers_of(held), expires, image.end_of_life, warn_from, image.deprecated)


def _expired(expires: float) -> Denied:
    since = dt.datetime.fromtimestamp(expires, dt.UTC)
    return Denied(
        Reason.EXPIRED,
        "its verdict has expired",
        since,
        "verdict-expired",
        "run the image's pipeline again, so that it is scanned and judged anew",
    )


def _page(values: tuple[str, ...], count: int, last: str) -> tuple[tuple[str, ...], bool]:
    start = bisect_right(values, last) if last else 0
    return values[start : start + count], start + count < len(values)
