"""`kill -9` at any moment: what was told to a client is still so afterwards, and what was under way is finished."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from acme import messages

from tests.support.acme_client import AcmeClient, http01, leaf
from tests.support.responders import HttpResponder
from tests.support.server import Server, assert_audited, environment, free_ports, running

pytestmark = pytest.mark.client


def kill_supervisor(process: subprocess.Popen) -> None:
    """Its workers and the database notice by themselves."""
    process.kill()
    process.wait()


def kill_everything(process: subprocess.Popen) -> None:
    """Nobody gets to finish anything."""
    supervisor = psutil.Process(process.pid)
    supervisor.suspend()
    family = [*supervisor.children(recursive=True), supervisor]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family[:-1], timeout=10)


KILLS = {"the supervisor": kill_supervisor, "every process": kill_everything}
Kill = Callable[[subprocess.Popen], None]


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_nothing_that_a_client_was_told_is_lost(tmp_path, kill):
    with (
        running(tmp_path, VALIDATION__RETRY_DELAY="0.1") as server,
        HttpResponder(port=server.http01_port) as web,
        AcmeClient(server) as client,
    ):

        def kill_and_start_again() -> None:
            kill(server.process)
            server.start_again()

        client.register()
        kill_and_start_again()
        assert client.read(client.url)["status"] == "valid"

        order = client.order("one.localhost", "two.localhost")
        make_durable(server)
        kill_and_start_again()
        assert client.read(order.uri)["status"] == "pending"

        client.prove(order, web)
        issued = client.finalize(order)
        kill_and_start_again()
        assert client.read(order.uri)["status"] == "valid"
        assert client.post(client.read(order.uri)["certificate"], None).text == issued.fullchain_pem

        client.acme.revoke(leaf(issued), 4)
        kill_and_start_again()
        with pytest.raises(messages.Error) as refused:
            client.acme.revoke(leaf(issued), 4)
        assert refused.value.code == "alreadyRevoked"
        assert client.issue("one.localhost", web=web).fullchain_pem
        assert_audited(server)


def make_durable(server: Server) -> None:
    """Orders and challenges reach the disk a moment later, unless something that matters more is written behind them:
    an account.
    """
    with AcmeClient(server) as another:
        another.register()


@pytest.mark.parametrize(
    "moment",
    [
        "data",
        "data/ca",
        "data/root.pem",
        "data/postgres/new-*",
        "data/postgres/cluster",
        "data/postgres/cluster/postmaster.pid",
        "data/tls",
    ],
)
def test_a_first_start_that_was_killed_can_be_made_again(tmp_path, moment):
    kill_as_soon_as_there_is(moment, tmp_path)
    with running(tmp_path) as server, AcmeClient(server) as client:
        assert client.register().body.status == "valid"


def kill_as_soon_as_there_is(moment: str, place: Path) -> None:
    command = [sys.executable, "-m", "acme_ca", "serve", "--dev"]
    variables = environment(place, free_ports(5), {})
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=variables, cwd=place, **quiet)
    # The new cluster has its name for half a second alone: where that was missed, the moment is the next one.
    moments = [moment, "data/postgres/cluster"] if moment == "data/postgres/new-*" else [moment]
    while not any(list(place.glob(one)) for one in moments):
        assert process.poll() is None
    kill_everything(process)


# ---------------------------------------------------------------- what is under way

ANSWER = 2.0
"""Seconds that the answer to a challenge takes: the validation is under way when the kill comes."""
DELAY = 3.0
"""Seconds that the issuance takes: likewise."""
TIMEOUT = 8.0
"""Of a validation."""
VALIDATION_SWEPT = TIMEOUT + 0.1 + 30 + 5
"""Seconds: the time after which an attempt is taken for dead, and a round of the sweep."""
ISSUANCE_SWEPT = DELAY + 60 + 15 + 45
"""Seconds: the same for an order, and the lease of the process that was killed."""
MARGIN = 20.0


@dataclass(frozen=True)
class Survivor:
    """A server that was killed, and started again at `since`, with a validation and an issuance under way."""

    server: Server
    client: AcmeClient
    web: HttpResponder
    validating: messages.OrderResource
    processing: messages.OrderResource
    since: float

    def await_status(self, order: messages.OrderResource, status: str, *, within: float) -> None:
        while (found := self.client.read(order.uri))["status"] != status:
            assert found["status"] in {"pending", "processing"}, found
            assert time.monotonic() - self.since < within, found
            time.sleep(1)


@pytest.fixture(scope="module")
def survivors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Survivor]]:
    """By what was killed. Both wait for their sweeps at the same time."""
    with ExitStack() as opened:
        yield {what: survive(kill, opened, tmp_path_factory.mktemp("killed")) for what, kill in KILLS.items()}


def survive(kill: Kill, opened: ExitStack, place: Path) -> Survivor:
    server = opened.enter_context(
        running(
            place,
            VALIDATION__ATTEMPTS="1",
            VALIDATION__RETRY_DELAY="0.1",
            VALIDATION__TIMEOUT=str(TIMEOUT),
            TEST__DELAY_ISSUANCE=str(DELAY),
        )
    )
    web = opened.enter_context(HttpResponder(port=server.http01_port))
    client = opened.enter_context(AcmeClient(server))
    client.register()
    processing = client.order("processing.localhost")
    validating = client.order("validating.localhost")
    client.prove(processing, web)
    assert client.acme.begin_finalization(processing).body.status == messages.STATUS_PROCESSING
    begin_validation(client, validating, web)
    make_durable(server)
    kill(server.process)
    server.start_again()
    return Survivor(server, client, web, validating, processing, time.monotonic())


def begin_validation(client: AcmeClient, order: messages.OrderResource, web: HttpResponder) -> None:
    """The server asks, and has not got the whole answer when this returns."""
    challenge = http01(order.authorizations[0])
    proof = challenge.validation(client.network.key).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(proof)}\r\n\r\n".encode()
    web.raw(challenge.chall.path, head, proof, pause=ANSWER)
    asked = len(web.requests)
    client.acme.answer_challenge(challenge, challenge.response(client.network.key))
    while len(web.requests) == asked:
        time.sleep(0.01)


@pytest.mark.parametrize("killed", KILLS)
def test_a_validation_under_way_is_made_again(survivors, killed):
    survivor = survivors[killed]
    survivor.await_status(survivor.validating, "ready", within=VALIDATION_SWEPT + MARGIN)


@pytest.mark.parametrize("killed", KILLS)
def test_an_order_that_was_processing_gets_its_certificate(survivors, killed):
    survivor = survivors[killed]
    survivor.await_status(survivor.processing, "valid", within=ISSUANCE_SWEPT + MARGIN)
    assert survivor.client.await_issued(survivor.processing).fullchain_pem
    assert_audited(survivor.server)
