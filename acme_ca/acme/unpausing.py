"""The way back for who was paused: a link that is its own credential, and the page behind it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from acme_ca.acme.authentication import check_standing
from acme_ca.acme.urls import Urls
from acme_ca.core import base64url
from acme_ca.core.actors import Actor
from acme_ca.core.ids import AccountId
from acme_ca.core.problems import Problem, not_found
from acme_ca.storage import accounts
from acme_ca.storage import limits as store
from acme_ca.storage.database import Database

LIFETIME = timedelta(days=7)
"""Of a link. Each refusal has a fresh one."""
_MAC_BYTES = 16
_ACCOUNT_BYTES = 16
_EXPIRY_BYTES = 5
_SHOWN = 1000
"""Names on the page."""
_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:42rem;padding:1.5rem}"
    "h1{font-size:1.5rem}button{font:inherit;padding:.4rem 1.2rem}li{overflow-wrap:anywhere}"
)
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""Of the pages' own style, for their Content-Security-Policy."""


class Unpausing:
    """A token is an account's id, an expiry in seconds since 1970, and a MAC of both under the secret that all replicas
    share: whoever has it may lift the pauses of that account, until then.
    """

    def __init__(
        self, *, database: Database, urls: Urls, secret: bytes, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._urls = urls
        self._secret = secret
        self._clock = clock

    def link(self, account: AccountId) -> str:
        expires = int((self._clock() + LIFETIME).timestamp())
        said = bytes.fromhex(account) + expires.to_bytes(_EXPIRY_BYTES)
        return self._urls.unpause(base64url.encode(said + self._mac(said)))

    def account_of(self, token: str) -> AccountId:
        """Raises Problem: 404 for a token that was not made here or has expired."""
        try:
            whole = base64url.decode(token, "The link")
        except Problem:
            raise _no_link() from None
        said, mac = whole[:-_MAC_BYTES], whole[-_MAC_BYTES:]
        if len(said) != _ACCOUNT_BYTES + _EXPIRY_BYTES or not hmac.compare_digest(mac, self._mac(said)):
            raise _no_link()
        expires = datetime.fromtimestamp(int.from_bytes(said[_ACCOUNT_BYTES:]), UTC)
        if expires <= self._clock():
            raise _no_link()
        return AccountId(said[:_ACCOUNT_BYTES].hex())

    def _mac(self, said: bytes) -> bytes:
        return hmac.digest(self._secret, b"unpause" + said, hashlib.sha256)[:_MAC_BYTES]

    async def page(self, token: str) -> str:
        """HTML: what the account is paused for, and a button."""
        account = self.account_of(token)
        paused = await store.pauses(self._database, account=account, limit=_SHOWN)
        if not paused:
            return _page("Nothing is paused", "<p>This account can order all its names.</p>")
        names = "".join(
            f"<li>{html.escape(pause.identifier.value)}: {pause.failures} failed validations, the last at "
            f"{pause.failed:%Y-%m-%d %H:%M:%S} UTC</li>"
            for pause in paused
        )
        return _page(
            "This account is paused",
            "<p>Validations failed again and again, so the account cannot order certificates for these names:</p>"
            f"<ul>{names}</ul><p>Mend what is wrong first: the challenge must be answered at the name.</p>"
            '<form method="post"><button>Lift the pause</button></form>',
        )

    async def lift(self, token: str, *, source: str) -> str:
        """HTML: what was lifted. The account's own act, from `source`. Raises Problem for one that is frozen or has ended."""
        account = self.account_of(token)
        if (found := await accounts.find(self._database, account)) is not None:
            check_standing(found)
        lifted = await store.unpause(
            self._database,
            account=account,
            identifiers=None,
            actor=Actor(f"account:{account}", source),
            now=self._clock(),
        )
        names = "".join(f"<li>{html.escape(identifier.value)}</li>" for identifier in lifted)
        said = f"<p>The account can order these names again:</p><ul>{names}</ul>" if lifted else ""
        return _page("The pause is lifted" if lifted else "Nothing is paused", said)


def refusal(problem: Problem) -> str:
    """HTML: why nothing was shown or lifted."""
    return _page("That did not work", f"<p>{html.escape(problem.detail)}</p>")


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def _no_link() -> Problem:
    return not_found(
        "This link was not made by this CA, or is too old: order again, and the answer has a fresh one."
    )
