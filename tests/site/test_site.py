"""The documentation site in a real browser, from a plain static server: figures move without the
lab, nothing is asked of another server, and a telephone can drag.
"""

import functools
import http.server
import json
import math
import os
import re
import subprocess
import sys
import threading
from statistics import fmean, stdev

import pytest
from support.browser import CHROMIUM, ROOT, SECONDS, VIEWPORT, box_at_rest, wait_for

from lab.course.build_notebooks import notebooks

pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

PLOT = "document.querySelector('[data-figure=\"{}\"] .lab-figure')"
ARRAYS = """(trace) => ({
  name: trace.name, type: trace.type, x: [...trace.x ?? []], y: [...trace.y ?? []]})"""
LIGHT_TEXT, DARK_TEXT = "#1F2328", "#ECEAE6"
MARGINS = json.loads((ROOT / "lab/assets/results/margins.json").read_text("utf-8"))["rows"]
TELEPHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site: `LAB_SITE`, where `make docs` has just written it, else a new one."""
    if built := os.environ.get("LAB_SITE"):
        return ROOT / built
    if not CHROMIUM and not os.environ.get("CI"):
        pytest.skip("No Chromium on this machine; install it to run the browser tests.")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, address):
    """Opens pages; at the end no request has left the server, and the console is empty."""
    contexts, trouble = [], []

    def opened(path, base=address, **options):
        context = browser.browser.new_context(
            **{"color_scheme": "light", "viewport": VIEWPORT} | options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("response", lambda answer: answer.status < 400 or trouble.append(answer.url))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((base, "data:", "blob:")) or trouble.append(asked.url)
            ),
        )
        page.goto(f"{base}/{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


def drawn(page, figure):
    """Wait until the figure is there, and scroll to it."""
    page.locator(f'[data-figure="{figure}"]').scroll_into_view_if_needed(timeout=SECONDS)
    page.locator(f'[data-figure="{figure}"] .main-svg').first.wait_for(timeout=SECONDS)


def traces(page, figure):
    return page.evaluate(f"{PLOT.format(figure)}.data.map({ARRAYS})")


def slider(page, figure, name):
    return page.locator(f"#lab-{figure}-{name}")


def place(page, figure, name, share):
    """The point of a slider at this share of its track."""
    box = box_at_rest(slider(page, figure, name))
    return box["x"] + 9 + share * (box["width"] - 18), box["y"] + box["height"] / 2


def value(page, figure, name):
    return float(slider(page, figure, name).get_attribute("aria-valuetext"))


def at_present(page, figure, name):
    return page.evaluate(
        "(input) => input.value / input.max", slider(page, figure, name).element_handle()
    )


def dpo_loss(beta, margin):
    return math.log1p(math.exp(-beta * margin))


def beta_curve(page, beta):
    return next(t for t in traces(page, "dpo-loss") if t["name"] == f"β = {beta:g}")


def test_dragging_beta_moves_the_loss_curve_before_the_mouse_is_released(visit):
    page = visit("live/dpo.html")
    drawn(page, "dpo-loss")
    assert value(page, "dpo-loss", "beta") == 0.1
    page.mouse.move(*place(page, "dpo-loss", "beta", at_present(page, "dpo-loss", "beta")))
    page.mouse.down()
    page.mouse.move(*place(page, "dpo-loss", "beta", 0.8), steps=5)
    wait_for(lambda: value(page, "dpo-loss", "beta") > 0.2)
    beta = value(page, "dpo-loss", "beta")
    curve = beta_curve(page, beta)
    assert len(curve["x"]) > 200
    assert curve["y"] == pytest.approx([dpo_loss(beta, h) for h in curve["x"]], rel=1e-4, abs=1e-6)
    assert f"β = {beta:g} " in page.locator(".lab-says").first.inner_text()
    page.mouse.up()


def test_two_sliders_move_one_figure(visit):
    """The pairs of the recorded run at another step lie on the curve of another β."""
    page = visit("live/dpo.html")
    drawn(page, "dpo-loss")
    for name, key in (("beta", "End"), ("step", "Home"), ("step", "ArrowRight")):
        slider(page, "dpo-loss", name).press(key)
    beta, step = value(page, "dpo-loss", "beta"), int(value(page, "dpo-loss", "step"))
    assert beta == 1.0 and step > 0
    run = next(row for row in MARGINS if row["name"] == "DPO" and row["seed"] == 0)
    margins = run["margins"][run["steps"].index(step)]

    def pairs():
        return next(t for t in traces(page, "dpo-loss") if len(t["x"]) == len(margins))

    # Until both sliders rest, the figure is that of the slider that moved last.
    expected = [loss for h in margins if (loss := dpo_loss(beta, h)) < 3.9]  # the axis ends above
    wait_for(
        lambda: (
            pairs()["x"] == pytest.approx(margins, rel=1e-4)
            and [y for y in pairs()["y"] if y < 3.9] == pytest.approx(expected, rel=1e-3, abs=1e-5)
        )
    )
    assert f"{step} updates" in page.locator(".lab-says").first.inner_text()


def test_a_finger_drags_g_on_a_telephone(visit):
    page = visit("live/grpo.html", **TELEPHONE)
    drawn(page, "grpo-group")
    touch = page.context.new_cdp_session(page)

    def finger(kind, share=None):
        at = [] if share is None else [place(page, "grpo-group", "G", share)]
        points = [{"x": x, "y": y} for x, y in at]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    assert value(page, "grpo-group", "G") == 8
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.98)):
        finger(kind, share)
    wait_for(lambda: value(page, "grpo-group", "G") == 32)
    finger("touchEnd")
    bars = [t for t in traces(page, "grpo-group") if t["type"] == "bar"]
    advantages = sorted(a for bar in bars for a in bar["y"])
    rewards = sorted(
        reward
        for trace in traces(page, "grpo-group")
        if trace["type"] == "scatter" and trace["name"] in {bar["name"] for bar in bars}
        for reward in trace["y"]
    )
    assert len(advantages) == len(rewards) == 32
    expected = [(r - fmean(rewards)) / stdev(rewards) for r in rewards]
    assert advantages == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("path", ["index", "live/dpo", "live/grpo", "notebooks/06-grpo"])
def test_no_page_is_wider_than_a_telephone(visit, path):
    page = visit(f"{path}.html", **TELEPHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_figures_follow_the_scheme_of_the_site(visit):
    page = visit("live/rlhf.html")
    drawn(page, "rlhf-policies")
    colour = f"{PLOT.format('rlhf-policies')}._fullLayout.font.color.toUpperCase()"
    assert page.evaluate(colour) == LIGHT_TEXT
    for _ in range(2):  # the first press leaves the system's scheme, which is light
        page.locator("label[for^=__palette]:visible").click()
    page.wait_for_function(f"{colour} === '{DARK_TEXT}'", timeout=SECONDS)


def test_the_system_s_dark_scheme_is_followed(visit):
    page = visit("live/rlhf.html", color_scheme="dark")
    drawn(page, "rlhf-policies")
    colour = f"{PLOT.format('rlhf-policies')}._fullLayout.font.color.toUpperCase()"
    assert page.evaluate(colour) == DARK_TEXT


def test_every_page_opens_without_another_server_and_draws_its_formulas(visit, site, address):
    paths = [path.relative_to(site).as_posix() for path in site.rglob("*.html")]
    assert sum(path.startswith("notebooks/") for path in paths) == len(notebooks())
    page = visit("index.html")
    for path in paths:
        page.goto(f"{address}/{path}")
        left = page.evaluate(
            "[...document.querySelectorAll('.arithmatex:not(:has(.katex))')].length"
        )
        assert left == page.locator(".katex-error").count() == 0, path
        for figure in page.locator(".lab-live").evaluate_all(
            "all => all.map(f => f.dataset.figure)"
        ):
            drawn(page, figure)


def test_the_folder_opens_without_any_server(visit, site):
    page = visit("live/grpo.html", base=site.as_uri())
    drawn(page, "grpo-group")
    slider(page, "grpo-group", "G").press("Home")
    wait_for(
        lambda: sum(len(t["y"]) for t in traces(page, "grpo-group") if t["type"] == "bar") == 2
    )


def test_the_site_is_small_and_holds_plotly_once(site):
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert len([path for path in files if "plotly" in path.name]) == 1


def test_no_page_names_another_server_for_what_it_loads(site):
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="https?:'
    )
    assert [path for path in site.rglob("*.html") if loads.search(path.read_text("utf-8"))] == []
    styles = [
        path
        for path in site.rglob("*.css")
        if re.search(r"url\(['\"]?https?:|@import", path.read_text("utf-8"))
    ]
    assert styles == []
