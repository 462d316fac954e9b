"""The certificates that the server makes for itself: of its own name, of OCSP responders, of the key that seals the audit."""

from __future__ import annotations

import os
from dataclasses import dataclass

from acme_ca.app.sources import utc_now
from acme_ca.audit.sealing import Sealing
from acme_ca.ca.authority import Authority
from acme_ca.ca.keystore import KeyUnavailable
from acme_ca.ca.lint import LintError
from acme_ca.ca.own import OwnCertificate
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.responders import Responders
from acme_ca.ca.served import Issuers
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.problems import Problem
from acme_ca.log import Logger
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    settings: Settings
    database: Database
    issuers: Issuers
    profiles: Profiles
    authority: Authority
    log: Logger

    def server(self) -> OwnCertificate:
        """What the HTTPS listeners show."""
        return OwnCertificate(
            self.settings.tls_file,
            identifiers=(self.settings.own_identifier(),),
            database=self.database,
            authority=self.authority,
            issuer=self.issuers.active,
            profile=lambda: self.profiles.own("acme_server"),
            clock=utc_now,
        )

    def responders(self) -> Responders:
        return Responders(
            self.settings.data / "ocsp",
            issuers=self.issuers,
            database=self.database,
            authority=self.authority,
            profile=lambda: self.profiles.own("ocsp_responder"),
            clock=utc_now,
            log=self.log,
        )

    def sealing(self) -> Sealing:
        signer = OwnCertificate(
            self.settings.data / "audit" / "signer.pem",
            identifiers=(),
            database=self.database,
            authority=self.authority,
            issuer=self.issuers.active,
            profile=lambda: self.profiles.own("audit_signer"),
            clock=utc_now,
        )
        return Sealing(
            database=self.database,
            own=signer,
            issuer=self.issuers.active,
            origin=self.settings.public_url,
            checkpoint=self.settings.audit_checkpoint,
            clock=utc_now,
            log=self.log,
        )


async def renew(own: OwnCertificate, to: Logger) -> None:
    """With the one there is, status can be served and orders taken while a key store is away, the issuer may not issue
    for the server's own name, or the disk is full.
    """
    try:
        await own.renew_when_due()
    except (KeyUnavailable, LintError, Problem, OSError) as error:
        reason = str(error).rstrip(".")
        if not own.file.exists():
            raise ConfigurationError(f"The server's own certificate cannot be made: {reason}.") from None
        to.error("the server's own certificate is not renewed", reason=reason)


def authority(settings: Settings, issuers: Issuers) -> Authority:
    return Authority(
        issuers=issuers.get,
        public_http_url=settings.public_http_url,
        clock=utc_now,
        random_bytes=os.urandom,
    )
