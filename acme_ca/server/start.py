"""The start, in the order that leaves nothing behind when a setting prevents it: first all that only looks."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from acme_ca import app, log
from acme_ca.app import Prepared
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import adminsocket, database, datadir, hierarchy, sockets, weakkeys, welcome
from acme_ca.server.apart import apart
from acme_ca.server.sockets import Listeners
from acme_ca.server.supervisor import Supervisor
from acme_ca.server.tls import ServerTls
from acme_ca.server.worker import Worker
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres

SPARE_CONNECTIONS = 20
"""Of the embedded PostgreSQL: for commands and its own maintenance, beside the workers'."""


def serve(settings: Settings) -> int:
    """Serve until a signal ends it; the exit status. Raises ConfigurationError when a setting prevents the start.

    Call it in the main thread of a process that has no other: it forks.
    """
    log.configure()
    _allow_many_connections()
    status = 0
    with contextlib.suppress(KeyboardInterrupt), _interruptible() as interrupted, ExitStack() as held:
        listeners = sockets.listen(
            settings.https_listen, settings.http_listen, settings.admin.listen, workers=settings.workers
        )
        held.callback(listeners.close)
        status = _prepare(settings, listeners, held).run(interrupted)
    log.get(process="supervisor").info("stopped")
    return status


def _prepare(settings: Settings, listeners: Listeners, held: ExitStack) -> Supervisor:
    """All that is done once; what it starts is stopped with `held`."""
    with datadir.unchanged_when_refused(settings.data), ExitStack() as started:
        weak_keys = weakkeys.load(settings)
        seed = hierarchy.seed(settings)
        dsn, is_running = _database(settings, started)
        prepared = _bring_up(settings, seed, dsn)
        tls = _tls(settings)
        root = datadir.publish_root(settings.data, prepared.root_pem)
        local = started.enter_context(adminsocket.listening(settings))
        held.enter_context(started.pop_all())
    return Supervisor(
        Worker(settings=settings, weak_keys=weak_keys, dsn=dsn, tls=tls, listeners=listeners, local=local),
        workers=settings.workers,
        grace=settings.shutdown_grace,
        on_ready=partial(welcome.say, settings, root=root, fingerprint=prepared.fingerprint),
        on_stop=listeners.close,
        healthy=is_running,
    )


# ---------------------------------------------------------------- one step each


def _allow_many_connections() -> None:
    """As many open files as this user may have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _database(settings: Settings, started: ExitStack) -> tuple[str, Callable[[], bool]]:
    """The database's URL, and whether it runs as far as we are in charge of it."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value(), lambda: True
    connections = 2 * settings.database_connections * settings.workers + SPARE_CONNECTIONS
    embedded = EmbeddedPostgres(database.place(settings), settings={"max_connections": str(connections)})
    started.callback(embedded.stop)
    try:
        return embedded.start(), lambda: embedded.pid is not None
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from None


def _bring_up(settings: Settings, seed: Hierarchy | None, dsn: str) -> Prepared:
    async def prepare() -> Prepared:
        return await app.prepare(settings, seed, dsn=dsn, open_key=hierarchy.keys(settings))

    with database.explained():
        return apart(lambda: asyncio.run(prepare()))


def _tls(settings: Settings) -> ServerTls:
    try:
        return ServerTls(settings.tls_file)
    except OSError as error:
        reason = (
            f"the server's own certificate {settings.tls_file} cannot be used ({error.strerror or error})"
        )
        raise ConfigurationError(f"ACME_CA_DATA: {reason}; remove it, and a new one is issued.") from None


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C raise KeyboardInterrupt in the start, which stops what has been started.

    They are also remembered, for where the exception is lost: Python ignores those raised in its hooks at a fork.
    """
    noted: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        noted.append(number)
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, interrupt) for kind in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(noted)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
