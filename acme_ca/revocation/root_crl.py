"""CRLs of roots whose key is not within the server's reach: a list goes out, a signed CRL comes in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from acme_ca.ca.issuers import IssuerKey
from acme_ca.core import addresses, crl
from acme_ca.core.actors import Actor
from acme_ca.core.crl import Base, Newest, Scope
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.ids import IssuerId, Serial, serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import conflict, malformed, not_found
from acme_ca.core.revocation import reason_name
from acme_ca.core.root_list import RevokedCa, RootList
from acme_ca.storage import crls, issuers
from acme_ca.storage.crls import Shard, SignedCrl
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord

MAX_AHEAD = timedelta(minutes=5)
"""By how much the clock beside the root's key may be ahead."""

MAX_NUMBER = 1 << 62
"""A bigint has to hold those that follow, too."""


class RootCrls:
    def __init__(
        self, *, database: Database, public_http_url: str, lifetime: timedelta, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._public_http_url = public_http_url
        self._lifetime = lifetime
        self._clock = clock

    async def list_for(self, root: IssuerId) -> RootList:
        """What the next CRL of the root says. Raises Problem for what is no root here."""
        records = await issuers.all_issuers(self._database)
        if not any(record.id == root and record.kind is IssuerKind.ROOT for record in records):
            raise not_found("There is no such root here: see acme-ca ca list.")
        newest = await crls.newest(self._database, Shard(root, 0))
        return RootList(
            issuer=root,
            above=newest.number if newest else 0,
            days=self._lifetime / timedelta(days=1),
            revoked=tuple(_revoked_below(root, records, lists_after=_lists_after(newest))),
        )

    async def upload(self, der: bytes, *, actor: Actor) -> IssuerId:
        """Take in a CRL that a root signed elsewhere, in the place of the last; it is served at once.

        Raises Problem (`malformed`) that says what is wrong with it.
        """
        now, found = self._clock(), _parse(der)
        shard = Shard(await self._signer_of(found), 0)
        newest = await crls.newest(self._database, shard)
        # Before the list: what is revoked meanwhile asks for another CRL.
        wishes = await crls.wishes(self._database, shard)
        listing = await crls.listing(self._database, shard, Scope.CAS, lists_after=_lists_after(newest))
        _check_number(_number(found), newest)
        _check_time(found, now)
        _check_scope(found)
        _check_complete(found, {entry.serial for entry in listing.entries})
        if not await crls.store(
            self._database,
            self._signed(found, der, shard, newest),
            after=newest.number if newest else None,
            wishes=wishes,
            event="crl.uploaded",
            actor=actor,
            now=now,
            detail={
                "number": _number(found),
                "entries": len(found),
                "sha256": hashlib.sha256(der).hexdigest(),
            },
        ):
            raise conflict("Another CRL came first: compare it with this one.")
        return shard.issuer

    def _signed(
        self, found: x509.CertificateRevocationList, der: bytes, shard: Shard, newest: Newest | None
    ) -> SignedCrl:
        number, at = _number(found), found.last_update_utc
        return SignedCrl(
            shard=shard,
            number=number,
            this_update=at,
            next_update=_next_update(found),
            entries=len(found),
            der=der,
            delta=None,
            urls=(addresses.crl(self._public_http_url, *shard),),
            base=Base(number=number, at=at, lists_after=min(_lists_after(newest), at)),
            base_entries=b"",
        )

    async def _signer_of(self, found: x509.CertificateRevocationList) -> IssuerId:
        """The root whose name and key it has."""
        for record in await issuers.all_issuers(self._database):
            if record.kind is IssuerKind.ROOT and _is_signed_by(
                found, x509.load_der_x509_certificate(record.der)
            ):
                return record.id
        raise malformed("No root that is known here has signed this CRL.")


def _lists_after(newest: Newest | None) -> datetime:
    """What has expired since the last CRL is listed once more."""
    return newest.this_update - crl.SECOND if newest else crl.EARLIEST


def _revoked_below(
    root: IssuerId, records: Sequence[IssuerRecord], *, lists_after: datetime
) -> Iterator[RevokedCa]:
    keys = {record.id: record.spki_sha256 for record in records}
    for record in records:
        # Its parent may be another certificate of the same root.
        if (
            record.parent_id is None
            or keys[record.parent_id] != keys[root]
            or record.not_after <= lists_after
        ):
            continue
        if record.revoked is not None and record.reason is not None:
            certificate = x509.load_der_x509_certificate(record.der)
            yield RevokedCa(
                serial=serial_text(certificate.serial_number),
                subject=certificate.subject.rfc4514_string(),
                revoked=record.revoked,
                reason=reason_name(record.reason),
            )


# ---------------------------------------------------------------- what is brought in


def _parse(der: bytes) -> x509.CertificateRevocationList:
    try:
        with strictly():
            found = x509.load_der_x509_crl(der)
            _ = found.extensions, [entry.extensions for entry in found]  # parsed at the first look
    except Unreadable:
        raise malformed("This is no CRL in DER.") from None
    return found


def _is_signed_by(found: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    key = root.public_key()
    return isinstance(key, IssuerKey) and found.issuer == root.subject and found.is_signature_valid(key)


def _number(found: x509.CertificateRevocationList) -> int:
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        raise malformed("The CRL has no number (RFC 5280 §5.2.3).") from None


def _check_number(number: int, newest: Newest | None) -> None:
    if newest is not None and number <= newest.number:
        raise malformed(
            f"The CRL's number {number} is not above that of the last, {newest.number}: sign another."
        )
    if number >= MAX_NUMBER:
        raise malformed("The CRL's number is too large: leave room for those after it.")


def _check_time(found: x509.CertificateRevocationList, now: datetime) -> None:
    if found.last_update_utc > now + MAX_AHEAD:
        raise malformed("The CRL's thisUpdate is still to come: look at the clock beside the root's key.")
    if _next_update(found) <= now:
        raise malformed("The CRL's nextUpdate has passed: sign another.")


def _next_update(found: x509.CertificateRevocationList) -> datetime:
    if found.next_update_utc is None:
        raise malformed("The CRL has no nextUpdate (RFC 5280 §5.1.2.5).")
    return found.next_update_utc


def _check_scope(found: x509.CertificateRevocationList) -> None:
    """A CRL about all that the root issues is as good as one about its CA certificates. It names no address: CA
    certificates may name another than this server's.
    """
    known = {x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.IssuingDistributionPoint}
    if not {type(extension.value) for extension in found.extensions} <= known:
        raise malformed("The CRL has an extension that a full CRL of a root has not, such as a delta's.")
    try:
        scope = found.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return
    if (
        scope.full_name
        or scope.relative_name
        or scope.only_contains_user_certs
        or scope.only_contains_attribute_certs
        or scope.only_some_reasons
        or scope.indirect_crl
    ):
        raise malformed(
            "The CRL's issuingDistributionPoint narrows it: it may say onlyContainsCACerts and nothing else."
        )


def _check_complete(found: x509.CertificateRevocationList, revoked: set[Serial]) -> None:
    missing = revoked - {serial_text(entry.serial_number) for entry in found}
    if missing:
        raise malformed(
            f"The CRL does not list {', '.join(sorted(missing))}: make the list anew and sign that."
        )
