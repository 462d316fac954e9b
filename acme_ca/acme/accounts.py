"""What accounts may do with themselves (RFC 8555 §7.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from acme_ca.acme import jws, messages
from acme_ca.acme.authentication import AccountRequest, KeyRequest, check_standing
from acme_ca.acme.jws import Binding, Jwk
from acme_ca.acme.limits import Limits
from acme_ca.acme.urls import Urls
from acme_ca.ca import policies
from acme_ca.core.accounts import Account
from acme_ca.core.codes import Code
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.problems import ErrorType, Problem, malformed, unauthorized
from acme_ca.core.states import AccountStatus
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.storage import accounts, eab
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRules:
    """`terms_of_service`: URL, to be agreed to when set."""

    eab_required: bool
    terms_of_service: str | None
    max_contacts: int


class Accounts:
    def __init__(
        self,
        *,
        database: Database,
        urls: Urls,
        limits: Limits,
        rules: AccountRules,
        weak_keys: WeakKeys,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._weak_keys = weak_keys
        self._urls = urls
        self._limits = limits
        self._rules = rules
        self._clock = clock
        self._new_id = new_id

    async def create(self, request: KeyRequest) -> tuple[Account, bool]:
        """newAccount (RFC 8555 §7.3, §7.3.1): the account, and whether it is new."""
        wish = messages.new_account(messages.payload_of(request.payload))
        if request.account is not None:
            check_standing(request.account)
            return request.account, False
        if wish.only_return_existing:
            raise Problem(ErrorType.ACCOUNT_DOES_NOT_EXIST, "There is no account with this key.")
        if self._rules.terms_of_service and not wish.terms_agreed:
            raise self._terms_not_agreed(self._rules.terms_of_service)
        contact = messages.contacts(wish.contact, most=self._rules.max_contacts)
        self._weak_keys.check(request.key.key, ErrorType.BAD_PUBLIC_KEY)
        binding, hmac_key = await self._binding(wish.binding, request)
        identity = AccountId(self._new_id())
        # By itself: in the durable transaction a bucket would be locked until the disk has it, one account after another.
        await self._limits.pay(self._limits.of_account(request.client), account=identity)
        account = Account(
            id=identity,
            status=AccountStatus.VALID,
            jwk=request.key.text,
            thumbprint=request.key.thumbprint,
            contact=contact,
            terms_agreed=wish.terms_agreed,
            eab_key_id=EabKeyId(binding.kid) if binding else None,
            eab_binding=binding.raw if binding else None,
        )
        return await accounts.create(
            self._database,
            account,
            spki_sha256=request.key.spki_sha256,
            now=self._clock(),
            client=request.client,
            hmac_key=hmac_key,
        )

    def _terms_not_agreed(self, terms: str) -> Problem:
        return Problem(
            ErrorType.USER_ACTION_REQUIRED,
            f'Agree to the terms of service at {terms}: newAccount needs "termsOfServiceAgreed": true.',
            members={"instance": terms},
            headers={"Link": f'<{terms}>;rel="terms-of-service"'},
        )

    async def _binding(self, value: object, request: KeyRequest) -> tuple[Binding | None, bytes | None]:
        """The external account binding, verified whenever there is one (RFC 8555 §7.3.4), and by which key."""
        if value is None:
            if self._rules.eab_required:
                raise Problem(
                    ErrorType.EXTERNAL_ACCOUNT_REQUIRED,
                    "This CA makes accounts only with an external account binding: ask its operator for a key id and an HMAC key.",
                    code=Code.EAB_KEY_MISSING,
                )
            return None, None
        binding = jws.parse_binding(value, url=self._urls.new_account, account_key=request.key)
        eab_key = await eab.find(self._database, binding.kid)
        # One sentence for an unknown key and a wrong MAC: which key ids exist is nobody's business.
        if eab_key is None or not jws.binding_is_genuine(binding, eab_key.hmac_key):
            raise unauthorized(
                "The external account binding does not verify: check the key id and the HMAC key."
            )
        if eab_key.restrictions is None:
            raise policies.unreadable()
        eab_key.restrictions.check_source(request.client)
        return binding, eab_key.hmac_key

    async def update(self, request: AccountRequest) -> Account:
        """Contacts and deactivation (RFC 8555 §7.3.2, §7.3.6); all other members are ignored."""
        payload = messages.payload_of(request.payload)
        contact = (
            messages.contacts(payload["contact"], most=self._rules.max_contacts)
            if "contact" in payload
            else None
        )
        status = AccountStatus.DEACTIVATED if messages.wants_deactivation(payload) else None
        if status is None:
            if contact is None or contact == request.account.contact:
                return request.account
            await self._pay_for_change(request.account.id, request.client)
        account = await accounts.update(
            self._database,
            request.account.id,
            contact=contact,
            status=status,
            client=request.client,
            now=self._clock(),
        )
        if account is None:
            raise unauthorized("The account has ended meanwhile.", status=401)
        return account

    async def change_key(self, request: AccountRequest) -> Account:
        """keyChange (RFC 8555 §7.3.5): the checks in the order in which the RFC numbers them."""
        inner = jws.parse(messages.payload_of(request.payload), "The inner JWS")
        if "kid" in inner.header or "nonce" in inner.header:
            raise malformed('The inner JWS must have a "jwk" and neither "kid" nor "nonce".')
        new = jws.parse_jwk(inner.header.get("jwk"), 'The inner JWS\'s "jwk"')
        jws.verify(new.key, inner)
        if inner.header.get("url") != self._urls.key_change:
            raise malformed('The inner JWS\'s "url" is not the one of the outer.')
        change = jws.parse_object(inner.payload, "The inner payload")
        if change.get("account") != self._urls.account(request.account.id):
            raise malformed('The inner payload\'s "account" is not the URL of the account that signs.')
        if jws.parse_jwk(change.get("oldKey"), 'The "oldKey"').thumbprint != request.account.thumbprint:
            raise malformed('The "oldKey" is not the account\'s present key.')
        return await self._replace_key(request.account, new, request.client)

    async def _replace_key(self, account: Account, new: Jwk, client: str) -> Account:
        self._weak_keys.check(new.key, ErrorType.BAD_PUBLIC_KEY)
        holder: AccountId | None = account.id
        if new.thumbprint != account.thumbprint:
            await self._pay_for_change(account.id, client)
            holder = await accounts.change_key(
                self._database,
                account,
                jwk=new.text,
                thumbprint=new.thumbprint,
                spki_sha256=new.spki_sha256,
                client=client,
                now=self._clock(),
            )
        if holder is not None:
            raise Problem(
                ErrorType.MALFORMED,
                "The new key is the key of an account already: make a fresh one.",
                status=409,
                code=Code.EXISTS,
                headers={"Location": self._urls.account(holder)},
            )
        return replace(account, jwk=new.text, thumbprint=new.thumbprint)

    async def _pay_for_change(self, account: AccountId, client: str) -> None:
        await self._limits.pay(self._limits.of_change(account, client), account=account)
