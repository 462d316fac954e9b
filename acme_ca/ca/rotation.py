"""What operators do with issuers: make, bring, activate and retire them, while servers run.

A new issuer begins `staged`: known everywhere, signing nothing. Activated, it is what new orders are for. The one before
stays active for the orders that pin it until it is retired; then it signs status only, for as long as its certificates
live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from acme_ca.ca import certify, checks, issuers, keystore
from acme_ca.ca.certify import Parent
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import Issuer, IssuerError
from acme_ca.ca.keystore import KeyKind, PrivateKey
from acme_ca.ca.served import Issuers, OpenKey, record_of
from acme_ca.core import keys
from acme_ca.core.actors import Actor
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.keys import PublicKey
from acme_ca.core.problems import Problem
from acme_ca.core.states import IssuerState
from acme_ca.storage import issuers as store
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRequest

CreateKey = Callable[[str, KeyKind], tuple[str, PrivateKey]]
"""From the URI of a store and a kind to the URI of a new key in it, and the key. Raises KeyStoreError."""

MigrateKey = Callable[[str, str], tuple[str, PrivateKey]]
"""From the URI of a key and that of a store to the URI of its copy there, and that. Raises KeyStoreError."""

SHORTEST_PREFIX = 6
"""Digits of an issuer's id that an operator must give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIssuer:
    """What an operator says of an issuer to be made; the rest follows from its parent."""

    common_name: str | None = None
    key_uri: str
    key_kind: KeyKind
    lifetime: timedelta = certify.INTERMEDIATE_LIFETIME
    path_length: int = 0
    name_constraints: NameConstraints | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoot:
    """What an operator says of a root to be made. An empty organization or country is left out of the name."""

    common_name: str
    organization: str
    country: str
    key_uri: str
    key_kind: KeyKind
    lifetime: timedelta = certify.ROOT_LIFETIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A CA certificate from elsewhere, with its key where that comes along. `key_uri`: where the key is already."""

    certificate: x509.Certificate
    key: PrivateKey | None = field(default=None, repr=False)
    key_uri: str | None = None


class Rotation:
    """`issuers` is looked at anew by every act. `actor`: who does it, for the audit."""

    def __init__(
        self,
        *,
        database: Database,
        issuers: Issuers,
        open_key: OpenKey,
        create_key: CreateKey,
        base_url: str,
        actor: Actor,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._issuers = issuers
        self._open_key = open_key
        self._create_key = create_key
        self._base_url = base_url
        self._actor = actor
        self._clock = clock

    async def all(self) -> list[Issuer]:
        """Oldest first."""
        await self._issuers.refresh()
        return list(self._issuers)

    async def in_use(self) -> tuple[Issuer, Issuer] | None:
        """The root of the active issuer, and that; None when there is none."""
        await self._issuers.refresh()
        try:
            active = self._issuers.active()
        except Problem:
            return None
        root = self._issuers.root_of(active)
        return (root, active) if root else None

    async def find(self, id_: str) -> Issuer:
        """By its id or the first digits of it. Raises IssuerError."""
        if len(id_) < SHORTEST_PREFIX:
            raise IssuerError(
                f"Give {SHORTEST_PREFIX} digits or more of the issuer's id: see acme-ca ca list."
            )
        found = [issuer for issuer in await self.all() if issuer.id.startswith(id_.lower())]
        if len(found) != 1:
            what = "no issuer has" if not found else f"{len(found)} issuers have"
            raise IssuerError(f"It is not clear which issuer is meant: {what} an id of these digits.")
        return found[0]

    # ------------------------------------------------------------ making

    async def create_root(self, wish: NewRoot) -> Issuer:
        """A root of its own, beside those that are there. Raises IssuerError, KeyStoreError."""
        name = certify.root_name(wish.common_name, wish.organization, wish.country)
        if name in await self._names():
            raise IssuerError("There is a CA with this name already; choose another.")
        key_uri, key = await asyncio.to_thread(self._create_key, wish.key_uri, wish.key_kind)
        certificate = await asyncio.to_thread(
            certify.make_root, name, key, lifetime=wish.lifetime, now=self._clock()
        )
        return await self._register(
            certificate, IssuerKind.ROOT, parent=None, key_uri=key_uri, state=IssuerState.ACTIVE
        )

    async def create_intermediate(self, wish: NewIssuer, *, parent: str | None) -> Issuer:
        """A new intermediate, `staged`. `parent`: an id; None for the root of the active issuer, or the only one. Raises
        IssuerError, KeyStoreError.
        """
        above = await self.find(parent) if parent is not None else await self._own_root()
        signer = await self._signer(above)
        name = certify.intermediate_name(
            above.certificate.subject, taken=await self._names(), common_name=wish.common_name
        )
        certify.check_wish(
            name,
            above.certificate,
            lifetime=wish.lifetime,
            path_length=wish.path_length,
            name_constraints=wish.name_constraints,
            now=self._clock(),
        )  # before there is a key that nobody needs
        key_uri, key = await asyncio.to_thread(self._create_key, wish.key_uri, wish.key_kind)
        await self._announce(name, key.public_key(), above)
        certificate = await asyncio.to_thread(
            certify.make_intermediate,
            name,
            key.public_key(),
            signer,
            lifetime=wish.lifetime,
            path_length=wish.path_length,
            name_constraints=wish.name_constraints,
            base_url=self._base_url,
            now=self._clock(),
        )
        return await self._register(
            certificate,
            IssuerKind.INTERMEDIATE,
            parent=above.id,
            key_uri=key_uri,
            state=IssuerState.STAGED,
        )

    async def cross_sign(self, subject: str, *, by: str, lifetime: timedelta) -> Issuer:
        """Another certificate for a CA that has one, below another root: at once part of alternate chains."""
        original, above = await self.find(subject), await self.find(by)
        signer = await self._signer(above)
        await self._announce(original.certificate.subject, original.public_key, above)
        certificate = await asyncio.to_thread(
            certify.cross_sign,
            original.certificate,
            signer,
            lifetime=lifetime,
            base_url=self._base_url,
            now=self._clock(),
        )
        return await self._register(
            certificate, IssuerKind.CROSS, parent=above.id, key_uri=None, state=IssuerState.ACTIVE
        )

    async def _own_root(self) -> Issuer:
        used = await self.in_use()
        if used is not None:
            return used[0]
        roots = [issuer for issuer in self._issuers if issuer.kind is IssuerKind.ROOT]
        if len(roots) != 1:
            raise IssuerError("The root of the active issuer is not known here; say which CA is to sign.")
        return roots[0]

    async def _signer(self, above: Issuer) -> Parent:
        record = await self._record(above.id)
        if record.key_uri is None:
            raise IssuerError(
                "The key of the CA that is to sign is not within reach: make a request (acme-ca ca export-csr), have it "
                "signed where the key is (acme-ca ceremony sign-intermediate), and install what comes back."
            )
        key = await asyncio.to_thread(self._open_key, record.key_uri)
        return Parent(certificate=above.certificate, key=key)

    async def _record(self, id_: IssuerId) -> store.IssuerRecord:
        return next(record for record in await store.all_issuers(self._database) if record.id == id_)

    async def _names(self) -> set[x509.Name]:
        return {issuer.certificate.subject for issuer in await self.all()}

    async def _announce(self, name: x509.Name, key: PublicKey, above: Issuer) -> None:
        await store.announce(
            self._database,
            subject=name.rfc4514_string(),
            spki_sha256=keys.spki_sha256(key),
            parent=above.id,
            actor=self._actor,
            now=self._clock(),
        )

    async def _register(
        self,
        certificate: x509.Certificate,
        kind: IssuerKind,
        *,
        parent: IssuerId | None,
        key_uri: str | None,
        state: IssuerState,
    ) -> Issuer:
        issuer = issuers.issuer(certificate, None, chain=())
        record = record_of(issuer, kind, parent=parent, key_uri=key_uri, state=state, now=self._clock())
        if not await store.register(self._database, record, actor=self._actor):
            raise IssuerError("This CA certificate is known already; it is left as it is.")
        await self._issuers.refresh()
        return await self._issuers.find(issuer.id)

    # ------------------------------------------------------------ signed elsewhere

    async def request(self, wish: NewIssuer) -> bytes:
        """Make a key, and a CSR (DER) for another CA to sign; named as an intermediate of the own root."""
        above = (await self._own_root()).certificate.subject
        name = certify.intermediate_name(above, taken=await self._names(), common_name=wish.common_name)
        key_uri, key = await asyncio.to_thread(self._create_key, wish.key_uri, wish.key_kind)
        csr = await asyncio.to_thread(
            certify.certificate_request,
            key,
            name,
            path_length=wish.path_length,
            name_constraints=wish.name_constraints,
        )
        made = IssuerRequest(
            spki_sha256=keys.spki_sha256(key.public_key()), csr=csr, key_uri=key_uri, created=self._clock()
        )
        await store.add_request(self._database, made, actor=self._actor)
        return csr

    async def install(self, certificate: x509.Certificate, above: Sequence[x509.Certificate]) -> Issuer:
        """What another CA made of a request, `staged`. `above`: the certificates from its issuer up to the root, as far
        as they are not known here. Raises IssuerError.
        """
        key = keys.supported(certificate.public_key())
        made = await store.request_for(self._database, keys.spki_sha256(key)) if key is not None else None
        if key is None or made is None:
            raise IssuerError(
                "No request for a certificate with this key was made here: see acme-ca ca export-csr."
            )
        known = [issuer.certificate for issuer in await self.all()]
        _, *links = checks.check_installable(certificate, key, above, known=known, now=self._clock())
        parent = await self._take_in(links)
        return await self._register(
            certificate,
            IssuerKind.INTERMEDIATE,
            parent=parent,
            key_uri=made.key_uri,
            state=IssuerState.STAGED,
        )

    async def _take_in(self, links: Sequence[x509.Certificate]) -> IssuerId | None:
        """The CAs of a chain, the root last, as far as they are new. Returns the id of the first."""
        parent: IssuerId | None = None
        for place, link in enumerate(reversed(links)):
            known = self._issuers.get(issuers.issuer_id(link))
            if known is None:
                kind = IssuerKind.ROOT if place == 0 else IssuerKind.CROSS
                known = await self._register(
                    link, kind, parent=parent, key_uri=None, state=IssuerState.ACTIVE
                )
            parent = known.id
        return parent

    async def bring(
        self, root: Brought, intermediate: Brought | None, *, keep: Callable[[PrivateKey], str]
    ) -> list[Issuer]:
        """An existing root, perhaps with an intermediate, which becomes active where no issuer is. Raises IssuerError.

        `keep` puts a key that comes along where it belongs, and returns its URI.
        """
        checks.check_import(
            root.certificate,
            intermediate.certificate if intermediate else None,
            root_key=self._public_key(root),
            intermediate_key=self._public_key(intermediate) if intermediate else None,
            now=self._clock(),
        )
        known = await self.all()
        if (intermediate or root).certificate in [issuer.certificate for issuer in known]:
            raise IssuerError("This CA certificate is known already; it is left as it is.")
        serving = any(issuer.signs_leaves(self._clock()) for issuer in known)
        taken = [await self._bring(root, IssuerKind.ROOT, None, IssuerState.ACTIVE, keep)]
        if intermediate is not None:
            state = IssuerState.STAGED if serving else IssuerState.ACTIVE
            parent = taken[0].id
            taken.append(await self._bring(intermediate, IssuerKind.INTERMEDIATE, parent, state, keep))
        return taken

    def _public_key(self, brought: Brought) -> PublicKey | None:
        if brought.key_uri is not None:
            keystore.check_keepable(brought.key_uri)
            if brought.key is not None:
                raise IssuerError(
                    "A key in a file and a key URI are given; name the one of the two to be used."
                )
        key = self._open_key(brought.key_uri) if brought.key_uri is not None else brought.key
        return key.public_key() if key is not None else None

    async def _bring(
        self,
        brought: Brought,
        kind: IssuerKind,
        parent: IssuerId | None,
        state: IssuerState,
        keep: Callable[[PrivateKey], str],
    ) -> Issuer:
        known = self._issuers.get(issuers.issuer_id(brought.certificate))
        if known is not None:  # the root, below which another intermediate comes
            if brought.key is not None:
                raise IssuerError(
                    "The root is known already, and its key is not taken in later; leave that out."
                )
            return known
        key_uri = keep(brought.key) if brought.key is not None else brought.key_uri
        return await self._register(brought.certificate, kind, parent=parent, key_uri=key_uri, state=state)

    async def move_key(self, id_: str, to_uri: str, migrate: MigrateKey) -> tuple[str, str]:
        """Bring the key of an issuer into another store: all its certificates are signed there from now on.

        (Old URI, new URI). The key stays at the old place, too. Raises IssuerError, KeyStoreError.
        """
        issuer = await self.find(id_)
        records = await store.all_issuers(self._database)
        from_uri = next(record.key_uri for record in records if record.id == issuer.id)
        if from_uri is None:
            raise IssuerError("The key of this issuer is not within reach: no place of it is known.")
        new_uri, key = migrate(from_uri, to_uri)
        if key.public_key() != issuer.public_key:
            raise IssuerError(f"The key at {from_uri} is not the key of this issuer.")
        if not await store.move_key(
            self._database, issuer.id, from_uri, new_uri, actor=self._actor, now=self._clock()
        ):
            raise IssuerError(
                f"The key of this issuer has got another place meanwhile; {new_uri} has a copy."
            )
        return from_uri, new_uri

    # ------------------------------------------------------------ states

    async def activate(self, id_: str) -> Issuer:
        """New orders are for this issuer, in every worker within seconds. Raises IssuerError."""
        issuer = await self.find(id_)
        if issuer.kind is not IssuerKind.INTERMEDIATE:
            raise IssuerError(
                "Only intermediates sign certificates of services; this is a root or part of chains."
            )
        if issuer.revoked is not None:
            raise IssuerError("It is revoked: nobody accepts what it signs. Make another.")
        if issuer.key is None:
            raise IssuerError(
                f"Its key cannot be used: {self._issuers.trouble(issuer.id) or 'none is known'}."
            )
        if self._issuers.root_of(issuer) is None:
            raise IssuerError("Its root is not known here; install the chain first.")
        return await self._change(issuer, IssuerState.ACTIVE)

    async def retire(self, id_: str) -> Issuer:
        """It signs status only from now on; orders that pin it are moved to the active one. Raises IssuerError."""
        issuer = await self.find(id_)
        now = self._clock()
        others = [other for other in self._issuers if other.signs_leaves(now) and other.id != issuer.id]
        if issuer.signs_leaves(now) and not others:
            raise IssuerError("It is the only active issuer; activate its successor first.")
        if any(self._issuers.root_of(other) == issuer for other in others):
            raise IssuerError("It is the root of an active issuer; retire that first.")
        return await self._change(issuer, IssuerState.RETIRED)

    async def _change(self, issuer: Issuer, to: IssuerState) -> Issuer:
        if not await store.change_state(self._database, issuer.id, to, actor=self._actor, now=self._clock()):
            await self._issuers.refresh()  # perhaps another operator was faster
            state = (await self._issuers.find(issuer.id)).state(self._clock())
            raise IssuerError(f"The issuer is {state} and cannot become {to}: see acme-ca ca list.")
        await self._issuers.refresh()
        return await self._issuers.find(issuer.id)
