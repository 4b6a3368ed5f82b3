"""Prometheus: what a real one scrapes, what its own parsers read, and that nobody can keep it from that."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from autoinst.export.exposition import Family, Sample, render
from autoinst.export.prometheus import MAX_SERIES, Prometheus
from autoinst.export.scraping import CONCURRENT, Scraped, Textfile
from autoinst.export.settings import choose
from autoinst.rules.figures import listen
from autoinst.store.retention import Limits
from autoinst.store.sqlite import Store
from tests.agents import eventually
from tests.exported import START_NS, job, rich
from tests.launching import AUTOINST, environment
from tests.libraries import python_of
from tests.servers import Server, free_port
from tests.test_export_receivers import fill
from tests.web_pages import serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

# Prints each sample as JSON: name, labels, value, labels of the exemplar.
PARSE = """
import json, sys
if sys.argv[1] == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
else:
    from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    for sample in family.samples:
        exemplar = getattr(sample, "exemplar", None)
        told = exemplar and [exemplar.labels, exemplar.value]
        print(json.dumps([family.name, family.type, sample.name, sample.labels, sample.value, told]))
"""
ACTION, QUEUE = "shop.Mailer#perform", "mail"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PrometheusServer(Server):
    """Prometheus, which scrapes `target` every second."""

    program = package = "prometheus"
    start_seconds = 60.0

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def start(self, program: str, folder: Path) -> None:
        """Start it with a store of its own."""
        scraped = {"job_name": "it", "scrape_interval": "1s", "static_configs": [{"targets": [self._target]}]}
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({"scrape_configs": [scraped]}))
        more = [f"--storage.tsdb.path={folder}/data", "--enable-feature=exemplar-storage", "--log.level=error"]
        self.spawn(program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self.port}", *more)

    def answers(self, connection: socket.socket) -> bool:
        """Ask whether it is ready."""
        connection.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(20)

    def ask(self, path: str, query: str, **more: float) -> Any:
        """Return the data of its answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode({'query': query, **more})}"
        with OPENER.open(url, timeout=30) as response:
            return json.load(response)["data"]


def variables(port):
    return {"AUTOINST_EXPORTERS": "prometheus", "AUTOINST_PROMETHEUS_LISTEN": f"127.0.0.1:{port}", "NO_PROXY": "*"}


def get(port, path="/metrics", accept="text/plain"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    with OPENER.open(request, timeout=30) as response:
        return response.headers["Content-Type"], response.read()


def answering(port):
    try:
        get(port)
    except OSError:
        return False
    return True


def parsed(data, kind="text"):
    """Return samples as (name, labels, value, exemplar), as Prometheus' own library reads them."""
    line = [python_of("receivers"), "-c", PARSE, kind]
    done = subprocess.run(line, input=data.decode(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)[2:]) for line in done.stdout.splitlines()]


def value(samples, name, **labels):
    [found] = [sample[2] for sample in samples if sample[0] == name and labels.items() <= sample[1].items()]
    return found


def test_a_real_prometheus_scrapes_the_agent(home, agents):
    fill(home, [rich(1), *(job(number) for number in range(2, 31)), job(31, "killed")])
    port = free_port()
    agents.start(**variables(port))
    eventually(lambda: answering(port))
    with PrometheusServer(f"127.0.0.1:{port}") as prometheus:

        def counted(status):
            found = prometheus.ask("query", f'autoinst_jobs_total{{status="{status}"}}')["result"]
            return [(each["metric"]["action"], each["metric"]["queue"], each["value"][1]) for each in found]

        eventually(lambda: counted("ok"), 60)
        assert counted("ok") == [(ACTION, QUEUE, "29")]
        assert counted("error") == [(ACTION, QUEUE, "1")]
        assert counted("killed") == [(ACTION, QUEUE, "1")]
        [slow] = prometheus.ask("query", "histogram_quantile(0.5, autoinst_job_duration_seconds_bucket)")["result"]
        assert 0.016 < float(slow["value"][1]) < 0.034  # 25 ms

        def exemplars():
            span = {"start": START_NS / 1e9 - 60, "end": time.time() + 60}
            return prometheus.ask("query_exemplars", "autoinst_job_duration_seconds_bucket", **span)

        eventually(exemplars, 60)
        [found] = exemplars()
        labels = found["exemplars"][0]["labels"]
        assert labels == {"transaction_id": job(30).id, "trace_id": job(30).id}


def families_of(home, **rules):
    with Store(str(home / "store.sqlite3"), readonly=True) as store:
        return Prometheus(rules).families(store)


@pytest.mark.parametrize("kind", ["text", "openmetrics"])
def test_prometheus_own_parser_reads_it(home, kind):
    hostile = 'shop."Q\\uote"\nnewline#\\'
    fill(home, [rich(1), job(2), job(3, action=hostile, queue="é"), job(4, queue=None, queue_time_ms=None)])
    data = render(families_of(home), openmetrics=kind == "openmetrics")
    samples = parsed(data, kind)
    assert value(samples, "autoinst_jobs_total", action=hostile, queue="é", status="ok") == 1
    assert value(samples, "autoinst_jobs_total", action=ACTION, queue="", status="ok") == 1
    labels = {"action": ACTION, "queue": QUEUE}
    assert value(samples, "autoinst_job_duration_seconds_count", **labels) == 2
    assert value(samples, "autoinst_job_duration_seconds_sum", **labels) == pytest.approx(0.05)
    assert value(samples, "autoinst_job_duration_seconds_bucket", **labels, le="0.016777216") == 0
    assert value(samples, "autoinst_job_duration_seconds_bucket", **labels, le="0.033554432") == 2
    assert value(samples, "autoinst_job_queue_time_seconds_bucket", **labels, le="+Inf") == 2
    exemplars = [
        (sample[1]["le"], sample[3]) for sample in samples if sample[3] and sample[1].items() >= labels.items()
    ]
    told = [{"transaction_id": job(2).id, "trace_id": job(2).id}, 0.025]
    assert exemplars == ([("0.033554432", told)] if kind == "openmetrics" else [])


def test_no_counter_falls_whatever_is_forgotten_or_found_out(home):
    fill(home, [job(1), job(2, "killed"), job(3)])
    maker = Prometheus({})
    with Store(str(home / "store.sqlite3")) as store:

        def counts():
            [jobs, *_] = maker.families(store)
            return {dict(sample.labels)["status"]: sample.value for sample in jobs.samples}

        assert counts() == {"ok": 2, "error": 0, "killed": 1}
        with store.transaction():
            store.insert([job(2)])  # it had ended well
        assert counts() == {"ok": 3, "error": 0, "killed": 1}
        store.forget(Limits(days=0.0001, rollup_days=0.0001, samples=0), time.time_ns() + 10**15)
        assert store.count() == 0
        assert counts() == {"ok": 3, "error": 0, "killed": 1}


def test_a_store_of_an_earlier_version_has_its_totals(home):
    fill(home, [job(1), job(2)])
    with Store(str(home / "store.sqlite3")) as store:
        for table in ("check_in", "total", "notice", "error_told"):
            store._con.execute(f"DROP TABLE {table}")
        store._con.execute("PRAGMA user_version = 5")
    with Store(str(home / "store.sqlite3")) as store:
        [total] = store.all_time()
    assert (total.action, total.queue, total.cell.ok) == (ACTION, QUEUE, 2)


def test_actions_and_queues_beyond_a_number_are_counted_together(home):
    fill(home, [job(number, action=f"shop.Job{number}#perform") for number in range(1, MAX_SERIES + 41)])
    samples = parsed(render(families_of(home), openmetrics=False))
    actions = {sample[1]["action"] for sample in samples if sample[0] == "autoinst_jobs_total"}
    assert len(actions) == MAX_SERIES + 1
    assert value(samples, "autoinst_jobs_total", action="(other)", queue="(other)", status="ok") == 40
    assert value(samples, "autoinst_job_duration_seconds_count", action="(other)") == 40


def test_the_page_has_the_same_metrics(home):
    fill(home, [job(1), job(2, "error")])
    with serving(home) as ui:
        samples = parsed(ui.ask("/metrics").body)
    assert value(samples, "autoinst_jobs_total", action=ACTION, status="error") == 1


def test_the_textfile_is_written_whole(home, tmp_path):
    fill(home, [job(1)])
    path = tmp_path / "autoinst.prom"
    writer = Textfile(Prometheus({}), str(path), 0.001)
    stop = threading.Event()
    thread = threading.Thread(target=writer.run, args=(str(home / "store.sqlite3"), None, stop))
    thread.start()
    try:
        eventually(path.exists)
        seen: set[int] = set()
        while len(seen) < 20:
            with open(path, "rb") as file:
                data = file.read()
                seen.add(os.fstat(file.fileno()).st_mtime_ns)
            assert data.endswith(b"\n")
            assert b"autoinst_jobs_total" in data
    finally:
        stop.set()
        thread.join(60)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["autoinst.prom", "home"]


def test_once_writes_the_textfile_and_says_so(home, tmp_path):
    fill(home, [job(1)])
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"version: 1\nexporters: {{prometheus: {{textfile: {tmp_path}/no/such.prom}}}}\n")
    line = [AUTOINST, "agent", "--once"]
    env = environment(home, AUTOINST_RULES=str(rules))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"prometheus/textfile: {tmp_path}/no/such.prom: No such file or directory" in done.stderr
    (tmp_path / "no").mkdir()
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert f"bytes written to {tmp_path}/no/such.prom" in done.stderr


@pytest.fixture
def scraped(home):
    fill(home, [job(1)])
    port = free_port()
    stop = threading.Event()
    service = Scraped(Prometheus({}), f"127.0.0.1:{port}")
    arguments = (str(home / "store.sqlite3"), logging.getLogger("autoinst.tests.prometheus"), stop)
    thread = threading.Thread(target=service.run, args=arguments)
    thread.start()
    eventually(lambda: answering(port))
    yield port
    stop.set()
    thread.join(60)


def test_who_trickles_or_breaks_off_keeps_nobody_from_the_metrics(scraped):
    slow = [socket.create_connection(("127.0.0.1", scraped)) for _ in range(6)]
    for each in slow:
        each.sendall(b"GET /metr")
    socket.create_connection(("127.0.0.1", scraped)).close()
    assert b"autoinst_jobs_total" in get(scraped)[1]
    more = [socket.create_connection(("127.0.0.1", scraped)) for _ in range(CONCURRENT + 4)]
    for each in more:
        each.sendall(b"GET /metr")
    eventually(lambda: any(each.recv(20, socket.MSG_DONTWAIT) for each in more if ready(each)))
    for each in [*slow, *more]:
        each.close()
    eventually(lambda: answering(scraped))


def ready(connection):
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


@pytest.mark.parametrize(("path", "status"), [("/elsewhere", 404), ("/metrics/../etc", 404)])
def test_nothing_but_the_metrics_is_there(scraped, path, status):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(scraped, path)
    assert error.value.code == status
    error.value.close()


def test_formats_are_as_asked_for(scraped):
    assert get(scraped)[0].startswith("text/plain; version=0.0.4")
    kind, data = get(scraped, accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    assert data.endswith(b"# EOF\n")


def test_a_unix_socket_is_listened_at_and_a_dead_ones_file_is_replaced(home, agents, tmp_path):
    fill(home, [job(1)])
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    agents.start(AUTOINST_EXPORTERS="prometheus", AUTOINST_PROMETHEUS_LISTEN=f"unix:{path}")

    def ask():
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except OSError:
                return b""
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))

    eventually(lambda: b"autoinst_jobs_total" in ask())


def test_an_address_that_is_taken_is_told_and_tried_again(home, agents):
    fill(home, [job(1)])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        agent = agents.start(**variables(port))
        assert agent.stderr is not None
        line = ""
        while "cannot listen" not in line:
            line = agent.stderr.readline()
        assert f"prometheus/listen: cannot listen at 127.0.0.1:{port}: Address already in use; trying again" in line
    eventually(lambda: answering(port), 60)


def test_doctor_asks_for_the_metrics(home, agents):
    fill(home, [job(1)])
    port = free_port()
    env = environment(home, **variables(port))
    line = [AUTOINST, "doctor", "--json"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    [feed] = json.loads(done.stdout)["exporters"]["feeds"]
    assert (feed["name"], feed["ok"]) == ("prometheus/listen", False)
    assert feed["test"] == "nobody listens there (Connection refused): it is the agent that does, while it lives"
    agents.start(**variables(port))
    eventually(lambda: answering(port))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    [feed] = json.loads(done.stdout)["exporters"]["feeds"]
    assert (feed["ok"], feed["test"].startswith("answered 200 with ")) == (True, True)


@pytest.mark.parametrize("text", ["9464", ":9464", "localhost", "localhost:99999", "http://localhost:9464", "unix:a"])
def test_what_is_no_address_to_listen_at(text):
    with pytest.raises(ValueError, match=r"must be an address such as 127\.0\.0\.1:9464"):
        listen(text)
    chosen = choose({"AUTOINST_EXPORTERS": "prometheus", "AUTOINST_PROMETHEUS_LISTEN": text}, {})
    told = "must be an address such as 127.0.0.1:9464, [::1]:9464 or unix:/run/autoinst.sock"
    [problem] = chosen.problems
    assert problem.startswith(f"exporter prometheus: AUTOINST_PROMETHEUS_LISTEN: {told}, not {text!r}; it is off")


def test_it_is_off_unless_told_where():
    chosen = choose({"AUTOINST_EXPORTERS": "prometheus"}, {})
    told = "exporter prometheus: neither 'listen' (or AUTOINST_PROMETHEUS_LISTEN) nor 'textfile' is set"
    assert [problem.partition(";")[0] for problem in chosen.problems] == [told]


def test_numbers_are_written_as_they_are_read():
    family = Family("it", "gauge", "Of it.", tuple(Sample("", (), each) for each in (1, 1.5, 1e21, -0.0, True)))
    assert [line.split()[1] for line in render([family], openmetrics=False).decode().splitlines()[2:]] == [
        "1",
        "1.5",
        "1000000000000000000000",
        "0",
        "1",
    ]
