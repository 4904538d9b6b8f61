"""The files of the live page as the server sends them."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI

from framegate.serve.pages import live_page

FILES = ("/", "/page.css", "/page.js")


class Client:
    """Requests to an app in this process."""

    def __init__(self) -> None:
        app = FastAPI()
        app.include_router(live_page('a "name" <b>'))
        self.transport = httpx.ASGITransport(app)

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://page") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(ask())


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize("path", FILES)
def test_every_file_comes_with_its_guards(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["permissions-policy"].startswith("camera=(self)")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].endswith("; charset=utf-8")


@pytest.mark.parametrize("path", FILES)
def test_a_browser_that_has_the_file_gets_304(client: Client, path: str) -> None:
    etag = client.get(path).headers["etag"]
    again = client.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_models_name_is_escaped(client: Client) -> None:
    assert '<meta name="framegate-model" content="a &quot;name&quot; &lt;b&gt;">' in client.get("/").text


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(client: Client) -> None:
    page = client.get("/").text
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page) == []
    assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]
    for path in FILES:
        urls = set(re.findall(r"https?://[\w./]+", client.get(path).text))
        assert urls <= {"http://www.w3.org/2000/svg"}, path  # a name, not an address


def test_the_page_is_no_part_of_the_api(client: Client) -> None:
    assert client.get("/openapi.json").json()["paths"] == {}
