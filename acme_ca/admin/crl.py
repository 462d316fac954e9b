"""Certificate revocation lists: their state, having them made anew, and those of roots whose key is elsewhere."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import Id
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.core.ids import IssuerId
from acme_ca.core.problems import not_found
from acme_ca.core.root_list import RootList
from acme_ca.core.texts import ShortText
from acme_ca.revocation import crl
from acme_ca.storage import crls, operations
from acme_ca.storage.crls import Shard, ShardState
from acme_ca.tasks import LEASE_ROUNDS

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

POLL = 0.2
"""Seconds."""
LONGEST_WAIT = 60.0
MAX_CRL = 8 * 1024 * 1024


class ShardView(Model):
    """The newest CRL of a shard."""

    issuer: str
    shard: int
    state: str
    """`ok`, `late`, `over` (its nextUpdate has passed), `missing` or `finished`."""
    number: int | None
    this_update: AwareDatetime | None
    next_update: AwareDatetime | None
    entries: int | None
    bytes: int | None
    delta_bytes: int | None
    certificates: int | None
    """That the shard has taken in."""
    due: int
    """Wishes for another that wait."""


class CrlQuery(PageQuery):
    issuer: Id | None = None
    """Of this issuer alone."""
    state: Literal["ok", "late", "over", "missing", "finished"] | None = None
    sort: Literal["shard", "-shard", "next_update", "-next_update"] = "shard"
    """By the issuer and the shard's number, or by when the next CRL is due; with a minus the last one first."""


class WishForCrls(Model):
    issuer: ShortText | None = None
    """Of this issuer alone; null: of all."""
    shard: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """This shard alone."""
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] = 10.0
    """Seconds to wait until they are published."""


class MadeDue(Model):
    asked: int
    """CRLs that were asked for."""
    published: list[ShardView]
    pending: list[ShardView]
    """Not published yet: nothing publishes now, the time was too short, or the key is elsewhere."""


class UploadedCrl(Model):
    crl: Annotated[str, Field(max_length=MAX_CRL)]
    """PEM, or DER in base64."""


class ServedCrl(Model):
    issuer: str
    """Id of the root that signed it."""


async def show(admin: Admin, call: Call) -> Page[ShardView]:
    query: CrlQuery = call.query
    known = await _states(admin)
    by: dict[str, Callable[[ShardState], datetime]] = {
        "shard": lambda one: one.created,
        "next_update": lambda one: one.next_update or datetime.min.replace(tzinfo=UTC),
    }
    found = lists.short(
        [
            one
            for one in known
            if query.issuer in {None, one.shard.issuer} and query.state in {None, one.state}
        ],
        query,
        sort=query.sort,
        kind=datetime,
        by=by[query.sort.removeprefix("-")],
        id_=lambda one: f"{one.shard.issuer}/{one.shard.number:010}",
    )
    return lists.page(found, sort=query.sort, view=_view)


async def generate(admin: Admin, call: Call) -> MadeDue:
    wish: WishForCrls = call.body
    issuer = None if wish.issuer is None else IssuerId(wish.issuer)
    asked = await crls.wish(admin.database, issuer=issuer, shard=wish.shard, now=admin.clock())
    if not asked:
        raise not_found("There is no such shard of an issuer that lives.")
    states = await _published(admin, wish)
    return MadeDue(
        asked=asked,
        published=[_view(state) for state in states if not state.due],
        pending=[_view(state) for state in states if state.due],
    )


async def root_list(admin: Admin, call: Call) -> RootList:
    return await admin.root_crls.list_for(IssuerId(call.path["id"]))


async def upload(admin: Admin, call: Call) -> ServedCrl:
    return ServedCrl(issuer=await admin.root_crls.upload(_der(call.body.crl), actor=call.actor))


# ---------------------------------------------------------------- parts


async def _states(admin: Admin) -> list[ShardState]:
    return await crls.states(
        admin.database,
        late=admin.crl_rules.late,
        root_warning=admin.crl_rules.root_warning,
        now=admin.clock(),
    )


async def _published(admin: Admin, wish: WishForCrls) -> list[ShardState]:
    """The shards that were asked for, once none of them is due any more or the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wish.wait
    while True:
        wanted = [state for state in await _states(admin) if _is_wanted(state.shard, wish)]
        waits = any(state.due and not state.of_root for state in wanted)
        if not waits or loop.time() >= end or not await _somebody_publishes(admin):
            return wanted
        await asyncio.sleep(POLL)


def _is_wanted(shard: Shard, wish: WishForCrls) -> bool:
    return wish.issuer in {None, shard.issuer} and wish.shard in {None, shard.number}


async def _somebody_publishes(admin: Admin) -> bool:
    return await operations.is_leased(
        admin.database, crl.LEASE, now=admin.clock(), seconds=LEASE_ROUNDS * crl.INTERVAL
    )


def _der(text: str) -> bytes:
    """Raises Problem."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            return x509.load_pem_x509_crl(text.encode()).public_bytes(Encoding.DER)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise invalid_field("crl", "This is neither a CRL in PEM nor base64.") from None


def _view(state: ShardState) -> ShardView:
    facts: dict[str, Any] = {
        name: getattr(state, name)
        for name in ("state", "number", "this_update", "next_update", "entries", "due")
    }
    return ShardView(
        issuer=state.shard.issuer,
        shard=state.shard.number,
        bytes=state.size,
        delta_bytes=state.delta_size,
        certificates=state.taken,
        **facts,
    )


ROUTES = (
    Route(
        name="crl.info",
        method="GET",
        path="/crl/info",
        permission=Permission.CRL_READ,
        endpoint=show,
        query=CrlQuery,
        answer=Page[ShardView],
        summary="The newest CRL of every shard.",
    ),
    Route(
        name="crl.generate",
        method="POST",
        path="/crl/generate",
        permission=Permission.CRL_WRITE,
        endpoint=generate,
        body=WishForCrls,
        answer=MadeDue,
        summary="Have CRLs made anew, and wait until they are published.",
    ),
    Route(
        name="crl.root_list",
        method="GET",
        path="/crl/roots/{id}/list",
        permission=Permission.CRL_READ,
        endpoint=root_list,
        answer=RootList,
        summary="What the next CRL of a root says, to be signed where its key is.",
    ),
    Route(
        name="crl.upload",
        method="POST",
        path="/crl/roots",
        permission=Permission.CRL_WRITE,
        endpoint=upload,
        body=UploadedCrl,
        answer=ServedCrl,
        summary="Serve a CRL that a root signed elsewhere: it is looked at first.",
        conflicts=True,
        max_body=MAX_CRL + 1000,
    ),
)
