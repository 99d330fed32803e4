"""Listings of a registry: repositories, tags and referrers, page by page, and never without end.

Source: OCI distribution specification 1.1, "Listing Tags" and "Listing Referrers".
"""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE, Descriptor
from builder.oci.faults import unusable
from builder.oci.manifest import parse_json, parse_manifest
from builder.oci.transport import Reply, Transport

_PAGES_MAX = 100
_TAGS_MAX = 100_000
_REFERRERS_MAX = 4096
_PAGE_MAX = 4 << 20  # bytes


def list_tags(transport: Transport, repo: str) -> set[str]:
    """All tags of a repository, unchecked; empty when there is no such repository."""
    found: set[str] = set()
    path: str | None = transport.place(repo).tags_url(N=1000)
    for _ in range(_PAGES_MAX):
        page = _page(transport, path or "", repo, "application/json")
        if page is None:
            return found
        data, path, _ = page
        tags = parse_json(data, "tag list", _PAGE_MAX).get("tags") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise unusable(f"the tag list of {repo} is not a list of texts")
        before = len(found)
        found |= set(tags)
        if path is None:
            return found
        if len(found) == before or len(found) > _TAGS_MAX:
            break
    raise unusable(f"the tag list of {repo} does not end")


def list_repositories(transport: Transport) -> set[str]:
    """The names of all repositories, unchecked (distribution's `_catalog`; not part of the specification)."""
    found: set[str] = set()
    path: str | None = "/v2/_catalog?n=1000"
    for _ in range(_PAGES_MAX):
        page = _page(transport, path or "", "", "application/json", use="catalog")
        if page is None:
            raise unusable("the registry does not list its repositories")
        data, path, _ = page
        names = parse_json(data, "repository list", _PAGE_MAX).get("repositories") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise unusable("the list of repositories is not a list of texts")
        before = len(found)
        found |= set(names)
        if path is None:
            return found
        if len(found) == before or len(found) > _TAGS_MAX:
            break
    raise unusable("the list of repositories does not end")


def list_referrers(transport: Transport, repo: str, subject: Digest) -> tuple[Descriptor, ...] | None:
    """What the referrers API lists for a manifest; None when the registry has no such API."""
    found: dict[Digest, Descriptor] = {}
    path: str | None = f"/v2/{repo}/referrers/{subject}"
    for number in range(_PAGES_MAX):
        page = _page(transport, path or "", repo, INDEX_TYPE)
        if page is None or page[2].partition(";")[0].strip() != INDEX_TYPE:
            if number == 0:  # 404, or a web page in the place of the API
                return None
            raise unusable(f"the referrers of {subject.short} in {repo} end in the middle")
        data, path, _ = page
        before = len(found)
        found |= {d.digest: d for d in parse_manifest(data, INDEX_TYPE, default=INDEX_TYPE).manifests}
        if path is None:
            return tuple(found.values())
        if len(found) == before or len(found) > _REFERRERS_MAX:
            break
    raise unusable(f"the referrers of {subject.short} in {repo} do not end")


def kind_of(referrer: Descriptor) -> tuple[str | None, str | None]:
    """What a referrer is: its artifact type, and the type of the predicate that it carries."""
    return referrer.artifact_type, referrer.annotations.get("dev.sigstore.bundle.predicateType")


def _page(
    transport: Transport, path: str, repo: str, accept: str, use: str | None = None
) -> tuple[bytes, str | None, str] | None:
    """One page: its bytes, the next page's path, its media type; None for 404."""

    def action(ends: float) -> tuple[bytes, str | None, str] | None:
        with transport.send(
            ends,
            "GET",
            path,
            use=use or f"pull {repo}",
            ok=(200, 404),
            headers={"Accept": accept},
        ) as reply:
            if reply.status == 404:
                return None
            data = reply.read(_PAGE_MAX)
            return data, _next_page(reply), reply.headers.get("Content-Type", "")

    return transport.retrying(action)


def _next_page(reply: Reply) -> str | None:
    """The address in `Link: <…>; rel="next"` (RFC 8288); only on the same host."""
    link = reply.headers.get("Link", "")
    if not link.startswith("<") or 'rel="next"' not in link:
        return None
    here, there = urlsplit(reply.url), urlsplit(urljoin(reply.url, link[1:].partition(">")[0]))
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        raise unusable("the next page of a listing is on another host")
    return f"{there.path}?{there.query}"
