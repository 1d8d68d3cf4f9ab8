"""Postgres with TLS and `verify-full`, for real: let in over TLS, or told the real reason in one line."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import ensure_database
from sitelog.deploy._state import new_state, write_state
from sitelog.projections._database import connect, open_pool
from sitelog.projections._install import install
from sitelog.streams.settings import Settings
from tests.certificates import EXPIRED, Authority
from tests.commands import Ran, config_file, sitelog
from tests.conftest import Services, watched_folder
from tests.secure_postgres import SecurePostgres
from tests.until import until

pytestmark = pytest.mark.services

EXIT_USAGE = 2
DATABASE = "sites"

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

Check = Callable[..., Awaitable[Ran]]


@pytest.fixture(scope="module")
async def secure() -> AsyncIterator[SecurePostgres]:
    with watched_folder() as folder:
        state = new_state(brokers=1)
        write_state(folder, state)
        postgres = SecurePostgres(folder, state)
        await postgres.start()
        await ensure_database(postgres.state, name=DATABASE)
        await install(settings(postgres))
        yield postgres


def primary(postgres: SecurePostgres, **changed: Any) -> dict[str, Any]:
    """What makes a connection to it secure."""
    return {"host": "localhost", "ssl_mode": "verify-full", "ssl_rootcert": str(postgres.rootcert)} | changed


def settings(postgres: SecurePostgres, **changed: Any) -> Settings:
    values = configuration(postgres.state, database=DATABASE)
    values["database_config"]["primary"] |= primary(postgres, **changed)
    return Settings.model_validate(values)


@pytest.fixture
def check(secure: SecurePostgres) -> Check:
    """Run `sitelog db check` on a configuration that is changed like this."""

    async def run(**changed: Any) -> Ran:
        services = Services(secure.rootcert.parent, secure.state)
        return await sitelog(config_file(services, DATABASE, primary=primary(secure, **changed)), "db", "check")

    return run


def only_line(ran: Ran) -> str:
    """The one line that a refused configuration ends with."""
    assert ran.code == EXIT_USAGE, ran.err
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("error: Postgres at ")
    return line


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_what_is_meant_to_be_encrypted_is(secure: SecurePostgres, mode: str) -> None:
    rootcert = str(secure.rootcert) if mode.startswith("verify") else None
    database = settings(secure, ssl_mode=mode, ssl_rootcert=rootcert).database_config.primary

    connection = await connect(database)
    assert await connection.fetchval(IS_ENCRYPTED)
    await connection.close()
    async with await open_pool(database) as pool:
        assert await pool.fetchval(IS_ENCRYPTED)


async def test_commands_get_in_with_verify_full(check: Check) -> None:
    ran = await check()

    assert (ran.code, ran.err) == (0, "")


async def test_a_wrong_password_is_called_that_and_not_shown(check: Check) -> None:
    line = only_line(await check(password="hunter2"))  # noqa: S106

    assert 'password authentication failed for user "app_user". Check username and password' in line
    assert "hunter2" not in line


async def test_a_foreign_authority_is_refused(secure: SecurePostgres, check: Check) -> None:
    foreign = secure.rootcert.with_name("foreign.pem")
    foreign.write_bytes(Authority().pem)

    line = only_line(await check(ssl_rootcert=str(foreign)))

    assert "isn't trusted: " in line
    assert "Check ssl_rootcert and host in database_config" in line


async def test_an_authority_that_the_system_does_not_know_is_refused_where_none_is_named(check: Check) -> None:
    assert "isn't trusted: " in only_line(await check(ssl_rootcert=None))


async def test_another_host_name_is_refused_by_verify_full_alone(check: Check) -> None:
    line = only_line(await check(host="127.0.0.1"))

    assert "127.0.0.1" in line.partition("isn't trusted: ")[2]
    assert (await check(host="127.0.0.1", ssl_mode="verify-ca")).code == 0


async def test_an_expired_certificate_is_refused_and_called_that(secure: SecurePostgres, check: Check) -> None:
    await secure.show(secure.authority.issue(valid=EXPIRED))
    try:
        ran = await until("the expired certificate", lambda: refused(check))
    finally:
        await secure.show(secure.authority.issue())

    assert "isn't trusted: certificate has expired" in only_line(ran)
    await until("the good certificate", lambda: let_in(check))


async def refused(check: Check) -> Ran | None:
    ran = await check()
    return ran if ran.code else None


async def let_in(check: Check) -> bool:
    return (await check()).code == 0


async def test_a_root_certificate_that_cannot_be_read_is_named(secure: SecurePostgres, check: Check) -> None:
    nowhere = secure.rootcert.with_name("nowhere.pem")
    ran = await check(ssl_rootcert=str(nowhere))

    assert ran.code == EXIT_USAGE
    assert ran.err.startswith("error: database_config: ssl_rootcert: expected a PEM file of certificates, got ")
    assert str(nowhere) in ran.err

    nowhere.write_text("no certificate")
    assert (await check(ssl_rootcert=str(nowhere))).code == EXIT_USAGE


@pytest.mark.usefixtures("postgres")
async def test_a_server_without_tls_is_refused_where_tls_is_wanted(services: Services) -> None:
    """The wheel's Postgres: it must not be spoken to in clear instead."""
    for mode in ("require", "verify-ca", "verify-full"):
        config = config_file(services, DATABASE, primary={"ssl_mode": mode})
        line = only_line(await sitelog(config, "db", "check"))
        assert f"TLS with ssl_mode {mode} failed: " in line
