"""Credentials of the API itself: bearer tokens, and names in client certificates."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import OPERATOR_NAME, Permission, Role
from acme_ca.admin.authentication import new_token
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery, Within
from acme_ca.admin.paging import Page, invalid_field
from acme_ca.core import identifiers
from acme_ca.core.actors import MACHINE
from acme_ca.core.codes import Code
from acme_ca.core.durations import Duration
from acme_ca.core.problems import Problem, conflict, not_found
from acme_ca.core.texts import ShortText
from acme_ca.storage import tokens as store
from acme_ca.storage.tokens import Token, TokenSort, TokenState

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_LIFE = timedelta(days=10 * 365)


def _no_user(name: str) -> str:
    if name.endswith(MACHINE):
        raise ValueError(f"names with {MACHINE} are those of this machine's users")
    return name


class TokenView(Model):
    """A credential, without its secret."""

    id: str
    name: str
    """Who: the audit says operator:NAME."""
    role: Role
    services: list[str]
    """What it is for; empty: everything."""
    certificate_name: str | None
    """The DNS name in a client certificate of profile `operator`; null: a bearer token."""
    created: AwareDatetime
    made_by: str
    """As the audit names them."""
    expires: AwareDatetime | None
    revoked: AwareDatetime | None
    last_used: AwareDatetime | None
    """To the minute."""


class NewToken(Model):
    name: Annotated[str, Field(pattern=OPERATOR_NAME), AfterValidator(_no_user)]
    """Who: 1 to 64 letters, digits, `.`, `_`, `@`, `-`."""
    role: Role
    services: Annotated[tuple[ShortText, ...], Field(max_length=1000)] = ()
    """Only what belongs to these services; empty: everything."""
    expires_in: Annotated[Duration, Field(gt=timedelta(), le=MAX_LIFE)] | None = None
    """As in `90 days`; null: never."""
    certificate_name: ShortText | None = None
    """Instead of a secret: whoever shows a client certificate of profile `operator` with this DNS name."""


class MadeToken(TokenView):
    token: str | None
    """To be sent as `Authorization: Bearer …`. Shown now and never again; null for a certificate's name."""


class TokenQuery(CreatedQuery):
    all: bool = False
    """Also revoked and expired ones."""
    state: TokenState | None = None
    """Null: `active`, or any with `all`."""
    role: Role | None = None
    service: ShortText | None = None
    """Among those that it is for."""
    made_by: ShortText | None = None
    """As the audit names them: `operator:alice`."""
    expiring_within: Within | None = None
    """As in `30 days`: what is not revoked and ends within that time."""
    unused_since: AwareDatetime | None = None
    """Not used from then on, or never."""
    text: ShortText | None = None
    """In the id, the name or the certificate's name, in whatever case."""
    sort: TokenSort = "-created"
    """With a minus the last one first. What never expires comes after all that does; what was never used, before all
    that was."""


async def list_tokens(admin: Admin, call: Call) -> Page[TokenView]:
    query: TokenQuery = call.query
    state = query.state or (None if query.all else TokenState.ACTIVE)
    found = await store.page(
        admin.database, lists.wanted(query, store.TOKENS, sort=query.sort, state=state), now=admin.clock()
    )
    return lists.page(found, sort=query.sort, view=_view)


async def show(admin: Admin, call: Call) -> TokenView:
    token = await store.find(admin.database, call.path["id"])
    if token is None:
        raise not_found("There is no such token.")
    return _view(token)


async def create(admin: Admin, call: Call) -> MadeToken:
    wish: NewToken = call.body
    id_, digest, shown = new_token(admin.random_bytes)
    now = admin.clock()
    certificate_name = _certificate_name(wish.certificate_name)
    token = Token(
        id=id_,
        name=wish.name,
        secret_sha256=None if certificate_name else digest,
        certificate_name=certificate_name,
        role=wish.role,
        services=wish.services,
        created=now,
        made_by=call.actor.name,
        expires=now + wish.expires_in if wish.expires_in else None,
    )
    if not await store.create(admin.database, token, actor=call.actor):
        raise conflict(
            "A token that is not revoked has this name, or the certificate's name, already.", Code.EXISTS
        )
    return MadeToken(**_view(token).model_dump(), token=None if certificate_name else shown)


async def revoke(admin: Admin, call: Call) -> TokenView:
    if not await store.revoke(admin.database, call.path["id"], actor=call.actor, now=admin.clock()):
        await show(admin, call)
        raise conflict("This token is revoked already.")
    return await show(admin, call)


def _certificate_name(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return str(identifiers.dns(name))
    except Problem as problem:
        raise invalid_field("certificate_name", problem.detail) from None


def _view(token: Token) -> TokenView:
    return TokenView(
        id=token.id,
        name=token.name,
        role=Role(token.role),
        services=list(token.services),
        certificate_name=token.certificate_name.partition(":")[2] if token.certificate_name else None,
        created=token.created,
        made_by=token.made_by,
        expires=token.expires,
        revoked=token.revoked,
        last_used=token.last_used,
    )


ROUTES = (
    Route(
        name="tokens.list",
        method="GET",
        path="/tokens",
        permission=Permission.TOKENS_READ,
        endpoint=list_tokens,
        query=TokenQuery,
        answer=Page[TokenView],
        summary="The credentials of this API that fit all filters, in pages.",
    ),
    Route(
        name="tokens.create",
        method="POST",
        path="/tokens",
        permission=Permission.TOKENS_WRITE,
        endpoint=create,
        body=NewToken,
        answer=MadeToken,
        status=201,
        summary="Make a credential; its secret is in the answer and nowhere else.",
        conflicts=True,
    ),
    Route(
        name="tokens.show",
        method="GET",
        path="/tokens/{id}",
        permission=Permission.TOKENS_READ,
        endpoint=show,
        answer=TokenView,
        summary="One of them.",
    ),
    Route(
        name="tokens.revoke",
        method="POST",
        path="/tokens/{id}/revoke",
        permission=Permission.TOKENS_REVOKE,
        endpoint=revoke,
        answer=TokenView,
        summary="End a credential at once.",
        conflicts=True,
    ),
)
