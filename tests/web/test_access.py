"""Who is let in, how, and what others cannot make a browser do."""

from __future__ import annotations

import re
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from durably import Durably
from durably.web import Access, OpenAccess, Person, Role, TokenAccess, create_app, lifespan, router
from durably.web.tokens import TRIES
from support.serving import serving
from support.web import OPERATOR, VIEWER, Shop

JSON = {"Content-Type": "application/json"}


def browser(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60)


def form_token(page: str) -> str:
    found = re.search(r'"X-Form-Token": "(\w+)"', page)
    assert found
    return found[1]


def test_a_link_logs_in_and_hides_its_token(shop: Shop) -> None:
    with browser(shop.url) as nobody:
        sent = nobody.get("/")
        assert (sent.status_code, sent.headers["location"]) == (303, "/login")
        sent = nobody.get("/?window=day")
        assert sent.headers["location"] == "/login?next=%2F%3Fwindow%3Dday"
        assert nobody.get("/nowhere").headers["location"] == "/login?next=%2Fnowhere"
        part = nobody.get("/", headers={"HX-Request": "true"})
        assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")
        program = nobody.get("/api/runs")
        assert program.status_code == 401
        assert program.headers["www-authenticate"] == "Bearer"
        assert program.headers["content-type"] == "application/problem+json"
        assert nobody.get("/healthz").json() == {"status": "ok"}

        entered = nobody.get("/", params={"a": "b", "token": OPERATOR})
        assert (entered.status_code, entered.headers["location"]) == (303, "/?a=b")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
        assert "Secure" not in cookie and OPERATOR not in cookie
        page = nobody.get("/")
        assert page.status_code == 200 and OPERATOR not in page.text
        nowhere = nobody.get("/nowhere")
        assert nowhere.status_code == 404 and "nothing at /nowhere" in nowhere.text
        assert "'unsafe-inline'" not in page.headers["content-security-policy"]

        left = nobody.post("/logout", data={"form_token": form_token(page.text)})
        assert (left.status_code, left.headers["location"]) == (303, "/login")
        assert nobody.get("/").status_code == 303


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ("/?a=1", "/?a=1"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\n/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_the_form_leads_only_to_this_site(shop: Shop, asked: str, where: str) -> None:
    with browser(shop.url) as person:
        sent = {"token": f" {OPERATOR} ", "next": asked, "name": "  Ada\nLovelace \x07"}
        answer = person.post("/login", data=sent)
        assert (answer.status_code, answer.headers["location"]) == (303, where)
        page = person.get("/").text
        queue = person.post("/api/queues/other/pause", headers=JSON | {"X-Form-Token": "x"})
        assert queue.status_code == 403
        good = JSON | {"X-Form-Token": form_token(page)}
        assert person.post("/api/runs/later/cancel", headers=good).status_code == 200
        events = person.get("/api/runs/later/events").json()["events"]
        assert events[-1]["data"]["by"] == "Ada Lovelace"


def test_a_viewer_looks_and_does_not_act(shop: Shop) -> None:
    with shop.client(VIEWER) as viewer:
        assert viewer.get("/api/runs/said").json()["output"] == "5: hello"
        assert viewer.get("/metrics").status_code == 200
        for path in ("runs/said/retry", "queues/a/pause", "runs/waiting/approve"):
            refused = viewer.post(f"/api/{path}", json={"call_id": "1.0"})
            assert refused.status_code == 403, path
            assert refused.json()["detail"] == "viewer may look, but not change anything."


def test_who_guesses_is_slowed_down_and_others_are_not() -> None:
    now = [0.0]
    access = TokenAccess("right one", clock=lambda: now[0])
    api = create_app(Durably("sqlite:///:none:", agents=[]), access=access)
    api.router.lifespan_context = FastAPI().router.lifespan_context  # The ledger is not needed.
    with serving(api, forwarded_allow_ips="*") as url, browser(url) as guesser:
        wrong = [guesser.post("/login", data={"token": f"t{n}"}) for n in range(TRIES)]
        assert {answer.status_code for answer in wrong} == {403}
        # Also the right one is not looked at any more, or it would be found by trying.
        right = guesser.post("/login", data={"token": "right one"})
        assert right.status_code == 429 and 0 < int(right.headers["retry-after"]) <= 60
        bearer = {"Authorization": "Bearer right one"}
        assert guesser.get("/api/runs", headers=bearer).status_code == 429
        elsewhere = {"X-Forwarded-For": "10.0.0.7"}
        other = guesser.post("/login", data={"token": "right one"}, headers=elsewhere)
        assert other.status_code == 303
        now[0] += 61
        assert guesser.post("/login", data={"token": "right one"}).status_code == 303


def test_an_application_that_says_nothing_of_access_is_not_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    app = Durably(f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.delenv("DURABLY_WEB_TOKEN", raising=False)
    api = FastAPI(lifespan=lifespan(app))
    api.include_router(router(app))
    told = re.search(r"log in with the token (\S+) ", capsys.readouterr().err)
    assert told
    monkeypatch.setenv("DURABLY_WEB_TOKEN", "one of our own")
    own = create_app(app)
    assert capsys.readouterr().err == ""
    for served, token in ((api, told[1]), (own, "one of our own")):
        with serving(served) as url, browser(url) as client:
            assert client.get("/api/runs").status_code == 401
            bearer = {"Authorization": f"Bearer {token}"}
            assert client.get("/api/runs", headers=bearer).status_code == 200


def test_a_session_ends_when_its_token_changes_and_no_cookie_gives_another_role() -> None:
    before, after = TokenAccess("one", "see"), TokenAccess("two", "see")

    class Sent:
        def __init__(self) -> None:
            self.cookie = ""

        def set_cookie(self, _name: str, value: str, **_: object) -> None:
            self.cookie = value

    from starlette.requests import Request

    request = Request({"type": "http", "scheme": "https", "headers": [], "path": "/"})
    cookies = {}
    for role in Role:
        sent = Sent()
        before.begin(request, sent, role, "", "/")  # type: ignore[arg-type]
        cookies[role] = sent.cookie
        assert before.person_of(sent.cookie) == Person(role.value, role)
    assert after.person_of(cookies[Role.OPERATOR]) is None
    assert after.person_of(cookies[Role.VIEWER]) == Person("viewer", Role.VIEWER)
    # Whoever knows the viewers' token can sign for viewers, and for nobody else.
    forged = TokenAccess("see", "see")
    sent = Sent()
    forged.begin(request, sent, Role.OPERATOR, "boss", "/")  # type: ignore[arg-type]
    assert before.person_of(sent.cookie) is None


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        (JSON | {"Sec-Fetch-Site": "same-origin"}, 200),
        (JSON | {"Sec-Fetch-Site": "cross-site"}, 403),
        (JSON | {"Sec-Fetch-Site": "same-site"}, 403),
        (JSON | {"Origin": "http://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        (FORM, 403),
        ({"Content-Type": "text/plain"}, 403),
        (FORM | {"Authorization": "Basic YTpi"}, 403),  # which browsers send by themselves
    ],
)
def test_another_site_cannot_make_a_browser_act(
    tmp_path: object, headers: dict[str, str], status: int
) -> None:
    app = Durably(f"sqlite:///{tmp_path}/ledger.db")
    with serving(create_app(app, access=OpenAccess())) as url, browser(url) as victim:
        assert victim.get("/").status_code == 200
        assert victim.post("/api/queues/a/pause", headers=headers).status_code == status


class OwnError(Exception):
    """An error of the application's own."""


def known(x_user: Annotated[str, Header()] = "") -> str:
    if x_user == "broken":
        raise OwnError
    if not x_user:
        raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Own"})
    return x_user


def person(user: Annotated[str, Depends(known)]) -> Person | None:
    if user == "stranger":
        return None
    return Person(user, Role.OPERATOR if user == "ada" else Role.VIEWER)


def test_an_application_lets_people_in_its_own_way_below_its_own_path(tmp_path: object) -> None:
    app = Durably(f"sqlite:///{tmp_path}/ledger.db")
    api = FastAPI(lifespan=lifespan(app))
    access = Access.by(person, login_url="/own/login")
    api.include_router(router(app, access=access), prefix="/ops")

    @api.exception_handler(OwnError)
    async def own(_: object, error: Exception) -> object:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("our own answer", 418)

    with serving(api, root_path="/proxied") as url, browser(url) as client:

        def ask(method: str, path: str, user: str = "", **more: str) -> httpx.Response:
            return client.request(method, f"/ops{path}", headers={"X-User": user} | more)

        assert ask("GET", "/healthz").status_code == 200
        unknown = ask("GET", "/api/runs")
        assert (unknown.status_code, unknown.headers["www-authenticate"]) == (401, "Own")
        assert unknown.json()["detail"] == "Who are you?"
        assert ask("GET", "/api/runs", "stranger").status_code == 401
        away = ask("GET", "/", "stranger")
        assert away.headers["location"] == "/own/login?next=%2Fproxied%2Fops%2F"
        assert ask("GET", "/api/runs", "broken").text == "our own answer"
        assert ask("GET", "/login").status_code == 404
        assert ask("GET", "/api/runs/none", "eve").json()["type"] == "urn:durably:run-not-found"
        assert ask("DELETE", "/api/runs", "eve").headers["allow"] == "GET, POST"
        assert ask("POST", "/api/queues/a/pause", "eve").status_code == 403
        assert ask("POST", "/api/queues/a/pause", "ada").status_code == 200

        page = ask("GET", "/", "ada")
        assert page.status_code == 200 and 'href="/proxied/ops/' in page.text
        cookie = page.headers["set-cookie"]
        assert "durably_form=" in cookie and "Path=/proxied/ops/" in cookie
        # The form's token goes with the browser's cookie, and with no other's.
        forms = FORM | {"X-Form-Token": form_token(page.text)}
        without = ask("POST", "/api/queues/a/resume", "ada", **forms)
        assert without.status_code == 403
        sent = forms | {"Cookie": cookie.partition(";")[0]}
        assert ask("POST", "/api/queues/a/resume", "ada", **sent).status_code == 200
