import socket

import pytest

from sitelog.deploy._ports import free_port, is_free, require_free
from sitelog.streams.errors import UnavailableError


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_is_free_and_below_those_of_outgoing_connections():
    port = free_port(besides=set())
    assert is_free(port)
    assert 1024 < port < 32_768


def test_a_port_that_is_promised_to_another_service_is_not_given_twice():
    wanted = free_port(besides=set())
    assert free_port(besides=set(range(20_000, 32_000)) - {wanted}) == wanted


def test_when_no_port_is_left_that_is_said():
    with pytest.raises(UnavailableError, match="no free port between 20000 and 32000"):
        free_port(besides=set(range(20_000, 32_000)))


def test_a_port_in_use_is_an_error_that_says_which_and_what_to_do(taken):
    with pytest.raises(UnavailableError, match=rf"Postgres can't listen on 127.0.0.1:{taken}.*--postgres-port"):
        require_free(taken, "Postgres", "--postgres-port")


def test_a_port_with_connections_that_still_close_can_be_had_again():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
    client.close()
    assert is_free(port)
