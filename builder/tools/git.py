"""git: what the files of a catalogue are, and who wrote them.

Everything that it says comes from people whom we do not know: names are cut and cleaned, and what
cannot be read whole is unknown. Nothing in the repository's configuration may add to the output.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.model.sources import COMMIT, WRITER_MAX, WRITERS_MAX, Tree
from builder.tools import process

_SECONDS = 60
_COMMITS_MAX = 5000
_MERGES_MAX = 200  # merges that are looked into; of more, who merged counts as a writer
_QUIET = ("core.fsmonitor=false", "log.showSignature=false", "log.follow=false", "diff.external=")
_DIFF_MAX = 1 << 20  # characters
_PEOPLE = "%an%x00%ae%x00%cn%x00%ce%x00%(trailers:key=Co-authored-by,valueonly,separator=%x01)"
_FIELDS = 5
_EMAIL_MAX = WRITER_MAX // 2  # characters
UNNAMED = "<>"  # somebody without a name


@dataclass(frozen=True, slots=True)
class Range:
    """Where to look for writers: in what `since` does not hold yet ("": in everything), at these paths.

    Paths are below the folder; `:(exclude)PATH` leaves one out.
    """

    since: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Git:
    """The git repository that a folder is in, if there is one."""

    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    def state(self, paths: Sequence[str]) -> tuple[Tree, str]:
        """What git says of the files at `paths` (below the folder), and the commit that is checked out."""
        above = (self.folder, *self.folder.absolute().parents)
        outside = Tree.UNKNOWN if any(os.path.lexists(p / ".git") for p in above) else Tree.NONE
        if process.find("git", self.environment) is None:
            return outside, ""
        asked = self._run("rev-parse", "--is-shallow-repository", ok=(0, 128))
        if asked.returncode:  # no repository, a damaged one, or one that git does not want to read
            return outside, ""
        head = self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1, 128))
        commit = head.text.strip()
        if head.returncode or not COMMIT.fullmatch(commit):
            return Tree.DIRTY, ""  # there is no commit yet
        if asked.text.strip() != "false":
            return Tree.UNKNOWN, commit
        options = ("--porcelain=v1", "-z", "--untracked-files=all", "--ignored", "--ignore-submodules=none")
        changed = self._run("status", *options, "--", *paths)
        return (Tree.DIRTY if changed.stdout else Tree.CLEAN), commit

    def has(self, commit: str) -> bool:
        """Whether there is such a commit."""
        if not COMMIT.fullmatch(commit):
            return False
        return self._run("cat-file", "-e", f"{commit}^{{commit}}", ok=(0, 1, 128)).returncode == 0

    def writers(self, ranges: Sequence[Range]) -> tuple[str, ...] | None:
        """Who wrote, committed or co-wrote what is new in these ranges, sorted, as `NAME <E-MAIL>`.

        Who only merged what others wrote is none of them. None when there are too many to tell.
        Raises ToolError when git fails.
        """
        found: set[str] = set()
        for one in ranges:
            said = self._log(one, "--no-merges", f"--format=tformat:{_PEOPLE}", _FIELDS)
            merges = self._log(one, "--merges", f"--format=tformat:%H%x00{_PEOPLE}", _FIELDS + 1)
            if said is None or merges is None:
                return None
            said += [m[1:] for n, m in enumerate(merges) if n >= _MERGES_MAX or self._adds(m[0], one.paths)]
            for author, email, committer, address, others in said:
                found |= {writer(author, email), writer(committer, address), *_co_authors(others)}
        return tuple(sorted(found)) if len(found) <= WRITERS_MAX else None

    def _log(self, one: Range, which: str, form: str, width: int) -> list[list[str]] | None:
        """The fields of each commit of a range; None when there are too many."""
        exclude = [f"^{one.since}"] if one.since else []
        options = ("-z", f"--max-count={_COMMITS_MAX + 1}", "--topo-order", "--no-color", "--encoding=UTF-8")
        said = self._run("log", *options, which, form, "HEAD", *exclude, "--", *one.paths)
        fields = said.text.split("\0")[:-1]
        if len(fields) % width or len(fields) > _COMMITS_MAX * width:
            return None
        return [fields[n : n + width] for n in range(0, len(fields), width)]

    def _adds(self, merge: str, paths: Sequence[str]) -> bool:
        """Whether a merge says something that none of its sides says."""
        options = ("--cc", "-p", "-r", "--no-commit-id", "--no-ext-diff", "--no-textconv")
        return bool(self._run("diff-tree", *options, merge, "--", *paths).stdout)

    def difference(self, since: str, paths: Sequence[str]) -> str:
        """The text difference between a commit and the files as they are now; cut after a MiB."""
        options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--unified=3")
        said = self._run("diff", *options, since, "--", *paths)
        return said.text[:_DIFF_MAX]

    def user(self) -> str:
        """Whom git would name as the author of a commit made here; empty when it does not know."""
        if process.find("git", self.environment) is None:
            return ""
        return _plain(self._run("config", "--get", "user.name", ok=(0, 1, 128)).text)

    def _run(self, *arguments: str, ok: Sequence[int] = (0,)) -> process.Completed:
        options = [x for setting in _QUIET for x in ("-c", setting)]
        return process.run(
            ["git", "--no-optional-locks", "--no-replace-objects", *options, *arguments],
            environment={**self.environment, "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat"},
            timeout_seconds=_SECONDS,
            directory=self.folder,
            ok=ok,
            hint="see that git works in the catalogue's folder",
        )


def writer(name: str, email: str) -> str:
    """`NAME <E-MAIL>` on one line, cut; `<>` when neither can be told."""
    plain_name, address = _plain(name), _plain(email)
    if len(address) > _EMAIL_MAX:  # half an address would be another one's
        return UNNAMED
    shown = f"{plain_name[: WRITER_MAX - _EMAIL_MAX - 3]} <{address}>".strip()
    return shown if plain_name or address else UNNAMED


def _co_authors(trailers: str) -> list[str]:
    people = []
    for line in trailers.split("\1"):
        if line.strip():
            name, _, rest = line.rpartition("<")
            people.append(writer(name, rest.partition(">")[0]) if name else writer(line, ""))
    return people


def _plain(text: str) -> str:
    """Without control characters, signs that nobody sees, and angle brackets; single blanks."""
    kept = (
        c for c in unicodedata.normalize("NFKC", text) if c not in "<>" and unicodedata.category(c) != "Cf"
    )
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in kept).split())
