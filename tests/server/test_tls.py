"""The server's own certificate: served, renewed in place, kept when its file is spoilt."""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from acme_ca.server.tls import ServerTls
from tests.support.tls import certificate, pem_of, renew, served_serial


@contextmanager
def handed_over(server: asyncio.Server) -> Iterator[int]:
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_a_renewed_certificate_is_served_without_a_restart(tls, tmp_path):
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls.context)
    watching = asyncio.create_task(tls.watch(interval=0.02))
    with handed_over(server) as port:
        assert await served_serial(port) == 1001
        renew(tmp_path / "server.pem", 1002)
        deadline = time.monotonic() + 30
        while await served_serial(port) != 1002:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    watching.cancel()


SPOILT = {
    "no PEM": lambda key: b"nonsense",
    "an empty file": lambda key: b"",
    "a certificate of another key": lambda key: (
        pem_of(ec.generate_private_key(ec.SECP256R1())) + certificate(9, key)
    ),
    "a certificate without its key": lambda key: certificate(9, key),
    "a key without its certificate": pem_of,
}


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT.keys())
async def test_a_spoilt_file_leaves_the_old_certificate_served(tls, tmp_path, content):
    (tmp_path / "server.pem").write_bytes(content(ec.generate_private_key(ec.SECP256R1())))
    tls.refresh()
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls.context)
    with handed_over(server) as port:
        assert await served_serial(port) == 1001
        renew(tmp_path / "server.pem", 1003)
        tls.refresh()
        assert await served_serial(port) == 1003


async def test_a_file_that_is_gone_leaves_the_old_certificate_served(tls, tmp_path):
    (tmp_path / "server.pem").unlink()
    tls.refresh()
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls.context)
    with handed_over(server) as port:
        assert await served_serial(port) == 1001


def test_an_encrypted_key_is_refused_and_not_asked_for(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "server.pem").write_bytes(locked + certificate(1, key))
    with pytest.raises(OSError, match="the key is encrypted"):
        ServerTls(tmp_path / "server.pem")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_below_1_2_is_refused_and_1_2_is_not(tls):
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls.context)
    with handed_over(server) as port:
        assert await served_serial(port, maximum_version=ssl.TLSVersion.TLSv1_2) == 1001
        with pytest.raises(OSError):  # noqa: PT011  whichever side notices first words it
            await served_serial(
                port, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
            )
