"""The rules: what is wrong with an image that a file names, and what to write instead. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

from builder.model.reference import Reference
from registry.devcheck.approval import approved
from registry.devcheck.changes import Changes, between
from registry.devcheck.known import Build, Image, Known
from registry.devcheck.mention import Mention

_PUBLIC_HUB = "docker.io"
_OFFICIAL = "library/"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's stable name, its title, and what to do about it."""

    id: str
    title: str
    help: str


RULES = {
    rule.id: rule
    for rule in (
        Rule(
            "foreign-image",
            "The image is not from the mirror",
            "Use the approved image that is named; when there is none, ask the platform team to add it.",
        ),
        Rule(
            "not-approved",
            "The mirror does not serve this image",
            "Use an approved image of this repository; `goldsmith why` says why one is refused.",
        ),
        Rule(
            "unpinned-tag",
            "The image is named without a digest",
            "Write tag and digest: a tag moves, a digest does not. `goldsmith check --fix` does it.",
        ),
        Rule(
            "digest-behind",
            "A newer approved digest of this image exists",
            "Move to the newer digest. `goldsmith check --fix` does it.",
        ),
        Rule(
            "tag-and-digest-differ",
            "Tag and digest name different images",
            "A client pulls the digest and ignores the tag: write the ones that belong together.",
        ),
        Rule("deprecated-image", "The image is deprecated", "Move to its replacement while it is served."),
        Rule("withdrawn-image", "The image was withdrawn", "Move to its replacement: it is not served."),
        Rule("out-of-life-image", "The image's life has ended", "Move to its replacement: nobody mends it."),
        Rule(
            "unresolved-image",
            "It cannot be known which image this is",
            "Write the image out, or give its variable a default in the file.",
        ),
        Rule("malformed-reference", "This is not an image reference", "Write HOST/NAME:TAG@sha256:…"),
        Rule(
            "ignore-without-reason",
            "A comment ignores a rule without a reason",
            "Write: # goldsmith: ignore[RULE]: why that is right here",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Opinion:
    """One rule's word on a mention. `instead` is what to write, `fix` whether that is safe to do.

    A fix stays on the same line of the same image; what moves to another one is for people.
    """

    rule: str
    message: str
    instead: str = ""
    fix: bool = False
    changes: Changes | None = None


def judge(mention: Mention, known: Known, today: dt.date) -> tuple[Opinion, ...]:
    """Everything that is wrong with one mention; none when it is pinned to an approved digest."""
    if mention.problem:
        return (Opinion("unresolved-image", f"{_shown(mention.text)}: {mention.problem}"),)
    try:
        reference = Reference.parse(mention.text, _PUBLIC_HUB)
    except ValueError as error:
        return (Opinion("malformed-reference", f"{_shown(mention.text)}: {error}"),)
    if reference.host != known.mirror:
        return (_foreign(reference, mention.text, known),)
    return tuple(_ours(reference, known, today))


def pinned(known: Known, image: Image, tag: str | None) -> str:
    """The reference to write for an image: its tag (by default the floating one) and its digest."""
    return f"{known.mirror}/{image.repository}:{tag or image.tags[0]}@{image.current.digest}"


def _foreign(reference: Reference, text: str, known: Known) -> Opinion:
    name = reference.name.rpartition("/")[2]
    tag = reference.tag or ("latest" if reference.digest is None else "")
    own = [i for i in known.images if i.ref.partition(":")[0] == name and approved(i)]
    message = f"{_shown(text)} comes from {reference.host}, not from {known.mirror}"
    exact = next((i for i in own if tag in i.tags), None)
    if exact:
        official = reference.host == _PUBLIC_HUB and reference.name in (name, _OFFICIAL + name)
        return Opinion(
            "foreign-image", message, pinned(known, exact, tag), fix=official and not reference.digest
        )
    near = _nearest(tag, own)
    if near:
        return Opinion("foreign-image", message, pinned(known, near, None))
    choice = ", ".join(i.ref for i in own[:_SHOWN])
    hint = f"; approved here: {choice}" if choice else "; the mirror has no image of that name"
    return Opinion("foreign-image", message + hint)


def _nearest(tag: str, images: list[Image]) -> Image | None:
    """The image whose stream is the longest beginning of the tag: 3.13 for 3.13.5-slim."""
    fitting = [
        (len(stream), image)
        for image in images
        for stream in image.tags
        if re.match(re.escape(stream) + r"(?![0-9A-Za-z])", tag)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _ours(reference: Reference, known: Known, today: dt.date) -> Iterator[Opinion]:
    text = str(reference)
    images = known.repositories.get(reference.name, ())
    tagged = known.with_tag(reference.name, reference.tag) if reference.tag else None
    found = known.with_digest(reference.name, reference.digest) if reference.digest else tagged
    if found is None:
        served = [i for i in images if approved(i)]
        likely = tagged[0] if tagged else served[0] if len(served) == 1 else None
        choice = ", ".join(i.ref for i in served[:_SHOWN])
        what = (
            "this digest" if reference.digest else f"the tag {reference.tag}" if reference.tag else "no tag"
        )
        yield Opinion(
            "not-approved",
            f"{text}: {'approved here are ' + choice if choice else 'nothing of it is approved'}, not {what}",
            pinned(known, likely, None) if likely and approved(likely) else "",
            fix=bool(tagged) and approved(likely) if likely else False,
        )
        return
    image, build = found
    if reference.digest and tagged and tagged[0] is not image:
        instead = pinned(known, tagged[0], reference.tag) if approved(tagged[0]) else ""
        message = (
            f"{text}: the digest is of {image.ref}, the tag of {tagged[0].ref}; the digest is what is pulled"
        )
        yield Opinion("tag-and-digest-differ", message, instead)
        return
    whole = status(image, known, today)
    if whole:
        yield whole
        if not approved(image):
            return
    yield from _pin(reference, image, build, known)


def status(image: Image, known: Known, today: dt.date) -> Opinion | None:
    """What is wrong with the line as a whole; None when nothing is."""
    other = known.image(image.replacement)
    instead = pinned(known, other, None) if other and approved(other) else ""
    why = f": {image.reason}" if image.reason else ""
    if image.channel in ("withdrawn", "quarantine"):
        return Opinion("withdrawn-image", f"{image.ref} was withdrawn{why}", instead)
    if image.refused:
        return Opinion("not-approved", f"{image.ref} is refused: {image.refused}", instead)
    if image.channel == "deprecated":
        return Opinion("deprecated-image", f"{image.ref} is deprecated{why}", instead)
    if image.end_of_life and image.end_of_life < today:
        message = f"{image.ref} reached its end of life on {image.end_of_life}"
        return Opinion("out-of-life-image", message, instead)
    return None


def _pin(reference: Reference, image: Image, build: Build, known: Known) -> Iterator[Opinion]:
    behind = build.digest != image.current.digest
    old = reference.tag is not None and reference.tag == build.immutable_tag and behind
    tag = image.current.immutable_tag if old else reference.tag
    instead = f"{known.mirror}/{image.repository}" + (f":{tag}" if tag else "") + f"@{image.current.digest}"
    if behind:
        changes = between(build, image.current)
        if build.withdrawn:
            message = f"this digest of {image.ref} was withdrawn: {build.withdrawn}"
            yield Opinion("withdrawn-image", message, instead, fix=True, changes=changes)
            return
        message = f"{image.ref} has a newer digest; {changes.sentence()}"
        yield Opinion("digest-behind", message, instead, fix=True, changes=changes)
    elif reference.digest is None:
        yield Opinion(
            "unpinned-tag", f"{reference} has no digest: what it names can change", instead, fix=True
        )


def _shown(text: str) -> str:
    return text[:200] or "nothing"
