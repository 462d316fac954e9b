"""The issuers that this process serves: what the database says of them, with their keys and chains.

Operators make, activate and retire issuers while servers run. Each process looks at the database every few seconds, and
at once when it meets an issuer that it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import chains, issuers
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.core import keys
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.states import IssuerState
from acme_ca.refreshing import Refresh
from acme_ca.storage import issuers as store
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord

OpenKey = Callable[[str], PrivateKey]
"""From the URI of a key to the key. Raises KeyStoreError. May take its time: called in a thread."""

KEY_RETRY = timedelta(seconds=3)
"""How long a key that could not be opened is left alone."""


def record_of(
    issuer: Issuer,
    kind: IssuerKind,
    *,
    parent: IssuerId | None,
    key_uri: str | None,
    state: IssuerState,
    now: datetime,
) -> IssuerRecord:
    """A CA certificate that was made or brought `now`, as the database keeps it."""
    return IssuerRecord(
        id=issuer.id,
        der=issuer.certificate.public_bytes(Encoding.DER),
        kind=kind,
        parent_id=parent,
        spki_sha256=keys.spki_sha256(issuer.public_key),
        key_uri=key_uri,
        state=state,
        not_before=issuer.certificate.not_valid_before_utc,
        not_after=issuer.not_after,
        created=now,
        activated=now if state is IssuerState.ACTIVE else None,
        retired=now if state is IssuerState.RETIRED else None,
    )


class Issuers:
    """Read by everyone, as of the last look. Two may share a key: certificates of the same CA by different parents.

    `open_key` None: without keys, for those who only look.
    """

    def __init__(
        self,
        *,
        database: Database,
        open_key: OpenKey | None,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._open_key = open_key
        self._clock = clock
        self._log = log
        self._records: list[IssuerRecord] = []
        self._known: dict[IssuerId, Issuer] = {}
        self._keys: dict[str, PrivateKey] = {}
        self._missing: dict[str, _Missing] = {}
        self._looked = self._next_end = datetime.min.replace(tzinfo=UTC)
        self.refresh = Refresh(self._look)

    def __iter__(self) -> Iterator[Issuer]:
        """Oldest first, roots and cross-signed certificates among them."""
        return iter(self._known.values())

    def get(self, issuer: IssuerId) -> Issuer | None:
        return self._known.get(issuer)

    def active(self) -> Issuer:
        """The one that new orders are for: of those in use, the one activated last.

        Raises Problem (`serverInternal`) when there is none.
        """
        now = self._clock()
        serving = [issuer for issuer in self if issuer.signs_leaves(now)]
        if not serving:
            raise Problem(
                ErrorType.SERVER_INTERNAL,
                "No issuer of this CA is in use, or the last has expired; its operator must activate one.",
                status=503,
                headers={"Retry-After": "60"},
            )
        return max(serving, key=_seniority)

    def root_of(self, issuer: Issuer) -> Issuer | None:
        """The root at the end of the issuer's own chain; None when it is not known here."""
        last = issuer.chain[-1] if issuer.chain else issuer.certificate
        roots = (root for root in self if root.kind is IssuerKind.ROOT)
        return next((root for root in roots if chains.issued(root.certificate, last)), None)

    def trouble(self, issuer: IssuerId) -> str:
        """Why its key cannot be used: a sentence without its full stop; empty when it can."""
        missing = self._missing_key(issuer)
        return missing.trouble.rstrip(".") if missing else ""

    def is_away(self, issuer: IssuerId) -> bool:
        """Whether its key store cannot be reached now, and may come back by itself."""
        missing = self._missing_key(issuer)
        return missing is not None and missing.away

    def _missing_key(self, issuer: IssuerId) -> _Missing | None:
        """Several issuers may have one key."""
        uris = (record.key_uri for record in self._records if record.id == issuer)
        return next((self._missing[uri] for uri in uris if uri in self._missing), None)

    async def find(self, issuer: IssuerId) -> Issuer:
        """Also one that was made a moment ago. Raises Problem (`serverInternal`) for one that is not known."""
        if issuer not in self._known:
            await self.refresh()
        found = self._known.get(issuer)
        if found is None:
            raise Problem(
                ErrorType.SERVER_INTERNAL,
                "The issuer of this certificate or order is not known any more; tell the CA's operator.",
            )
        return found

    async def _look(self) -> None:
        """At the database, and for keys that were out of reach."""
        records, now = await store.all_issuers(self._database), self._clock()
        is_as_before = self._looked <= now < self._next_end  # a clock may be set back
        if records == self._records and is_as_before and not self._is_time_for_keys():
            return
        await asyncio.to_thread(self._open_keys, records)
        self._known = {issuer.id: issuer for issuer in self._with_chains(records)}
        self._records = records
        self._looked, self._next_end = now, _next_end(records, now)

    # ------------------------------------------------------------ keys

    def _is_time_for_keys(self) -> bool:
        return any(missing.is_due(self._clock()) for missing in self._missing.values())

    def _open_keys(self, records: Sequence[IssuerRecord]) -> None:
        """Of what signs leaves or their status; a root's is opened by whoever needs it, for that moment."""
        if self._open_key is None:
            return
        now = self._clock()
        wanted = {
            record.key_uri: record
            for record in records
            if record.kind is IssuerKind.INTERMEDIATE
            and record.key_uri is not None
            and record.not_after > now
        }
        self._missing = {uri: missing for uri, missing in self._missing.items() if uri in wanted}
        for uri, record in wanted.items():
            if uri not in self._keys and (uri not in self._missing or self._missing[uri].is_due(now)):
                self._open(self._open_key, uri, record)

    def _open(self, open_key: OpenKey, uri: str, record: IssuerRecord) -> None:
        try:
            key = open_key(uri)
            if key.public_key() != x509.load_der_x509_certificate(record.der).public_key():
                raise KeyStoreError("The key there is not the key of the issuer's certificate.")  # noqa: TRY301
        except KeyStoreError as error:
            if uri not in self._missing:
                self._log.error("an issuer's key cannot be opened", issuer=record.id, reason=str(error))
            self._missing[uri] = _Missing(
                trouble=str(error), away=isinstance(error, KeyUnavailable), tried=self._clock()
            )
            return
        if self._missing.pop(uri, None):
            self._log.warning("an issuer's key is within reach again", issuer=record.id)
        self._keys[uri] = key

    # ------------------------------------------------------------ chains

    def _with_chains(self, records: Sequence[IssuerRecord]) -> Iterator[Issuer]:
        now = self._clock()
        certificates = {record.id: x509.load_der_x509_certificate(record.der) for record in records}
        living = [
            certificates[record.id]
            for record in records
            if record.not_after > now and record.state is not IssuerState.RETIRED and record.revoked is None
        ]
        for record in records:
            # Its own parent first, so that the chain it was made for is the default.
            parent = [certificates[record.parent_id]] if record.parent_id is not None else []
            first, *others = chains.chains(certificates[record.id], [*parent, *living])
            key = self._keys.get(record.key_uri) if record.key_uri is not None else None
            yield replace(
                issuers.issuer(certificates[record.id], key, chain=first),
                kind=record.kind,
                stored_state=record.state,
                activated=record.activated,
                revoked=record.revoked,
                open_shard=record.open_shard,
                alternates_pem=tuple(issuers.chain_pem(other) for other in others if other),
                constraints=tuple(filter(None, map(NameConstraints.of, first))),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """A key that could not be opened."""

    trouble: str
    away: bool
    tried: datetime

    def is_due(self, now: datetime) -> bool:
        """Whether to try again: also when the clock was set back meanwhile."""
        return not self.tried <= now < self.tried + KEY_RETRY


def _next_end(records: Sequence[IssuerRecord], now: datetime) -> datetime:
    """When the next of them expires: no chain is offered beyond that."""
    ends = [record.not_after for record in records if record.not_after > now]
    return min(ends, default=datetime.max.replace(tzinfo=UTC))


def _seniority(issuer: Issuer) -> tuple[datetime, IssuerId]:
    assert issuer.activated is not None, "a constraint of the table"  # noqa: S101
    return issuer.activated, issuer.id
