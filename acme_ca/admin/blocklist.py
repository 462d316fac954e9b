"""Keys that are neither certified nor an account's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery
from acme_ca.admin.paging import Page
from acme_ca.core.problems import not_found
from acme_ca.core.texts import ShortText
from acme_ca.storage import certificates
from acme_ca.storage import keys as store
from acme_ca.storage.keys import BlockedKey, BlockedKeySort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MOST_KEYS = 10_000
"""In one request."""
MOST_NAMED = 1000
"""Certificates in one answer."""
_HASH = r"^[0-9a-fA-F]{64}$"

KeyHash = Annotated[str, StringConstraints(pattern=_HASH)]


class BlockedKeyView(Model):
    spki_sha256: str
    """SHA-256 of its SubjectPublicKeyInfo, hexadecimal."""
    comment: str
    actor: str
    created: AwareDatetime
    living_certificates: int
    """How many certificates with it are neither expired nor revoked for good."""


class KeysToBlock(Model):
    keys: Annotated[tuple[KeyHash, ...], Field(min_length=1, max_length=MOST_KEYS)]
    """SHA-256 of their SubjectPublicKeyInfo, hexadecimal."""
    comment: ShortText
    """Why: a note for operators."""


class LivingCertificate(Model):
    serial: str
    not_after: AwareDatetime
    names: list[str]


class Blocking(Model):
    added: int
    """Keys that were not blocked before."""
    ended_accounts: list[str]
    """Those whose key is one of them: they are revoked."""
    living: int
    """Certificates that hold one of them and are neither expired nor revoked for good. They stay valid."""
    living_certificates: list[LivingCertificate]
    """The first 1,000 of those."""


class BlockedKeyQuery(CreatedQuery):
    key: KeyHash | None = None
    """Whether just this one is blocked."""
    actor: ShortText | None = None
    """Who blocked it, as in `operator:alice`."""
    text: ShortText | None = None
    """In the comment, in whatever case."""
    sort: BlockedKeySort = "created"
    """With a minus the last one first."""


async def list_keys(admin: Admin, call: Call) -> Page[BlockedKeyView]:
    query: BlockedKeyQuery = call.query
    key = None if query.key is None else bytes.fromhex(query.key)
    found = await store.blocked(
        admin.database, lists.wanted(query, store.BLOCKED, sort=query.sort, key=key), now=admin.clock()
    )
    return lists.page(found, sort=query.sort, view=_view)


async def block(admin: Admin, call: Call) -> Blocking:
    wish: KeysToBlock = call.body
    wanted = [bytes.fromhex(key) for key in wish.keys]
    now = admin.clock()
    done = await store.block(admin.database, wanted, comment=wish.comment, actor=call.actor, now=now)
    living = await certificates.living_with_keys(admin.database, wanted, now=now)
    return Blocking(
        added=len(done.keys),
        ended_accounts=list(done.accounts),
        living=len(living),
        living_certificates=[
            LivingCertificate(
                serial=one.serial,
                not_after=one.not_after,
                names=[identifier.value for identifier in one.identifiers],
            )
            for one in living[:MOST_NAMED]
        ],
    )


async def unblock(admin: Admin, call: Call) -> None:
    key = call.path["key"]
    if not re.fullmatch(_HASH, key) or not await store.unblock(
        admin.database, bytes.fromhex(key), actor=call.actor, now=admin.clock()
    ):
        raise not_found(f"The key {key[:64]} is not blocked: see acme-ca blocklist list.")


def _view(key: BlockedKey) -> BlockedKeyView:
    return BlockedKeyView(
        spki_sha256=key.spki_sha256.hex(),
        comment=key.comment,
        actor=key.actor,
        created=key.created,
        living_certificates=key.living,
    )


ROUTES = (
    Route(
        name="blocklist.list",
        method="GET",
        path="/blocklist",
        permission=Permission.BLOCKLIST_READ,
        endpoint=list_keys,
        query=BlockedKeyQuery,
        answer=Page[BlockedKeyView],
        summary="The blocked keys that fit all filters, and how many living certificates hold each.",
    ),
    Route(
        name="blocklist.add",
        method="POST",
        path="/blocklist",
        permission=Permission.BLOCKLIST_WRITE,
        endpoint=block,
        body=KeysToBlock,
        answer=Blocking,
        summary="Block keys, end the accounts that have them, and say which living certificates hold them.",
        max_body=1024 * 1024,
    ),
    Route(
        name="blocklist.remove",
        method="DELETE",
        path="/blocklist/{key}",
        permission=Permission.BLOCKLIST_WRITE,
        endpoint=unblock,
        status=204,
        summary="Take a key off the list. Accounts that ended with it stay so.",
    ),
)
