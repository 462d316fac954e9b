"""`acme-ca ceremony`: an offline root, opened by k of n people. Needs no server and no database."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Self

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import ceremony, certify, crls, folder, hierarchy, keystore, shares
from acme_ca.ca.ceremony import ROOT_CRL, ROOT_KEY, RootTerms
from acme_ca.ca.certify import CaRequest, Parent
from acme_ca.ca.constraints import NameConstraints, Subtree
from acme_ca.ca.folder import FolderExists
from acme_ca.ca.issuers import IssuerError
from acme_ca.ca.keystore import KeyStoreError
from acme_ca.ca.shares import Share, ShareError
from acme_ca.cli.ca import INTERMEDIATE_DAYS, DaysOption, ExcludeOption, PermitOption
from acme_ca.cli.cert import ReasonOption
from acme_ca.cli.crl import read_list
from acme_ca.cli.holders import Holders, holders
from acme_ca.cli.options import ConfigOption, JsonOption, console, load_settings, with_password
from acme_ca.cli.remote import show_json
from acme_ca.cli.transcript import Transcript, fingerprint, new_place
from acme_ca.config import ConfigurationError
from acme_ca.core.crl import Entry, UnsignedCrl
from acme_ca.core.ids import Serial, read_serial
from acme_ca.core.revocation import REASONS, RevocationReason, reason_name
from acme_ca.server.hierarchy import KeyType, new_password

app = typer.Typer(
    help="An offline root, opened by k of n people. For a machine without network, server and database.",
    no_args_is_help=True,
)
TRANSCRIPT = "transcript.txt"

RootDirectory = Annotated[
    Path, typer.Argument(metavar="DIRECTORY", help="The folder that create-root made: root.pem, root.key.")
]
HolderOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="Who holds a share: one for each share. Repeatable.")
]
ThresholdOption = Annotated[int, typer.Option(metavar="K", help="How many shares open the root.")]
AnswersOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Shares in files instead of people (TOML). For rehearsals only."),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the root's CRL and certificate will be served, for the intermediate. [ACME_CA_PUBLIC_HTTP_URL]",
    ),
]
OutOption = Annotated[Path, typer.Option(metavar="FILE", help="Where the certificate goes (PEM).")]


# ---------------------------------------------------------------- the root ceremony


@app.command("create-root")
def create_root(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="A new folder for all that is made.")
    ],
    *,
    holder: HolderOption,
    threshold: ThresholdOption,
    cn: Annotated[str, typer.Option(help='Name of the CA: "VCC" gives "VCC Root CA".')] = "VCC",
    org: Annotated[str, typer.Option(help="Organization in the names; may be empty.")] = "VCC",
    country: Annotated[str, typer.Option(help="Two-letter country code; may be empty.")] = "",
    key_type: Annotated[KeyType, typer.Option(help="ec: P-384 and P-256; rsa: 4096 and 2048 bits.")] = "ec",
    days: Annotated[int, typer.Option(min=1, help="Life of the root.")] = certify.ROOT_LIFETIME.days,
    path_length: Annotated[int, typer.Option(min=1, help="How many CAs may follow below the root.")] = 1,
    crl_days: Annotated[
        int, typer.Option(min=1, help="Until the root's next CRL.")
    ] = ceremony.CRL_LIFETIME.days,
    csr: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Sign this request of a server; without it an intermediate key is made."
        ),
    ] = None,
    root_only: Annotated[bool, typer.Option("--root-only", help="Make no intermediate.")] = False,
    permit: PermitOption = None,
    exclude: ExcludeOption = None,
    public_http_url: UrlOption = None,
    answers: AnswersOption = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Make a root whose key k of n shares open, its first CRL, and an intermediate.

    Each holder is shown a share, types it in again from paper, and confirms the root's fingerprint. The key is then
    opened with the shares as they were typed: what it signs proves that they are good. All ends in a transcript.
    """
    if csr is not None and root_only:
        raise ConfigurationError("--csr and --root-only exclude each other.")
    settings = load_settings(config_file, public_http_url=public_http_url)
    stage = _Stage(people=holders(answers), transcript=Transcript(f"Root ceremony: {cn}", clock=_now))
    with _refusing():
        sharing = _Sharing.among(holder, threshold)
        terms = RootTerms(
            name=certify.root_name(cn, org, country),
            kind=hierarchy.KEY_KINDS[key_type][0],
            lifetime=timedelta(days=days),
            path_length=path_length,
        )
        request = _read_request(csr) if csr else None
        constraints = _constraints(permit, exclude, request)
        password = None if root_only or request else new_password(with_password(settings, new=True))
        with folder.new_folder(directory) as draft:
            root = _made_root(draft, terms, sharing, stage)
            crl = ceremony.next_crl(root.certificate, lifetime=timedelta(days=crl_days), now=_now())
            _keep_crl(draft, root, crl, stage.transcript)
            if password is not None:
                request = _new_key(draft, root, key_type, password, stage.transcript)
            if request is not None:
                made = _signed(root, request, constraints, settings.public_http_url, stage.transcript)
                folder.write(draft / "intermediate.pem", _pem(made))
            _end(draft / TRANSCRIPT, stage.transcript)
    _tell(directory / TRANSCRIPT, stage.transcript, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    people: Holders
    transcript: Transcript

    def begin(self) -> None:
        self.transcript.begin()
        if self.people.rehearsal:
            self.transcript.say(
                "THIS IS A REHEARSAL: the shares are in files, so the root is not to be relied on"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sharing:
    """A new secret to wrap the root's key with, and the share of each holder."""

    secret: bytes = field(repr=False)
    shares: Mapping[str, Share]
    threshold: int

    @classmethod
    def among(cls, names: Sequence[str], threshold: int) -> Self:
        """Raises ConfigurationError, ShareError."""
        if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
            raise ConfigurationError(
                "--holder: each holder has a name of their own, in printable characters."
            )
        secret = os.urandom(shares.SECRET_BYTES)
        parts = shares.split(secret, threshold=threshold, count=len(names))
        return cls(secret=secret, shares=dict(zip(names, parts, strict=True)), threshold=threshold)


def _made_root(draft: Path, terms: RootTerms, sharing: _Sharing, stage: _Stage) -> Parent:
    """The root, opened with the shares that its holders have noted."""
    stage.begin()
    root = ceremony.make_root(draft, terms, sharing.secret, now=_now())
    stage.transcript.certificate(
        "A root was made; its key is wrapped by a secret that only the shares give", root
    )
    return _opened_by_all(draft, root, sharing, stage)


def _opened_by_all(place: Path, root: x509.Certificate, sharing: _Sharing, stage: _Stage) -> Parent:
    """Hand out the shares, and open the root in `place` with what the holders have noted."""
    stage.transcript.say(
        f"{sharing.threshold} of {len(sharing.shares)} shares open it", {"holders": ", ".join(sharing.shares)}
    )
    noted = []
    for holder, share in sharing.shares.items():
        noted.append(stage.people.hand_out(holder, share, fingerprint(root)))
        confirmed = "" if stage.people.rehearsal else ", typed it in again and confirmed the fingerprint"
        stage.transcript.say(f"{holder} received share {_number(share)}{confirmed}")
    ceremony.check_all_shares(place, noted, now=_now())
    stage.transcript.say(
        "The root's key was read back and opened with the shares as they were typed, with each in turn"
    )
    return ceremony.open_root(place, noted, now=_now())


def _number(share: Share) -> str:
    """As the transcript names it. The number of the set is no secret: all shares that belong together have it."""
    return f"{share.index + 1} of set {share.set_id}"


def _new_key(
    draft: Path, root: Parent, key_type: KeyType, password: bytes, transcript: Transcript
) -> CaRequest:
    """A key for the intermediate, for the server to be brought to."""
    key = keystore.generate(hierarchy.KEY_KINDS[key_type][1])
    keystore.save(draft / "intermediate.key", key, password)
    transcript.say("A key for the intermediate was made, encrypted with the password of the CA keys")
    return CaRequest(
        subject=certify.intermediate_name(root.certificate.subject),
        public_key=key.public_key(),
        path_length=0,
        name_constraints=None,
    )


# ---------------------------------------------------------------- later acts


@app.command("sign-intermediate")
def sign_intermediate(
    directory: RootDirectory,
    *,
    csr: Annotated[Path, typer.Option(metavar="FILE", help="The request: see acme-ca ca export-csr.")],
    out: OutOption,
    days: DaysOption = INTERMEDIATE_DAYS,
    permit: PermitOption = None,
    exclude: ExcludeOption = None,
    public_http_url: UrlOption = None,
    answers: AnswersOption = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Sign the request of a server for an intermediate. Name constraints that it asks for are put in."""
    settings = load_settings(config_file, public_http_url=public_http_url)
    with _refusing():
        _check_new(out)
        request = _read_request(csr)
        constraints = _constraints(permit, exclude, request)
        with _act(directory, "Signing an intermediate", answers, as_json=as_json) as act:
            made = _signed(
                act.root,
                request,
                constraints,
                settings.public_http_url,
                act.transcript,
                lifetime=timedelta(days=days),
            )
            folder.write(out, _pem(made))


@app.command("cross-sign")
def cross_sign(
    directory: RootDirectory,
    *,
    certificate: Annotated[Path, typer.Option(metavar="FILE", help="The CA's own certificate (PEM).")],
    out: OutOption,
    days: DaysOption = INTERMEDIATE_DAYS,
    public_http_url: UrlOption = None,
    answers: AnswersOption = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
) -> None:
    """Give a CA of another hierarchy a second certificate, below this root."""
    settings = load_settings(config_file, public_http_url=public_http_url)
    with _refusing():
        _check_new(out)
        original = hierarchy.read_certificate(certificate)
        with _act(directory, "Cross-signing", answers, as_json=as_json) as act:
            made = certify.cross_sign(
                original,
                act.root,
                lifetime=timedelta(days=days),
                base_url=settings.public_http_url,
                now=_now(),
            )
            act.transcript.certificate("A certificate of another CA was signed", made)
            folder.write(out, _pem(made))


@app.command("sign-crl")
def sign_crl(
    directory: RootDirectory,
    *,
    revoke: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERIAL", help="A certificate of the root to be revoked, hexadecimal. Repeatable."
        ),
    ] = None,
    reason: ReasonOption = "unspecified",
    days: Annotated[
        int | None, typer.Option(min=1, help="Until the next one; without it as the list says, or a year.")
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE", help="What a server wants listed: see acme-ca crl export-root."
        ),
    ] = None,
    answers: AnswersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the root's next CRL in place of root.crl, whose entries it keeps."""
    serials = [_serial(text) for text in revoke or ()]
    with _refusing():
        previous = ceremony.read_crl(directory)
        listed = read_list(list_file) if list_file else None
        with _act(directory, "Signing the root's CRL", answers, as_json=as_json) as act:
            crl = ceremony.next_crl(
                act.root.certificate,
                previous=previous,
                listed=listed,
                revoked=serials,
                reason=REASONS[reason],
                lifetime=timedelta(days=days) if days else None,
                now=_now(),
            )
            _keep_crl(directory, act.root, crl, act.transcript)


@app.command()
def reshare(
    directory: RootDirectory,
    *,
    holder: HolderOption,
    threshold: ThresholdOption,
    answers: AnswersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the root other holders: its key is wrapped anew. Shares and copies of root.key from before still go together."""
    with _refusing():
        sharing = _Sharing.among(holder, threshold)
        with (
            _act(directory, "Resharing", answers, as_json=as_json) as act,
            tempfile.TemporaryDirectory(prefix=".reshare.", dir=directory) as draft,
        ):
            ceremony.keep_root(Path(draft), act.root, sharing.secret)
            _opened_by_all(Path(draft), act.root.certificate, sharing, act.stage)
            folder.move(Path(draft) / ROOT_KEY, directory / ROOT_KEY)
            act.transcript.say("root.key was wrapped anew; every copy of the old file must be destroyed")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Act:
    """Something done with a root that was opened."""

    root: Parent
    stage: _Stage

    @property
    def transcript(self) -> Transcript:
        return self.stage.transcript


@contextlib.contextmanager
def _act(directory: Path, title: str, answers: Path | None, *, as_json: bool) -> Iterator[_Act]:
    """The root, opened by its holders, for one act that its transcript tells of."""
    stage = _Stage(people=holders(answers), transcript=Transcript(title, clock=_now))
    certificate = ceremony.read_root(directory, now=_now())
    stage.begin()
    given = stage.people.collect()
    root = ceremony.open_root(directory, [share for _, share in given], now=_now())
    stage.transcript.certificate("The root was opened", certificate)
    for name, share in given:
        stage.transcript.say(f"{name} gave share {_number(share)}")
    yield _Act(root=root, stage=stage)
    path = new_place(directory, now=_now())
    _end(path, stage.transcript)
    _tell(path, stage.transcript, as_json=as_json)


# ---------------------------------------------------------------- parts


def _signed(
    root: Parent,
    request: CaRequest,
    constraints: NameConstraints | None,
    base_url: str,
    transcript: Transcript,
    *,
    lifetime: timedelta = certify.INTERMEDIATE_LIFETIME,
) -> x509.Certificate:
    made = certify.make_intermediate(
        request.subject,
        request.public_key,
        root,
        lifetime=lifetime,
        path_length=request.path_length,
        name_constraints=constraints,
        base_url=base_url,
        now=_now(),
    )
    transcript.certificate("An intermediate was signed", made)
    if constraints is not None:
        transcript.say(
            "It is bound by name constraints",
            {"permitted": _listed(constraints.permitted), "excluded": _listed(constraints.excluded)},
        )
    if certify.is_loopback(base_url):
        transcript.say(f"It does not say where the root's CRL is: {base_url} is on loopback")
    return made


def _keep_crl(place: Path, root: Parent, crl: UnsignedCrl, transcript: Transcript) -> None:
    folder.replace(place / ROOT_CRL, crls.sign(root.certificate, root.key, crl))
    transcript.say(
        "A CRL of the root was signed",
        {
            "number": crl.number,
            "revoked": ", ".join(f"{entry.serial} ({_reason(entry)})" for entry in crl.entries) or "none",
            "next update": f"{crl.next_update:%Y-%m-%d}",
        },
    )


def _reason(entry: Entry) -> str:
    return reason_name(RevocationReason(entry.reason))


def _end(path: Path, transcript: Transcript) -> None:
    """Close the transcript with what lies beside it, and write it."""
    transcript.end(*sorted(file for file in path.parent.iterdir() if file.suffix in {".pem", ".key", ".crl"}))
    folder.write(path, transcript.text().encode())


def _tell(path: Path, transcript: Transcript, *, as_json: bool) -> None:
    if as_json:
        show_json({"transcript": str(path), "sha256": transcript.sha256(), "text": transcript.text()})
        return
    out = console()
    out.print(transcript.text())
    out.print(f"Transcript: {path}")
    out.print(f"Its SHA-256, to be noted and signed by all who are present: {transcript.sha256()}")
    out.print("Switch this machine off: a program cannot wipe what it held in memory.")


def _read_request(path: Path) -> CaRequest:
    try:
        return certify.read_request(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The request {path} cannot be read: {error.strerror}.") from None


def _constraints(
    permit: Sequence[str] | None, exclude: Sequence[str] | None, request: CaRequest | None
) -> NameConstraints | None:
    """Those of the options; without any those that the request asks for."""
    if permit or exclude:
        return NameConstraints.parse(permit or (), exclude or ())
    return request.name_constraints if request else None


def _serial(text: str) -> Serial:
    serial = read_serial(text)
    if serial is None:
        raise ConfigurationError(f"--revoke: {text!r} is no serial number; write it in hexadecimal.")
    return serial


def _check_new(path: Path) -> None:
    if path.exists():
        raise ConfigurationError(f"{path} exists and is left as it is; name another file.")


def _listed(subtrees: Sequence[Subtree]) -> str:
    return ", ".join(map(str, subtrees)) or "none"


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (IssuerError, ShareError, KeyStoreError, FolderExists) as error:
        raise ConfigurationError(str(error)) from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be written: {error.strerror}.") from None
