"""Who may look at the pages, what binds a browser, and which options a server starts with."""

from __future__ import annotations

import subprocess

import pytest

from tests.launching import AUTOINST, environment
from tests.web_pages import Text, serving

pytestmark = pytest.mark.once

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def home(shop):
    return shop


@pytest.fixture(scope="module")
def ui(shop_ui):
    return shop_ui


def test_headers_bind_the_browser(ui):
    for path in ("/", "/static/app.css", "/jobs.json", "/nowhere", "/errors/x"):
        headers = ui.ask(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers
    page = Text(ui.ask("/").text)
    assert not [link for link in page.links if "//" in link]
    assert not page.attributes & {"style", "onclick", "onload"}
    assert "style" not in page.tags


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "", "a@localhost", "[::"]
)
def test_another_name_is_refused(ui, name):
    assert ui.ask("/", Host=name).status in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:7700"])
def test_own_names_are_served(ui, name):
    assert ui.ask("/static/app.js", Host=name).status == 200


def test_methods_and_cross_site_reads_are_refused(ui):
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert ui.ask("/", method).status == 405
    assert ui.ask("/jobs.json", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403
    assert ui.ask("/jobs", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert ui.ask("/?" + "x" * 9000).status == 414


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/", "/../x"],
)
def test_no_way_out_of_the_folder(ui, path):
    assert ui.ask(path).status in (400, 404)


def test_a_token_opens(home):
    with serving(home, "--allow-host", "jobs.example", AUTOINST_UI_TOKEN=TOKEN) as ui:
        assert ui.ask("/jobs.json").status == 401
        assert ui.ask("/live").status == 401
        assert ui.ask("/", Accept="text/html").headers["location"] == "/login"
        assert ui.ask("/login").status == 200
        assert ui.ask("/jobs.json", Authorization="Bearer wrong").status == 401
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="jobs.example").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="10.1.2.3").status == 200
        assert ui.ask("/jobs.json", Authorization=f"Bearer {TOKEN}", Host="evil.example").status == 421
        own = {"Origin": ui.address, "Content_Type": "application/x-www-form-urlencoded"}
        assert ui.ask("/login", "POST", "token=wrong", **own).status == 401
        assert ui.ask("/login", "POST", f"token={TOKEN.replace(' ', '+')}").status == 403
        given = ui.ask("/login", "POST", f"token={TOKEN.replace(' ', '+')}", **own)
        cookie = given.headers["set-cookie"]
        assert given.status == 303
        assert "HttpOnly" in cookie
        assert TOKEN not in cookie
        assert ui.ask("/jobs.json", Cookie=cookie.partition(";")[0]).status == 200
        assert ui.ask("/jobs.json", Cookie=cookie.partition("=")[0] + "=0").status == 401


@pytest.mark.parametrize(
    ("options", "variables", "status", "said"),
    [
        (["--host", "0.0.0.0"], {}, 1, "AUTOINST_UI_TOKEN"),
        (["--token", "short"], {}, 2, "too short"),
        (["--port", "70000"], {}, 2, "no port"),
        (["--read-from", "/no/such"], {}, 2, "no such file"),
        (["--host", "no.such.host.invalid", "--token", TOKEN], {}, 1, "no.such.host.invalid"),
    ],
)
def test_wrong_options_are_told(tmp_path, options, variables, status, said):
    done = subprocess.run(
        [AUTOINST, "ui", *options], env=environment(tmp_path, **variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert said in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_told(ui, home):
    command = [AUTOINST, "ui", "--port", str(ui.port)]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--port 0" in done.stderr
