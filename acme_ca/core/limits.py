"""Rate limits: how many of what, for whom, in which time. Pure.

A limit is a bucket of `amount` tokens that is full at first; a token comes back every `period / amount`. So `amount` may
be taken at once, and then as many in each `period`; in the first period that is up to twice as many, less one. All that
is known of a bucket is when it is full again (`full_at`), the one number of the generic cell rate algorithm (ITU-T I.371).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from acme_ca.core import durations, identifiers
from acme_ca.core.accounts import Account
from acme_ca.core.eab import UNRESTRICTED, Restrictions
from acme_ca.core.identifiers import Identifier, IdentifierType, is_below, read_address
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.times import CLOCKS_APART

MAX_AMOUNT = 1_000_000
SECOND = timedelta(seconds=1)
MAX_PERIOD = timedelta(days=10 * 365)


class LimitKind(StrEnum):
    """What is counted. Orders and accounts are counted when they are asked for; certificates when they are made, so that
    nobody uses up a name's by asking for what they cannot prove.
    """

    ORDERS_PER_ACCOUNT = "orders-per-account"
    ORDERS_PER_EAB_KEY = "orders-per-eab-key"
    ORDERS_PER_NETWORK = "orders-per-network"
    CERTIFICATES_PER_EAB_KEY = "certificates-per-eab-key"
    CERTIFICATES_PER_NAME_SET = "certificates-per-name-set"
    CERTIFICATES_PER_REGISTERED_NAME = "certificates-per-registered-name"
    ACCOUNTS_PER_NETWORK = "accounts-per-network"

    @property
    def setting(self) -> str:
        """Its name in the section `limits`."""
        return self.value.replace("-", "_")


ORDERS = frozenset({LimitKind.ORDERS_PER_ACCOUNT, LimitKind.ORDERS_PER_EAB_KEY, LimitKind.ORDERS_PER_NETWORK})
CERTIFICATES = frozenset(
    {
        LimitKind.CERTIFICATES_PER_EAB_KEY,
        LimitKind.CERTIFICATES_PER_NAME_SET,
        LimitKind.CERTIFICATES_PER_REGISTERED_NAME,
    }
)

OF_NAMES = frozenset({LimitKind.CERTIFICATES_PER_NAME_SET, LimitKind.CERTIFICATES_PER_REGISTERED_NAME})
OF_NETWORKS = frozenset({LimitKind.ORDERS_PER_NETWORK, LimitKind.ACCOUNTS_PER_NETWORK})
OF_EAB_KEYS = frozenset({LimitKind.ORDERS_PER_EAB_KEY, LimitKind.CERTIFICATES_PER_EAB_KEY})


# ---------------------------------------------------------------- limits and their arithmetic


@dataclass(frozen=True, slots=True)
class Limit:
    """`amount` at once, and `amount` in each `period`. Written `300/3h`. Raises ValueError for what cannot be kept."""

    amount: int
    period: timedelta

    def __post_init__(self) -> None:
        if not 1 <= self.amount <= MAX_AMOUNT:
            raise ValueError(f"a limit is for 1 to {MAX_AMOUNT}; write none to have no limit")
        if not SECOND <= self.period <= MAX_PERIOD:
            raise ValueError("the period of a limit is a second at least, and ten years at most")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`300/3h`, `5/week`, `100/1 day`. Raises ValueError with a sentence."""
        match = _LIMIT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'{text!r} is no limit: write a number and a time, as in "300/3h" or "50/1 day"')
        seconds = int(match[2] or 1) * _UNITS[match[3][0]]
        return cls(int(match[1]), timedelta(seconds=min(seconds, _TOO_LONG)))

    def __str__(self) -> str:
        """`parse` gives the same again."""
        return f"{self.amount}/{self.said_period}"

    @property
    def said_period(self) -> str:
        return durations.text(self.period)

    @property
    def interval(self) -> timedelta:
        """Until a token comes back."""
        return self.period / self.amount

    @property
    def slack(self) -> timedelta:
        """How far from full a bucket may be for one token more to be taken: exactly `amount` fit at once."""
        return self.interval * (self.amount - 1)

    @property
    def depth(self) -> timedelta:
        """How far from full an empty bucket is: the period, but for rounding."""
        return self.interval * self.amount


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_TOO_LONG = int(MAX_PERIOD.total_seconds()) + 1
_LIMIT = re.compile(
    r"(\d{1,8}) */ *(?:(\d{1,9}) *)?((?:second|minute|hour|day|week)s?|min|[smhdw])", re.ASCII
)


def ends(limit: Limit, full_at: datetime | None, *, now: datetime) -> datetime:
    """When a bucket that was to be full at `full_at` is full, seen from `now`. None: nothing was ever taken from it.

    One that is further off than the bucket is deep is of a clock that was wrong, or of a limit that was larger: then the
    bucket is empty, and no more than that. The clocks of replicas may differ by less than CLOCKS_APART.
    """
    if full_at is None:
        return now
    deepest = now + limit.depth
    return max(now, deepest if full_at > deepest + CLOCKS_APART else full_at)


def left(limit: Limit, full_at: datetime | None, *, now: datetime) -> int:
    """Tokens in the bucket."""
    return max(0, (limit.slack - (ends(limit, full_at, now=now) - now)) // limit.interval + 1)


def free_at(limit: Limit, full_at: datetime | None, *, now: datetime) -> datetime:
    """When the next token can be taken: `now`, or later."""
    return max(now, ends(limit, full_at, now=now) - limit.slack)


def spent(limit: Limit, full_at: datetime | None, *, now: datetime) -> datetime | None:
    """`full_at` after a token was taken; None: there is none. What `spend` of schema.sql does, said in Python."""
    if free_at(limit, full_at, now=now) > now:
        return None
    return ends(limit, full_at, now=now) + limit.interval


# ---------------------------------------------------------------- whom they are for


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks for something, as far as limits go by it. `address`: of the client."""

    account: AccountId
    eab_key: EabKeyId | None
    address: str
    restrictions: Restrictions = UNRESTRICTED
    """Of the EAB key."""

    @classmethod
    def of(cls, account: Account, address: str, restrictions: Restrictions) -> Self:
        return cls(account=account.id, eab_key=account.eab_key_id, address=address, restrictions=restrictions)

    def own_limit(self, kind: LimitKind) -> Limit | None:
        """What the EAB key itself says."""
        per_day = {
            LimitKind.ORDERS_PER_EAB_KEY: self.restrictions.orders_per_day,
            LimitKind.CERTIFICATES_PER_EAB_KEY: self.restrictions.certificates_per_day,
        }.get(kind)
        return None if per_day is None else Limit(per_day, timedelta(days=1))


@dataclass(frozen=True, slots=True, order=True)
class Charge:
    """A token to be taken from a bucket, or with `spends` False to be there. Sorted, they are locked in one order."""

    key: str
    kind: LimitKind = field(compare=False)
    subject: str = field(compare=False)
    limit: Limit = field(compare=False)
    spends: bool = field(compare=False, default=True)


def bucket_key(kind: LimitKind, subject: str) -> str:
    """Of bounded length; a subject that is longer than a digest is kept as one."""
    short = len(subject) <= _DIGEST_DIGITS
    return f"{kind}:{subject if short else hashlib.sha256(subject.encode()).hexdigest()}"


_DIGEST_DIGITS = 64


def name_set(names: Iterable[Identifier]) -> str:
    """The subject of a set of names: sorted, so that neither their order nor a repetition matters."""
    return ",".join(sorted(set(map(str, names))))


def parse_names(text: str) -> list[Identifier]:
    """Names and addresses as an operator writes them, separated by commas, with or without `dns:` and `ip:`.

    Raises Problem for one that is none.
    """
    return [_identifier(name.strip()) for name in text.split(",")]


def _identifier(text: str) -> Identifier:
    kind, colon, value = text.partition(":")
    if colon and kind in {"dns", "ip"}:
        return identifiers.parse(kind, value)
    return (identifiers.ip if _is_address(text) else identifiers.dns)(text)


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """What counts as one network, and as one registered name."""

    v4_prefix: int = 32
    v6_prefix: int = 48
    domains: tuple[str, ...] = ()
    """The operator's own: a registered name is the one right below."""

    def network(self, address: str) -> str:
        """`192.0.2.1/32`, `2001:db8::/48`: the network that an address is counted with; for what is no address, that."""
        if (parsed := read_address(address)) is None:
            return address
        prefix = self.v4_prefix if parsed.version == 4 else self.v6_prefix  # noqa: PLR2004
        return str(ipaddress.ip_network((parsed.packed, prefix), strict=False))

    def registered_names(self, names: Sequence[Identifier]) -> list[str]:
        return sorted({self.registered_name(name) for name in names})

    def registered_name(self, identifier: Identifier) -> str:
        """Private networks have no list of public suffixes: it is the name right below the longest of the operator's
        domains that the name is in, else the last two labels; of an address, the address.
        """
        if identifier.type is IdentifierType.IP:
            return identifier.value
        name = identifier.base
        own = max((domain for domain in self.domains if is_below(name, domain)), key=len, default=None)
        labels = 2 if own is None else own.count(".") + 2
        return ".".join(name.split(".")[-labels:])
