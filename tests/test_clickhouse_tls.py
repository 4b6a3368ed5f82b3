"""TLS to ClickHouse, which something before the server speaks: whom it trusts, and what it says of whom it does not."""

from __future__ import annotations

import json

import pytest

from autoinst.errors import StoreError
from autoinst.store.clickhouse.address import parse
from autoinst.store.clickhouse.client import Client
from tests.between import Between
from tests.clickhouses import ship
from tests.exported import job
from tests.hostile import certificate
from tests.test_clickhouse_agent import autoinst
from tests.test_clickhouse_faults import pump_to, same, through
from tests.test_export_pump import run_dry
from tests.test_export_receivers import fill

pytestmark = [pytest.mark.once, pytest.mark.service]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    return {name: certificate(folder, name) for name in ("own", "other")}


@pytest.fixture
def proxy(clickhouse, files):
    context, _ = files["own"]
    with Between(clickhouse.port, context) as found:
        yield found


def test_who_has_the_authority_sends_and_reads(clickhouse, proxy, files, tmp_path):
    home = tmp_path / "home"
    address = clickhouse.make()
    fill(home, [job(n) for n in range(1, 6)])
    url = f"{through(proxy.port, address.database, 'clickhouses')}?certificate={files['own'][1]}"
    pump = pump_to("jobs", url, home)
    run_dry(pump)
    pump.close()
    assert proxy.taken > 3
    ship(str(home / "store.sqlite3"), address)
    same(home, address, 5)
    found = autoinst(tmp_path / "elsewhere", "jobs", "--json", AUTOINST_STORE=url)
    assert len(found.stdout.splitlines()) == 5, found.stderr
    told = json.loads(autoinst(home, "doctor", "--json", AUTOINST_STORE=url).stdout)["server"]
    assert (told["ok"], told["sent"]) == (True, 5)
    assert told["to"] == f"https://127.0.0.1:{proxy.port}/{address.database}"


@pytest.mark.parametrize(
    ("host", "authority", "told"),
    [
        ("127.0.0.1", None, "its certificate is not trusted: self-signed certificate"),
        ("127.0.0.1", "other", "its certificate is not trusted: self-signed certificate"),
        ("localhost", "own", "its certificate is not trusted: Hostname mismatch, certificate is not valid for"),
    ],
    ids=["not known", "another one", "another name"],
)
def test_who_is_not_trusted_gets_nothing_and_the_jobs_wait(proxy, files, tmp_path, host, authority, told):
    home = tmp_path / "home"
    fill(home, [job(1), job(2)])
    url = through(proxy.port, "shop", "clickhouses").replace("127.0.0.1", host)
    url += f"?certificate={files[authority][1]}" if authority else ""
    done = autoinst(home, "agent", "--once", AUTOINST_STORE=url)
    place = f"https://{host}:{proxy.port}/shop"
    assert done.returncode == 1
    assert f"0 job(s) sent, 2 wait: {place}: {told}" in done.stderr
    found = json.loads(autoinst(home, "doctor", "--json", AUTOINST_STORE=url).stdout)
    assert any(text.startswith(f"AUTOINST_STORE: {place}: {told}") for text in found["attention"])
    assert found["server"]["waiting"] == 2
    assert proxy.requests == 0


def test_a_file_of_authorities_that_is_none(proxy, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    for name, told in (("missing.pem", "No such file or directory"), ("empty.pem", "no certificate or crl found")):
        url = f"{through(proxy.port, 'shop', 'clickhouses')}?certificate={tmp_path / name}"
        with pytest.raises(StoreError) as raised:
            Client(parse(url))
        assert str(raised.value).lower().startswith(f"certificate {tmp_path / name}: ".lower())
        assert told.lower() in str(raised.value).lower()
