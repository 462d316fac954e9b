"""There is no act without its event: read from the statements themselves, and from the page that names the events."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from acme_ca import storage
from acme_ca.storage import roles

ROOT = Path(__file__).resolve().parents[2]
PLACE = Path(storage.__file__).parent
DOCS = ROOT / "docs" / "audit.md"

CHANGE = re.compile(
    r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?:ONLY\s+)?([a-z_]+)\s+(?:AS\s+)?(?:[a-z]\s+)?(?:SET|USING|\(|WHERE)"
)
EVENT = re.compile(r"INSERT INTO audit_event \(([^)]*)\)")

TRANSIENT = {
    "schema_version": "what the database itself is",
    "secret": "made once, by whichever server came first",
    "lease": "who works at what just now",
    "nonce_epoch": "spent nonces",
    "nonce": "spent nonces",
    "login_failure": "failed logins: in the log, each; strangers must not fill what is never deleted",
    "bucket": "what limits have counted",
    "limit_refusal": "what limits have counted",
    "crl_due": "wishes for a CRL, which tells of itself",
    "audit_event": "the events",
    "audit_seal": "proof of the events",
    "audit_signer": "proof of the events",
    "audit_forward": "how far events were handed on",
    "evidence": "since when retention has deleted nothing",
}
"""Tables of which no event tells, and why."""

ALONE = "an order or authorization alone gives nothing to anybody (docs/audit.md)"
ELSEWHERE = (
    "authorization.failed, order.failed, certificate.issued or certificate.unsigned tells what came of it"
)
TOGETHER = "another statement of the same transaction tells"
QUIET = {
    ("accounts", "create"): TOGETHER,
    ("approvals", "keep_outcome"): "a copy of what the act answered, which has its own events",
    ("authorizations", "_ANSWER"): ELSEWHERE,
    ("authorizations", "_create"): ALONE,
    ("authorizations", "_settle"): ELSEWHERE,
    ("authorizations", "put_back_attempts"): "who makes an attempt just now",
    ("authorizations", "renew_attempt"): "who makes an attempt just now",
    ("authorizations", "take_over_attempts"): "who makes an attempt just now",
    ("certificates", "record_for_operator"): ELSEWHERE,
    ("certificates", "record_own"): ELSEWHERE,
    ("crls", "count"): "figures of a shard",
    ("crls", "find_ends"): "figures of a shard",
    ("eab", "revoke"): TOGETHER,
    ("eab", "use_up"): TOGETHER,
    ("limits", "FORGIVEN"): "a success ends a count of failures",
    ("limits", "delete_old_pauses"): "failures that do not count any more; what was told of them stays",
    ("operations", "_DELETE_AUTHORIZATIONS"): "retention, by rule; what was told of them stays",
    ("operations", "_DELETE_ORDERS"): "retention, by rule; what was told of them stays",
    ("orders", "_CLAIM"): ELSEWHERE,
    ("orders", "_CLAIM_LIMITED"): ELSEWHERE,
    ("orders", "_RECORDED"): ELSEWHERE,
    ("orders", "_create"): ALONE,
    ("orders", "release_replaced"): "an order that was dead already lets go of what it replaces",
    ("scopes", "revoke"): TOGETHER,
    ("tokens", "used"): "when it was last used",
}
"""Statements that change something durable and write no event themselves, and why."""

ASSEMBLED = {
    "account.updated": "'account.' ||",
    "approval.approved": "'approval.' ||",
    "approval.rejected": "'approval.' ||",
    "issuer.active": "'issuer.' ||",
    "issuer.retired": "'issuer.' ||",
}
"""Events whose names are put together by their statement, and where that begins."""


def statements() -> Iterator[tuple[str, str, str]]:
    """Module, function or constant, SQL; the parts of an f-string joined."""
    for file in sorted(PLACE.glob("*.py")):
        for node in ast.parse(file.read_text()).body:
            name = _name(node)
            for text in _texts(node):
                if CHANGE.search(text):
                    yield file.stem, name, text


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


def test_whatever_changes_something_durable_writes_an_event():
    quiet = {
        (module, name)
        for module, name, text in statements()
        if set(CHANGE.findall(text)) - set(TRANSIENT) and not EVENT.search(text)
    }
    assert quiet == set(QUIET)


def test_the_tables_are_those_of_the_schema():
    tables = set(
        re.findall(r"^CREATE (?:UNLOGGED )?TABLE ([a-z_]+)", (ROOT / "schema.sql").read_text(), re.MULTILINE)
    )
    assert set(TRANSIENT) < tables
    assert {table for _, _, text in statements() for table in CHANGE.findall(text)} <= tables
    assert tables - set(TRANSIENT) == {
        table for _, _, text in statements() for table in CHANGE.findall(text)
    } - set(TRANSIENT)


def test_every_event_says_who_and_from_where():
    """Without a source there is but what the server does by itself. Servers may write no other columns."""
    granted = re.findall(r"GRANT INSERT \(([^)]*)\) ON audit_event", roles._GRANTS)[0].split(", ")
    for module, name, text in statements():
        for columns in EVENT.findall(text):
            has = columns.replace(",", " ").split()
            assert {"at", "event", "actor", "object"} <= set(has), (module, name)
            assert "source" in has or "'server'" in text, (module, name)
            assert set(has) <= set(granted), (module, name)


def test_every_event_is_explained():
    section = DOCS.read_text().partition("## The events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[a-z-]+\.[a-z-]+`(?:, )?)+) \|", section, re.MULTILINE)
    explained = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(explained) == sorted(set(explained)), "each once"
    assert set(explained) == _written()


def _written() -> set[str]:
    """The names of events in the source."""
    source = "".join(
        file.read_text()
        for room in ("storage", "revocation", "server")
        for file in sorted((PLACE.parent / room).glob("*.py"))
    )
    for name, beginning in ASSEMBLED.items():
        assert beginning in source, name
    kinds = {name.partition(".")[0] for name in ASSEMBLED} | {
        "account|approval|authorization|backup|certificate|crl|eab-key|issuer|key|limit|order|policy|profile|scope",
        "service|token",
    }
    return set(ASSEMBLED) | set(re.findall(rf"""['"]((?:{"|".join(kinds)})\.[a-z-]+)['"]""", source))
