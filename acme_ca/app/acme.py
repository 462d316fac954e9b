"""The rooms of RFC 8555, for one worker."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from acme_ca.acme.accounts import AccountRules, Accounts
from acme_ca.acme.authentication import Authenticator
from acme_ca.acme.authorizations import AuthorizationRules, Authorizations
from acme_ca.acme.endpoints import Acme
from acme_ca.acme.limits import LimitRules, Limits
from acme_ca.acme.nonces import Nonces
from acme_ca.acme.orders import OrderRules, Orders
from acme_ca.acme.renewals import Renewals
from acme_ca.acme.unpausing import Unpausing
from acme_ca.acme.urls import (
    KEY_CHANGE,
    NEW_ACCOUNT,
    NEW_AUTHZ,
    NEW_NONCE,
    NEW_ORDER,
    RENEWAL_INFO,
    REVOKE_CERT,
)
from acme_ca.app.shared import Shared
from acme_ca.app.sources import new_id, utc_now
from acme_ca.config import Settings, ValidationSettings
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import operations

ATTEMPT_MARGIN = 15.0
"""Seconds that a validation may take beyond its own limits before another process takes it for dead."""
NONCE_SECRET_BYTES = 32
UNPAUSE_SECRET_BYTES = 32


async def acme_rooms(shared: Shared) -> Acme:
    nonces = await _nonces(shared)
    unpausing = await _unpausing(shared)
    limits = _limits(shared, unpausing)
    await limits.refresh()
    authorizations = _authorizations(shared, limits)
    renewals = Renewals(
        database=shared.database, issuers=shared.issuers, profiles=shared.profiles, clock=utc_now
    )
    settings = shared.settings
    return Acme(
        authenticator=Authenticator(
            database=shared.database,
            nonces=nonces,
            urls=shared.urls,
            weak_keys=shared.weak_keys,
            clock=utc_now,
            random_bytes=os.urandom,
            reject=_rejecting(settings.test.reject_nonces),
        ),
        nonces=nonces,
        urls=shared.urls,
        accounts=Accounts(
            database=shared.database,
            urls=shared.urls,
            limits=limits,
            rules=AccountRules(
                eab_required=settings.wants_every_account_bound,
                terms_of_service=settings.terms_of_service,
                max_contacts=settings.max_contacts,
            ),
            weak_keys=shared.weak_keys,
            clock=utc_now,
            new_id=new_id,
        ),
        orders=_orders(shared, authorizations, renewals, limits),
        authorizations=authorizations,
        renewals=renewals,
        revocation=Revocation(database=shared.database, clock=utc_now),
        limits=limits,
        unpausing=unpausing,
        issuers=shared.issuers,
        profiles=shared.profiles,
        database=shared.database,
        directory=_directory(shared.settings),
        orders_page=settings.orders_page,
        clock=utc_now,
    )


async def _nonces(shared: Shared) -> Nonces:
    secret = await operations.shared_secret(shared.database, "nonce", os.urandom(NONCE_SECRET_BYTES))
    proposal = int.from_bytes(os.urandom(8), signed=True)
    return Nonces(
        secret=secret,
        epoch=await operations.nonce_epoch(shared.database, proposal),
        lifetime=shared.settings.nonce.lifetime,
        clock=utc_now,
        random_bytes=os.urandom,
    )


async def _unpausing(shared: Shared) -> Unpausing:
    secret = await operations.shared_secret(shared.database, "unpause", os.urandom(UNPAUSE_SECRET_BYTES))
    return Unpausing(database=shared.database, urls=shared.urls, secret=secret, clock=utc_now)


def _limits(shared: Shared, unpausing: Unpausing) -> Limits:
    settings = shared.settings
    return Limits(
        database=shared.database,
        rules=LimitRules(
            limits=settings.limits.of_kinds(),
            grouping=settings.grouping,
            failures_before_pause=settings.limits.failures_before_pause,
            help_url=settings.limits.help_url,
        ),
        unpausing=unpausing,
        clock=utc_now,
    )


def _authorizations(shared: Shared, limits: Limits) -> Authorizations:
    validation = shared.settings.validation
    return Authorizations(
        database=shared.database,
        validator=shared.validator,
        urls=shared.urls,
        policies=shared.policies,
        limits=limits,
        rules=AuthorizationRules(
            challenges=validation.challenges,
            lifetime=timedelta(seconds=validation.authorization_lifetime),
            reuse=timedelta(seconds=validation.reuse),
            attempt=_longest_attempt(validation),
            concurrency=validation.concurrency,
        ),
        clock=utc_now,
        random_bytes=os.urandom,
        new_id=new_id,
        log=shared.log,
    )


def _orders(shared: Shared, authorizations: Authorizations, renewals: Renewals, limits: Limits) -> Orders:
    settings = shared.settings
    return Orders(
        database=shared.database,
        authority=shared.authority,
        issuers=shared.issuers,
        profiles=shared.profiles,
        default_profile=settings.default_profile,
        policies=shared.policies,
        weak_keys=shared.weak_keys,
        authorizations=authorizations,
        renewals=renewals,
        limits=limits,
        rules=OrderRules(
            max_identifiers=settings.max_identifiers,
            lifetime=timedelta(seconds=settings.validation.authorization_lifetime),
            reuse=timedelta(seconds=settings.validation.reuse),
            delay_issuance=settings.test.delay_issuance,
        ),
        clock=utc_now,
        new_id=new_id,
        log=shared.log,
    )


def _directory(settings: Settings) -> Mapping[str, Any]:
    """RFC 8555 §7.1.1."""
    base = settings.public_url
    # With names that need no EAB, accounts without are made: clients that are told `true` here would not even ask.
    meta: dict[str, Any] = {"externalAccountRequired": settings.wants_every_account_bound}
    if settings.caa.enabled and settings.caa_identities:
        meta["caaIdentities"] = list(settings.caa_identities)
    if settings.terms_of_service:
        meta["termsOfService"] = settings.terms_of_service
    if settings.website:
        meta["website"] = settings.website
    return {
        "newNonce": base + NEW_NONCE,
        "newAccount": base + NEW_ACCOUNT,
        "newOrder": base + NEW_ORDER,
        "newAuthz": base + NEW_AUTHZ,
        "revokeCert": base + REVOKE_CERT,
        "keyChange": base + KEY_CHANGE,
        "renewalInfo": base + RENEWAL_INFO,
        "meta": meta,
    }


def _longest_attempt(validation: ValidationSettings) -> timedelta:
    tries = validation.attempts * (validation.timeout + validation.retry_delay)
    return timedelta(seconds=tries + ATTEMPT_MARGIN)


def _rejecting(share: float) -> Callable[[], bool]:
    return (lambda: random.random() < share) if share else (lambda: False)  # noqa: S311  no secret depends on it
