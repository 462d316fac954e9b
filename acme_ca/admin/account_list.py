"""The list of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.accounts import AccountView, view
from acme_ca.admin.frame import Call, Route
from acme_ca.admin.lists import Word
from acme_ca.admin.paging import Page, PageQuery
from acme_ca.core.ids import EabKeyId
from acme_ca.core.states import AccountStatus
from acme_ca.storage import account_list
from acme_ca.storage.account_list import AccountFilter, AccountSort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


class AccountQuery(PageQuery):
    status: AccountStatus | None = None
    frozen: bool | None = None
    eab_key: Word | None = None
    """The id of the EAB key that it was made with."""
    service: Word | None = None
    """Of its EAB key."""
    contact: Annotated[str, Field(min_length=1, max_length=320)] | None = None
    """An e-mail address, all of it."""
    thumbprint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")] | None = None
    """Of its key (RFC 7638)."""
    sort: AccountSort = AccountSort.CREATED_LAST
    """With a minus the last one first."""


async def find(admin: Admin, call: Call) -> Page[AccountView]:
    query: AccountQuery = call.query
    contact = query.contact
    found = await account_list.find(
        admin.database,
        AccountFilter(
            status=query.status,
            frozen=query.frozen,
            eab_key=None if query.eab_key is None else EabKeyId(query.eab_key),
            service=query.service,
            **lists.services(call),
            contact=None if contact is None else f"mailto:{contact.removeprefix('mailto:')}",
            thumbprint=query.thumbprint,
        ),
        limit=query.limit,
        sort=query.sort,
        after=lists.after(query.cursor, sort=query.sort, kind=None),
    )
    return lists.page(found, sort=query.sort, view=view)


ROUTES = (
    Route(
        name="accounts.list",
        method="GET",
        path="/accounts",
        permission=Permission.ACCOUNTS_READ,
        endpoint=find,
        query=AccountQuery,
        answer=Page[AccountView],
        scoped=True,
        summary="Accounts that fit all filters, in pages.",
    ),
)
