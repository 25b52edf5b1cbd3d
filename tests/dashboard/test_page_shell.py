"""The HTML of a page says where the server is and what to fetch; other answers stay as they are."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
import streamlit
from support.browser import Server

from lab.dashboard.components.js_component import PLOTLY_FILE_NAME
from lab.dashboard.pages.page_shell import PageShell

ROOT = Path(__file__).parents[2]
HTML = b"<!DOCTYPE html><html><head><title>x</title></head></html>"


def answer(path, accept="text/html,*/*", kind="text/html; charset=utf-8", status=200):
    """Status, headers and body of an answer that comes in two parts, and the request as it was handed
    on.
    """
    requests, sent = [], []

    async def app(scope, receive, send):
        requests.append(scope)
        headers = [(b"content-type", kind.encode()), (b"etag", b'"1"'), (b"content-length", b"57")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": HTML[:20], "more_body": True})
        await send({"type": "http.response.body", "body": HTML[20:]})

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(b"accept", accept.encode()), (b"if-none-match", b'"1"')],
    }
    asyncio.run(PageShell(app)(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return dict(sent[0]["headers"]), body.decode(), dict(requests[0]["headers"])


@pytest.mark.parametrize(
    ("path", "relation"), [("/", "prefetch"), ("/dpo", "preload"), ("/lab/grpo", "preload")]
)
def test_a_page_names_the_server_and_plotly(path, relation):
    headers, body, request = answer(path)
    assert body.count("BACKEND_BASE_URL") == 1 and body.endswith("<title>x</title></head></html>")
    assert f'<link rel="{relation}" as="script" href="./app/static/{PLOTLY_FILE_NAME}">' in body
    assert headers[b"content-length"] == str(len(body)).encode() and b"etag" not in headers
    assert b"if-none-match" not in request


def test_a_page_names_each_module_that_streamlit_fetches_late_once():
    names = re.findall(
        r'rel="modulepreload" crossorigin href="./static/js/([^"]+)"', answer("/")[1]
    )
    folder = Path(streamlit.__file__).parent / "static"
    assert {"PageLink", "Html", "BidiComponent"} <= {name.partition(".")[0] for name in names}
    assert len(set(names)) == len(names)
    for name in names:
        assert name not in (folder / "index.html").read_text("utf-8")
        for imported in re.findall(
            r'"\./([^"]+\.js)"', (folder / "static/js" / name).read_text("utf-8")
        ):
            assert imported in names or imported in (folder / "index.html").read_text("utf-8")


def test_the_server_is_at_the_address_without_the_page():
    pattern = re.search(r"replace\(/(.*)/, '/'\)", answer("/dpo")[1]).group(1).replace(r"\/", "/")
    found = {
        path: re.sub(pattern, "/", path)
        for path in ("/", "/dpo", "/dpo/", "/proxy/8501/rlhf-dpo", "/proxy/8501/", "/lab")
    }
    assert found == {
        "/": "/",
        "/dpo": "/",
        "/dpo/": "/",
        "/proxy/8501/rlhf-dpo": "/proxy/8501/",
        "/proxy/8501/": "/proxy/8501/",
        "/lab": "/lab",
    }


@pytest.mark.parametrize("other", [{"accept": "*/*"}, {"kind": "text/javascript"}, {"status": 404}])
def test_no_other_answer_is_changed(other):
    headers, body, _ = answer("/static/a.js", **other)
    assert body.encode() == HTML and headers[b"etag"] == b'"1"'


def test_the_server_imports_every_page_before_it_answers_and_not_torch():
    """Plotly looks for pandas among the imported modules, also while another thread imports it. The one
    other thread waits before it imports torch.
    """
    code = """
import asyncio, sys, threading
from lab.dashboard.pages.preload import pages_imported
from lab.dashboard.pages.registry import PAGES
async def begin():
    async with pages_imported(None):
        assert {f"lab.dashboard.pages.{page.module}" for page in PAGES} <= set(sys.modules)
        assert [type(t) for t in threading.enumerate()[1:]] == [threading.Timer]
        assert hasattr(sys.modules["pandas"], "Series") and "torch" not in sys.modules
asyncio.run(begin())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200, cwd=ROOT)


def test_a_server_that_starts_says_where_it_is_and_nothing_else(tmp_path):
    server = Server(tmp_path)
    try:
        said = [line.strip() for line in server.said().splitlines() if line.strip()]
        assert len(said) == 2 and said[0].startswith("You can now view"), said
        assert said[1].endswith(f":{server.port}")
    finally:
        server.kill()
