"""Where a running gate has its rules and tokens from: files, looked at again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from builder.errors import GoldsmithError
from registry.access.authenticate import Authenticator
from registry.access.jwks import IssuerKeys
from registry.access.load import ACCESS_FILE, ROLES_FILE, load_access
from registry.access.roles import EVERYTHING
from registry.access.rules import Access, AccessFile, Issuer
from registry.access.tokens import TokenStore

Told = Callable[[str, str], None]  # an event and its cause
_Stamps = tuple[tuple[int, int, int] | None, ...]


class Source(Protocol):
    """Gives what proves identities."""

    def load(self, told: Told) -> Authenticator:
        """As it is now; `told` hears of what is wrong. Raises DefinitionError for rules that are none."""

    def changed(self) -> bool:
        """Whether it is different from what was loaded last."""


class Open:
    """Everybody may pull everything, and nobody has a name: for tests and for one's own machine."""

    def load(self, told: Told) -> Authenticator:
        """The same always."""
        return Authenticator(open_to_all(Access({})), TokenStore(Path("/nonexistent")).read())

    def changed(self) -> bool:
        """Never."""
        return False


class Files:
    """The catalogue's rules (or those in `file`) and the state directory's tokens.

    Rules that are broken later leave those before in force; tokens that cannot be read are
    neither valid nor invalid. With `anonymous` everybody may pull.
    """

    def __init__(
        self,
        catalogue: Path,
        tokens: TokenStore,
        *,
        file: Path | None = None,
        anonymous: bool = False,
    ) -> None:
        self._catalogue, self._tokens, self._file = catalogue, tokens, file
        self._anonymous = anonymous
        self._watched = (file or catalogue / ACCESS_FILE, catalogue / ROLES_FILE, tokens.path)
        self._seen: _Stamps = ()
        self._access: Access | None = None
        self._issuers: dict[Issuer, IssuerKeys] = {}

    def load(self, told: Told) -> Authenticator:
        """As it is now; raises DefinitionError when the rules are broken and there were none before."""
        self._seen = self._stamps()
        try:
            self._access = load_access(self._catalogue, self._file)
        except GoldsmithError as error:
            if self._access is None:
                raise
            told("access-broken", f"{error.message}: {error.context}")
        try:
            tokens = self._tokens.read()
        except GoldsmithError as error:
            told("tokens-unreadable", f"{error.message}: {error.context}")
            tokens = None
        access = self._access
        wanted = access.file.oidc if access.file else ()
        # Those that stay keep their keys.
        self._issuers = {one: self._issuers.get(one) or IssuerKeys(one) for one in wanted}
        rules = open_to_all(access) if self._anonymous else access
        return Authenticator(rules, tokens, tuple(self._issuers.values()))

    def changed(self) -> bool:
        """Whether a file is another one than at the last loading."""
        return self._stamps() != self._seen

    def _stamps(self) -> _Stamps:
        found: list[tuple[int, int, int] | None] = []
        for path in self._watched:
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append(None)
        return tuple(found)


def open_to_all(access: Access) -> Access:
    """The same rules, but that everybody may pull everything."""
    file = access.file or AccessFile.model_validate({"schema": 1})
    return Access(access.roles, file.model_copy(update={"anonymous": (EVERYTHING,)}))
