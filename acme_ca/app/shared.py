"""What all parts of one worker share."""

from __future__ import annotations

from dataclasses import dataclass

from acme_ca.acme.urls import Urls
from acme_ca.app.own import Own
from acme_ca.ca.authority import Authority
from acme_ca.ca.policies import Policies
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.rotation import CreateKey
from acme_ca.ca.served import Issuers, OpenKey
from acme_ca.config import Settings
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.log import Logger
from acme_ca.storage.database import Database
from acme_ca.validation.validator import Validator


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    settings: Settings
    database: Database
    issuers: Issuers
    profiles: Profiles
    policies: Policies
    authority: Authority
    validator: Validator
    weak_keys: WeakKeys
    open_key: OpenKey
    create_key: CreateKey
    urls: Urls
    log: Logger

    @property
    def own(self) -> Own:
        return Own(
            settings=self.settings,
            database=self.database,
            issuers=self.issuers,
            profiles=self.profiles,
            authority=self.authority,
            log=self.log,
        )
