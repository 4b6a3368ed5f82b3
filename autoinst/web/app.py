"""The pages' addresses: each as HTML, `.json` and `.csv`; live updates; the login; what a person says of an error."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from autoinst.errors import AutoinstError, HomeError
from autoinst.store.failures import STATES
from autoinst.store.reader import ForbiddenStoreError, OutdatedStoreError, SlowStoreError
from autoinst.store.sqlite import Store
from autoinst.web import action, check_ins, errors, job, jobs, machinery, overview, render, revisions
from autoinst.web import window as windows
from autoinst.web.metrics import Metrics
from autoinst.web.page import Context, Page, PageError
from autoinst.web.security import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from starlette.requests import Request

    from autoinst.config import Config
    from autoinst.web.source import Source

    Make = Callable[..., Page]

QUERY_SECONDS = 1.8  # for all that one page asks the store
MAX_VALUE = 2_100  # characters of a parameter
LISTENERS = 40  # pages that are kept up to date at once
TICK_SECONDS = 0.25
BEAT_SECONDS = 15.0
STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")


class Site:
    """The pages over one source."""

    def __init__(self, source: Source, config: Config, *, hosts: Collection[str], token: str | None, port: int) -> None:
        """Serve `source`; `hosts` and `token` are Guard's, `port` keeps the cookies of two servers apart."""
        self.source = source
        self.config = config
        self.templates = render.environment()
        self.listeners = 0
        expected = check_ins.of_rules(config)
        self.nav = (*render.NAV, check_ins.NAV) if expected else render.NAV
        self.routes: list[Route | Mount] = [
            *self._page("/overview", overview.overview, "/"),
            *self._page("/actions", overview.actions),
            *self._page("/action", action.action),
            *self._page("/errors", errors.errors),
            *self._page("/errors/{fingerprint:str}", self._error),
            *self._page("/jobs", jobs.jobs),
            *self._page("/jobs/{record_id:str}", self._job),
            *self._page("/running", jobs.running),
            *self._page("/queries", overview.queries),
            *self._page("/revisions", revisions.revisions),
            *self._page("/processes", machinery.processes),
            *self._page("/rules", machinery.rules),
            *self._page("/check-ins", self._check_ins),
            Route("/errors/{fingerprint:str}/state", self.set_state, methods=["POST"]),
            Route("/suggest.json", self.suggest),
            Route("/live", self.live),
            Route("/metrics", Metrics(source, expected).answer),
            Route("/login", self.login, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
        ]
        app = Starlette(routes=self.routes, exception_handlers={404: self.not_found, 500: self.failed})
        self.guard = Guard(app, hosts=hosts, token=token, cookie=f"autoinst_{port}")

    def _page(self, path: str, make: Make, *more: str) -> list[Route | Mount]:
        """Return the routes of a page; those with an ending come first, since a parameter would take it in."""
        routes = [Route(f"{path}.{kind}", functools.partial(self.answer, make, kind)) for kind in ("json", "csv")]
        return [*routes, *(Route(each, functools.partial(self.answer, make, "html")) for each in (path, *more))]

    async def answer(self, make: Make, kind: str, request: Request) -> Response:
        """Return a page in one of its three forms."""
        if make == jobs.jobs and kind != "html":
            make = functools.partial(jobs.jobs, limit=jobs.EXPORTED)
        return await run_in_threadpool(self._answer, make, kind, request)

    def _answer(self, make: Make, kind: str, request: Request) -> Response:
        self.source.touch()
        version = self.source.version  # before the store is read: what changes meanwhile is asked for anew
        query = {name[:40]: value[:MAX_VALUE] for name, value in request.query_params.items()}
        path = request.url.path.removesuffix(f".{kind}")
        try:
            with self.source.store() as store:
                now = time.time_ns()
                with store.limited(QUERY_SECONDS):
                    window = windows.of(query, now, store.first())
                    flying = self.source.flying
                    ctx = Context(store, self.config, query, path, now, window, flying, self.source.frozen, version)
                    try:
                        page = make(ctx, **request.path_params)
                    except PageError as error:
                        page = problem(error)
                    return self.form(page, ctx, kind)
        except AutoinstError as error:
            return self.trouble(error, query, path, kind)

    def form(self, page: Page, ctx: Context, kind: str) -> Response:
        """Return `page` as `kind`."""
        if kind == "json":
            return render.as_json(page)
        if kind == "csv":
            return render.as_csv(page)
        more = {
            "nav_items": self.nav,
            "note": self.source.note or self.source.remarks.get(page.nav),
            "csrf": self.guard.csrf(),
            "home": self.source.home,
        }
        return render.html(self.templates, page, ctx, more)

    def trouble(self, error: AutoinstError, query: dict[str, str], path: str, kind: str) -> Response:
        """Say why the store does not answer."""
        if isinstance(error, SlowStoreError):
            title, text = "That took too long", "Ask for less: a shorter time, or fewer terms in the search."
        elif isinstance(error, OutdatedStoreError):
            title, text = "The store is being brought up to date", f"Try again in a moment. {error}"
        else:
            title, text = "The store does not answer", str(error)
        now = time.time_ns()
        with Store.empty() as store:
            ctx = Context(store, self.config, query, path, now, windows.of(query, now, None), (), frozen=True)
            return self.form(problem(PageError(503, title, text)), ctx, kind)

    def _error(self, ctx: Context, fingerprint: str) -> Page:
        return errors.error(ctx, fingerprint)

    def _check_ins(self, ctx: Context) -> Page:
        with self.source.own() as store:
            return check_ins.check_ins(ctx, store.check_ins())

    def _job(self, ctx: Context, record_id: str) -> Page:
        return job.job(ctx, record_id)

    async def set_state(self, request: Request) -> Response:
        """Note what a person says of an error."""
        form = await read_form(request)
        if not self.guard.is_csrf(form.get("csrf", "")):
            return PlainTextResponse("the form is too old: load the page again\n", 403)
        state = form.get("state", "")
        if state not in STATES:
            return PlainTextResponse("no such state\n", 400)
        return await run_in_threadpool(self._set_state, request.path_params["fingerprint"], state)

    def _set_state(self, fingerprint: str, state: str) -> Response:
        try:
            with self.source.store() as store:
                group = store.error(fingerprint)
            if group is None:
                return PlainTextResponse("no such error\n", 404)
            with self.source.writable() as store:
                store.set_error_state(group, state)
        except (HomeError, ForbiddenStoreError) as error:
            return PlainTextResponse(f"{error}\n", 403)
        except AutoinstError as error:
            return PlainTextResponse(f"{error}; try again\n", 503)
        return RedirectResponse(f"/errors/{group.fingerprint}", 303)

    async def suggest(self, request: Request) -> Response:
        """Return how the search `q` may go on."""

        def make(ctx: Context) -> Page:
            return Page("", "", {}, jobs.suggestions(ctx))

        return await run_in_threadpool(self._answer, make, "json", request)

    async def live(self, _: Request) -> Response:
        """Say, as server-sent events, whenever a page may look different."""
        if self.listeners >= LISTENERS:
            return PlainTextResponse("too many pages are live\n", 503, {"retry-after": "30"})
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self.listeners += 1
        try:
            seen = self.source.version
            yield f"retry: 2000\nevent: hello\ndata: {seen}\n\n"
            quiet = 0.0
            while True:
                self.source.listen()
                await asyncio.sleep(TICK_SECONDS)
                quiet += TICK_SECONDS
                version = self.source.version
                if version != seen:
                    seen, quiet = version, 0.0
                    yield f"event: change\ndata: {version}\n\n"
                elif quiet >= BEAT_SECONDS:
                    quiet = 0.0
                    yield ": still there\n\n"
        finally:
            self.listeners -= 1

    async def login(self, request: Request) -> Response:
        """Ask for the token, and keep in a cookie that it was known."""
        guard = self.guard
        if guard.token is None:
            return RedirectResponse("/", 303)
        given = request.query_params.get("token", "")
        if request.method == "POST":
            given = (await read_form(request)).get("token", "")
        if guard.is_token(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(guard.cookie, guard.session(), max_age=30 * 86400, httponly=True, samesite="lax")
            return response
        if given:
            await asyncio.sleep(0.5)  # guessing takes its time
        text = self.templates.get_template("login.html").render(wrong=bool(given))
        return Response(text, 401 if given else 200, media_type="text/html")

    async def not_found(self, request: Request, _: Exception) -> Response:
        """Answer an address that there is not."""

        def make(_: Context) -> Page:
            raise PageError(404, "No such page", "The address leads nowhere.")

        return await run_in_threadpool(self._answer, make, "html", request)

    async def failed(self, _: Request, error: Exception) -> Response:
        """Answer where a page failed."""
        return PlainTextResponse(f"this page failed: {type(error).__name__}\n", 500)


def problem(error: PageError) -> Page:
    """Return the page that says what is wrong."""
    return Page(
        "problem.html",
        error.title,
        {"text": error.text, "status": error.status},
        {"error": error.title, "detail": error.text},
        ("error", "detail"),
        [(error.title, error.text)],
        status=error.status,
    )


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; the guard has seen to it that it is short."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return {name: values[0] for name, values in parse_qs(body, max_num_fields=20).items()}
    except ValueError:
        return {}
