"""Many certificates at once, in a database: each signed by the real authority, with all that it was issued on."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca.ca.authority import Authority
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.core import keys
from tests.support import issuing

WITHIN = timedelta(days=1)
"""The certificates are spread over the last one."""

_ORDER = """
    WITH proved AS (
        INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, challenge, validated, created)
        VALUES ($1, $2, $3, 'valid', $4::timestamptz + interval '8 days', 't', '{http-01}', 'http-01', $4, $4)
        RETURNING *
    ), record AS (
        INSERT INTO validation (authz_id, account_id, identifier, challenge, at, record)
        SELECT id, account_id, identifier, challenge, validated, '[{"url": "http://a.example/", "address": "192.0.2.1"}]'
        FROM proved
    )
    INSERT INTO orders (id, account_id, status, identifiers, authzs, expires, profile, profile_version, issuer_id, serial,
                        created)
    SELECT id, account_id, 'valid', ARRAY[identifier], ARRAY[id], $4::timestamptz + interval '7 days', 'server', 1, $5, $6,
           created FROM proved"""
_CERTIFICATE = """
    WITH made AS (
        INSERT INTO certificate (serial, issuer_id, account_id, order_id, profile, profile_version, identifiers,
                                 spki_sha256, not_before, not_after, recorded, der, shard, words)
        VALUES ($1, $2, $3, $4, 'server', 1, $5, $6, $7, $8, $9, $10, 0, '') RETURNING serial, recorded
    )
    INSERT INTO audit_event (at, event, actor, object, detail)
    SELECT recorded, 'certificate.issued', 'account:' || $3::text, 'certificate:' || serial,
           json_build_object('order', $4::text, 'identifiers', $5::text[]) FROM made"""


async def fill(dsn: str, hierarchy: Hierarchy, *, account: str, number: int) -> None:
    """For one account, which is there. Issuer and profiles are there too."""
    issuer, now = hierarchy.intermediate, datetime.now(UTC) - WITHIN
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    authority = Authority(
        issuers={issuer.id: issuer}.get,
        public_http_url="http://ca.test",
        clock=lambda: now,
        random_bytes=os.urandom,
    )
    orders: list[tuple[Any, ...]] = []
    certificates: list[tuple[Any, ...]] = []
    for place in range(number):
        now += WITHIN / number
        name = f"n{place}.example.test"
        prepared = authority.prepare(issuing.request(name, issuer=issuer.id, public_key=public_key))
        signed = await authority.sign(issuing.recorded(prepared))
        id_, names = f"{place:032x}", [f"dns:{name}"]
        orders.append((id_, account, names[0], now, issuer.id, signed.serial))
        certificates.append(
            (
                *(signed.serial, issuer.id, account, id_, names, keys.spki_sha256(public_key)),
                *(prepared.not_before, prepared.not_after, now, signed.der),
            )
        )
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(_ORDER, orders)
        await connection.executemany(_CERTIFICATE, certificates)
    finally:
        await connection.close()
