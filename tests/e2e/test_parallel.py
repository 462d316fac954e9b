"""Many requests at once, on several workers."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
from acme import errors

from tests.support.acme_client import AcmeClient, Answer, Connection, csr_of, leaf, new_key
from tests.support.parallel import at_once
from tests.support.responders import HttpResponder
from tests.support.server import Server, running

FINALIZES = 50


@contextmanager
def registered(server: Server) -> Iterator[AcmeClient]:
    with AcmeClient(server) as client:
        client.register()
        yield client


# ---------------------------------------------------------------- lesson 18


async def test_fifty_parallel_finalizes_on_two_workers_give_one_certificate(tmp_path, empty_database_url):
    order, answers, serial = await asyncio.to_thread(finalize_at_once, tmp_path, empty_database_url)
    assert len(workers_that_served(tmp_path / "stderr", order + "/finalize")) == 2
    assert Counter(answer.status for answer in answers).keys() <= {200, 403}
    winners = [answer.body for answer in answers if answer.status == 200]
    assert winners
    assert {body["status"] for body in winners} <= {"valid", "processing"}
    assert {a.body["type"].rpartition(":")[2] for a in answers if a.status == 403} <= {"orderNotReady"}
    connection = await asyncpg.connect(empty_database_url)
    order_id = order.rpartition("/")[2]
    rows = await connection.fetch("SELECT serial FROM certificate WHERE order_id = $1", order_id)
    await connection.close()
    assert [row["serial"] for row in rows] == [serial]


def finalize_at_once(place, database_url: str) -> tuple[str, list[Answer], str]:
    """The order's URL, what each finalize was answered, and the serial of the certificate that there is."""
    with running(place, DATABASE_URL=database_url, WORKERS="2") as server, registered(server) as client:
        with HttpResponder(port=server.http01_port) as web:
            order = client.order("parallel.localhost")
            client.prove(order, web)
        url, csr = order.body.finalize, csr_of(order)
        connections = [Connection(server) for _ in range(FINALIZES)]
        bodies = [client.signed(url, {"csr": csr}) for _ in range(FINALIZES)]
        acts = [lambda c=c, b=b: c.post(url, b) for c, b in zip(connections, bodies, strict=True)]
        answers = at_once(acts)
        issued = client.await_issued(order)
        return order.uri, answers, f"{leaf(issued).serial_number:032x}"


def workers_that_served(log: Path, url: str) -> set[int]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {line["worker"] for line in lines if line.get("path") and url.endswith(line["path"])}


# ---------------------------------------------------------------- lesson 22


def test_orders_of_different_intent_are_never_the_same(server, new_hosts):
    hosts = new_hosts(2)
    with ExitStack() as opened, HttpResponder(port=server.http01_port) as web:
        client = opened.enter_context(registered(server))
        keys = [new_key() for _ in range(4)]
        orders = at_once([lambda key=key: client.order(*hosts, key=key) for key in keys])
        assert len({order.uri for order in orders}) == len(orders)
        for order, key in zip(orders, keys, strict=True):
            client.prove(order, web)
            assert leaf(client.finalize(order)).public_key() == key.public_key()


def test_duplicate_identifiers_are_folded(server, new_hosts):
    (host,) = new_hosts(1)
    with registered(server) as client:
        wanted = [{"type": "dns", "value": name} for name in (host, host.upper(), host)]
        made = client.post(client.acme.directory["newOrder"], {"identifiers": wanted}).json()
    assert made["identifiers"] == [{"type": "dns", "value": host}]
    assert len(made["authorizations"]) == 1


# ---------------------------------------------------------------- lesson 31


def test_clients_register_in_parallel_with_a_new_connection_for_each_request(server):
    with ExitStack() as opened:
        clients = [opened.enter_context(AcmeClient(server, new_connections=True)) for _ in range(16)]
        at_once([client.register for client in clients])
        assert len({client.url for client in clients}) == len(clients)
        read = at_once([lambda c=c: [c.read(c.url)["status"] for _ in range(5)] for c in clients])
    assert read == [["valid"] * 5] * len(clients)


def test_one_key_registered_in_parallel_gets_one_account(server):
    key = new_key()
    with ExitStack() as opened:
        clients = [opened.enter_context(AcmeClient(server, key=key, new_connections=True)) for _ in range(8)]
        accounts = at_once([lambda c=c: account_of(c) for c in clients])
    assert Counter(new for new, _ in accounts)[True] == 1
    assert len({url for _, url in accounts}) == 1


def account_of(client: AcmeClient) -> tuple[bool, str]:
    """Whether the account is new, and its URL."""
    try:
        return True, client.register().uri
    except errors.ConflictError as found:
        return False, found.location
