"""What the gate may serve, in memory: look-ups in constant time, expiry looked at on each use.

An approval that was kept from an earlier process proves itself when something of it is asked for
first. The views of repositories are immutable and replaced as a whole, so that a reader in another
thread sees the state before a change or after it, never between. Times are seconds since the epoch.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.manifest import index_bytes
from registry.gate.decision import Approved, Denied, Held, Reason
from registry.gate.kept import Kept

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
    decisions: Mapping[Digest, Approved | Kept | Denied] = field(default_factory=dict)
    gone: Mapping[str, Digest] = field(default_factory=dict)


class Content:
    """All that is served of one image, ready to be sent; `entries` are its manifests by digest."""

    __slots__ = ("blobs", "entries", "referrers")

    def __init__(self, approved: Approved) -> None:
        expires = approved.expires_at.timestamp()
        self.entries: Mapping[str, Entry] = {
            h.digest: _entry(h, approved, expires) for h in approved.manifests
        }
        self.blobs: Mapping[str, int] = {d: n for h in approved.manifests for d, n in h.blobs.items()}
        self.referrers: Mapping[str, tuple[Descriptor, ...]] = dict(approved.referrers.items())


class Served:
    """An approved image in a view; its content is made, and proved if need be, when it is asked for."""

    __slots__ = ("_content", "_decision", "expires", "index")

    def __init__(self, decision: Approved | Kept) -> None:
        self.index = decision.index
        self.expires = decision.expires_at.timestamp()
        self._decision = decision
        self._content: Content | None = None

    @property
    def content(self) -> Content | None:
        """What it has; None when it cannot be proved any more, and then nothing of it is served."""
        if self._content is None:
            decision = self._decision
            approved = decision.approved() if isinstance(decision, Kept) else decision
            if approved is not None:
                self._content = Content(approved)
                self.expires = min(self.expires, approved.expires_at.timestamp())
        return self._content


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
    manifests: Mapping[str, Served]
    blobs: Mapping[str, Served]
    referrers: Mapping[str, tuple[Served, ...]]
    denied: Mapping[str, Denied]
    listed: tuple[str, ...]
    images: tuple[tuple[str, Served], ...]  # floating or other tag, its image; newest first

    def instead_of(self, denied: Denied, tag: str | None, now: float) -> str | None:
        """The replacement that was decided, or else the one that there is."""
        return denied.replacement or self.replacement(tag, now)

    def replacement(self, tag: str | None, now: float) -> str | None:
        """`repo:tag@digest` of an approved image: of this tag when there is one, else the newest."""
        valid = [x for x in self.images if x[1].expires > now]
        best = next((x for x in valid if x[0] == tag), valid[0] if valid else None)
        return f"{self.name}:{best[0]}@{best[1].index}" if best else None


def compile_view(name: str, storage: str, state: RepositoryState) -> View:
    """The view of a repository: what several images share lives as long as the last of them."""
    approved = [a for a in state.decisions.values() if isinstance(a, Approved | Kept)]
    serving = {a.index: Served(a) for a in approved}
    manifests: dict[str, Served] = {}
    blobs: dict[str, Served] = {}
    referrers: dict[str, tuple[Served, ...]] = {}
    for one in sorted(approved, key=lambda a: (a.expires_at, a.issued_at)):
        served = serving[one.index]
        manifests.update(dict.fromkeys(_manifests(one), served))
        blobs.update(dict.fromkeys(_blobs(one), served))
        for subject in one.subjects if isinstance(one, Kept) else one.referrers:
            referrers[subject] = (*referrers.get(subject, ()), served)
    tags: dict[str, str] = {}
    for one in sorted(approved, key=lambda a: a.issued_at):
        tags.update(one.cosign if isinstance(one, Kept) else one.tags)
    for key in referrers:
        tags.setdefault(f"sha256-{key[7:]}", key)  # answered as a list, see `manifest`
    denied: dict[str, Denied] = {}
    for digest, decision in state.decisions.items():
        if isinstance(decision, Denied):
            denied |= {d: decision for d in (digest, *decision.digests) if d not in manifests}
    by_tag = {tag: serving[d] for tag, d in state.tags.items() if d in serving}
    issued = {a.index: a.issued_at.timestamp() for a in approved}
    images = sorted(by_tag, key=lambda t: (-issued[by_tag[t].index], len(t), t))
    return View(
        name,
        storage,
        {**tags, **state.gone, **state.tags},
        manifests,
        blobs,
        referrers,
        denied,
        tuple(sorted(by_tag)),
        tuple((t, by_tag[t]) for t in images),
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
        entry = _entry_of(view, digest)
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
        served = view.blobs.get(digest) if view else None
        content = served.content if served else None
        if view is None or served is None or content is None or digest not in content.blobs:
            return None
        if served.expires <= now:
            return Refusal(_expired(served.expires), digest, view.replacement(None, now))
        return view.storage, content.blobs[digest]

    def referrers(self, name: str, digest: str, now: float) -> tuple[Descriptor, ...] | None:
        """What is attached to a manifest; None when there is no such repository."""
        view = self._views.get(name)
        if view is None:
            return None
        return _attached(view, digest, now)

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
        listed = _attached(view, subject, now)
        if not listed:
            return None
        data = index_bytes(listed)
        held = Held(Digest.of(data), INDEX_TYPE, data, {})
        return Entry(held, headers_of(held), _NEVER, None, _NEVER, "")


def _entry_of(view: View, digest: str) -> Entry | None:
    served = view.manifests.get(digest)
    content = served.content if served is not None else None
    return content.entries.get(digest) if content is not None else None


def _attached(view: View, subject: str, now: float) -> tuple[Descriptor, ...]:
    """What the images that hold a manifest have attached to it."""
    found: dict[Digest, Descriptor] = {}
    for served in view.referrers.get(subject, ()):
        if (content := served.content) is not None and served.expires > now:
            found |= {d.digest: d for d in content.referrers.get(subject, ())}
    return tuple(found.values())


def _manifests(image: Approved | Kept) -> Iterable[str]:
    return image.manifests if isinstance(image, Kept) else (h.digest for h in image.manifests)


def _blobs(image: Approved | Kept) -> Iterable[str]:
    return image.blobs if isinstance(image, Kept) else (b for h in image.manifests for b in h.blobs)


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
