"""The files that definitions put into images: read once, and what they have to be.

A stage never reads them again, so what was checked is what gets into the image.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import Problem
from builder.model.assembly import CA_BUNDLE, DOC_TREE, STATUS_DIRECTORY, is_below
from builder.model.definition import ImageDefinition, SourceFile, Stream
from builder.model.generated import RESERVED_IDS, RESERVED_NAMES
from builder.model.image import Made
from builder.store import read_file
from builder.tools.strict_model import is_within

if TYPE_CHECKING:
    from cryptography import x509

_NOTHING = Made()
_FILE_MAX = 1 << 20  # bytes; programs come in packages


def read_sources(root: Path, definition: ImageDefinition, problems: list[Problem]) -> dict[str, bytes]:
    """The contents that an image's `files` name, by path in its folder; mistakes go to `problems`."""
    shown = f"images/{definition.name}"
    found: dict[str, bytes] = {}
    for name, stream in definition.streams.items():
        sources: list[tuple[str, SourceFile]] = [(f"files.{p}", step) for p, step in stream.files.items()]
        sources += [(f"certificates.{n}", step) for n, step in enumerate(stream.certificates)]
        for path, step in sources:
            where = f"streams.{name}.{path}"
            file = root / shown / step.source
            try:
                if not is_within(file, root / shown):
                    raise ValueError("a link that leads out of the image's folder")
                content = read_file(file, _FILE_MAX)
            except FileNotFoundError:
                problems.append(
                    Problem(f"{shown}/image.yaml", f"{where}.source", f"there is no {shown}/{step.source}")
                )
                continue
            except (OSError, ValueError) as error:
                hint = "it must be a regular file that you may read, of at most 1 MiB"
                problems.append(Problem(f"{shown}/{step.source}", "", str(error), hint))
                continue
            actual = hashlib.sha256(content).hexdigest()
            if actual != step.sha256:
                problems.append(
                    Problem(
                        f"{shown}/image.yaml",
                        f"{where}.sha256",
                        f"{shown}/{step.source} is another file: {actual}",
                        "review the file, then write its sha256 here",
                    )
                )
            elif path.startswith("certificates."):
                problems += _certificate_problems(f"{shown}/{step.source}", content)
            found[step.source] = content
    return found


def _certificate_problems(file: str, content: bytes) -> Iterator[Problem]:
    """What is wrong with a file of certificate authorities (RFC 7468; RFC 5280, 4.2.1.9)."""
    from cryptography import x509

    if b"PRIVATE KEY" in content:
        yield Problem(file, "", "it holds a private key", "give only the certificate, and replace that key")
        return
    try:
        content.decode("ascii")
        found = [_authority(one) for one in x509.load_pem_x509_certificates(content)]
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        yield Problem(
            file, "", f"not a file of PEM certificates: {str(error)[:100]}", "openssl x509 -in FILE"
        )
        return
    for name, authority in found:
        if not authority:
            yield Problem(file, "", f"{name} is no certificate authority", "give the authority's certificate")


def _authority(certificate: x509.Certificate) -> tuple[str, bool]:
    """Its name, and whether it may sign others. What cannot be decoded shows only when it is asked for."""
    from cryptography import x509

    name = certificate.subject.rfc4514_string()[:100]
    try:
        return name, certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return name, False


def _account_problems(file: str, path: str, stream: Stream) -> Iterator[Problem]:
    ids = [user.id for user in stream.users.values()]
    for name, user in stream.users.items():
        where = f"{path}.users.{name}"
        if name in RESERVED_NAMES:
            yield Problem(file, where, f"{name} is an account or group of Debian or of every image")
        if user.id in RESERVED_IDS:
            yield Problem(file, f"{where}.id", f"{user.id} is taken in every image", "choose another number")
        if ids.count(user.id) > 1:
            others = ", ".join(n for n, u in stream.users.items() if u.id == user.id and n != name)
            yield Problem(file, f"{where}.id", f"{user.id} is also the id of {others}")
        if ":" in user.home:
            yield Problem(file, f"{where}.home", "a colon would end it in /etc/passwd")
    for place, directory in stream.directories.items():
        known = ("root", "nonroot", *stream.users)
        if directory.owner not in known:
            near = difflib.get_close_matches(directory.owner, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            where = f"{path}.directories.{place}.owner"
            yield Problem(file, where, f"there is no account {directory.owner!r}", hint)


def inherited_problems(
    file: str, path: str, stream: Stream, below: Sequence[tuple[str, Stream]]
) -> Iterator[Problem]:
    """Accounts that collide with those of the images below, which are given with their names."""
    for ref, other in below:
        for name, user in stream.users.items():
            if name in other.users:
                yield Problem(file, f"{path}.users.{name}", f"{ref} has an account of that name")
            for taken, known in other.users.items():
                if known.id == user.id and taken != name:
                    hint = "choose another number"
                    yield Problem(
                        file, f"{path}.users.{name}.id", f"{user.id} is the id of {taken} in {ref}", hint
                    )


def step_problems(
    file: str, path: str, stream: Stream, has_parent: bool, added: Made = _NOTHING
) -> Iterator[Problem]:
    """What is wrong with a stream's typed steps, without looking at any file.

    `added` is what steps of extensions make.
    """
    others = {entry for entries in added.entries.values() for entry in entries}
    made = [*stream.links, *stream.files, *stream.directories, *{entry.path for entry in others}]
    written = [p for step in stream.run for p in step.makes]
    made += written
    if stream.certificates:
        made.append(f"/{CA_BUNDLE}")
        if not has_parent:
            hint = "they are added to those of the image below: say `from:`"
            yield Problem(file, f"{path}.certificates", "the image has no parent", hint)
    if stream.users:
        made += ["/etc/passwd", "/etc/group"]
    yield from _account_problems(file, path, stream)
    for number, step in enumerate(stream.run):
        if not step.command[0].startswith("/"):
            where = f"{path}.run.{number}.command"
            yield Problem(file, where, "not an absolute path", "there is no shell that would look for it")
    if stream.java_trust_store:
        made.append(stream.java_trust_store)
        if not has_parent:
            hint = "certificate authorities come from the image below: say `from:`"
            yield Problem(file, f"{path}.java_trust_store", "the image has no parent", hint)
    for twice in sorted({p for p in made if made.count(p) > 1}):
        yield Problem(file, path, f"{twice} is made by two steps", "keep one of them")
    leaves = {
        *stream.links,
        *stream.files,
        *(entry.path for entry in others if entry.kind != "directory"),
        *written,
        *([stream.java_trust_store] if stream.java_trust_store else ()),
    }
    for one in sorted(made):
        for leaf in sorted(leaves):
            if one != leaf and is_below(one, leaf):
                yield Problem(file, path, f"{one} lies in {leaf}, which is no directory")
    named = [(f"{path}.without.{number}", one) for number, one in enumerate(stream.without)]
    named += [(f"{path}.dev.without.{number}", one) for number, one in enumerate(stream.dev.without)]
    for where, left_out in named:
        for kept, why in (
            (f"/{DOC_TREE}", "copyright files are the licence evidence"),
            (f"/{STATUS_DIRECTORY}", "scanners find packages by it"),
        ):
            if is_below(left_out, kept) or is_below(kept, left_out):
                yield Problem(file, where, f"{kept} cannot be left out", why)
    for number, kept in enumerate(stream.keep):
        if not any(kept != left_out and is_below(kept, left_out) for left_out in stream.without):
            hint = "`keep` names what stays of a folder that `without` names"
            yield Problem(file, f"{path}.keep.{number}", f"{kept} is not left out", hint)
