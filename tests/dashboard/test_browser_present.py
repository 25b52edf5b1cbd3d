"""Present mode in a real browser: one figure on the screen, keys, the QR code, and a room that votes."""

from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from support.browser import IDLE, SECONDS, go_to, opened
from support.qr_code import decode, modules

FILLS = """() => {
  const box = document.querySelector('[data-lab-presented]')?.getBoundingClientRect();
  if (!box) return false;
  const share = Math.max(box.width / innerWidth, box.height / innerHeight);
  return share > 0.7 && box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight + 1;
}"""
VISIBLE_PROSE = """() => [...document.querySelectorAll('.stMarkdown p, .lab-says, .stCaptionContainer')]
  .filter((part) => part.getClientRects().length && getComputedStyle(part).visibility === 'visible').length"""
TYPE = """() => { const tick = document.querySelector('[data-lab-presented] .ytick text');
  return tick ? tick.getBoundingClientRect().height : 0; }"""
AGAIN_IN_VIEW = """() => [...document.querySelectorAll('.lab-present-ballot button')].some((button) =>
  button.textContent === 'Vote again' && button.getBoundingClientRect().bottom <= innerHeight)"""
COUNT_MOUNTS = """
window.mounts = 0;
new MutationObserver((changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach((node) => {
  if (node.matches?.('.lab-present-root')) window.mounts += 1;
  window.mounts += node.querySelectorAll?.('.lab-present-root').length ?? 0;
}))).observe(document, { childList: true, subtree: true });"""
QUESTION = "a group becomes four times as large"


@contextmanager
def visitor(browser, **options):
    """A page of another person's browser: nothing is shared with the others, cookies least of all."""
    context = browser.browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    try:
        yield context.new_page()
    finally:
        context.close()


def shown_address(page):
    """What the QR code on the screen says."""
    image = page.locator(".lab-present-code svg")
    image.wait_for(timeout=SECONDS)
    size = int(image.get_attribute("viewBox").split()[2]) - 8
    return decode(modules(size, image.locator("path").get_attribute("d")))


def keys_of(page, text):
    page.locator(".lab-present-keys", has_text=text).wait_for(timeout=SECONDS)


def press(page, key, address):
    page.keyboard.press(key)
    page.wait_for_function(f"location.search.includes('{address}')", timeout=SECONDS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_figure_fills_the_screen_and_the_arrow_keys_step(browser, server, scheme):
    with visitor(browser, color_scheme=scheme) as page:
        opened(page, server, "grpo?from=the%20base")
        before = page.evaluate(
            "document.querySelector('.lab-figure .ytick text').getBoundingClientRect().height"
        )
        page.get_by_role("button", name="Present").click()
        page.wait_for_function(FILLS, timeout=SECONDS)
        page.wait_for_function("location.search.includes('present=1')", timeout=SECONDS)
        page.wait_for_function(f"({TYPE})() > 1.2 * {before}", timeout=SECONDS)
        page.wait_for_function(f"({VISIBLE_PROSE})() === 0", timeout=SECONDS)
        page.get_by_role("heading", name="Is this completion better").wait_for(timeout=SECONDS)

        keys_of(page, "← → G · ↑ ↓ figure 1 of")
        slider = page.locator("[data-lab-presented] input[type=range]")
        place = int(slider.input_value())
        press(page, "ArrowRight", "G=16")
        assert int(slider.input_value()) == place + 1
        page.wait_for_function(IDLE, timeout=SECONDS)
        press(page, "ArrowLeft", "G=8")

        page.keyboard.press("ArrowDown")
        keys_of(page, "figure 2 of")
        page.wait_for_function("location.search.includes('figure=2')", timeout=SECONDS)
        assert page.locator("[data-lab-presented]").count() == 1
        page.reload()
        keys_of(page, "figure 2 of")
        page.keyboard.press("PageUp")
        keys_of(page, "figure 1 of")

        page.keyboard.press("Escape")
        page.wait_for_function("!location.search.includes('present')", timeout=SECONDS)
        page.get_by_role("heading", name="Is this completion better").wait_for(timeout=SECONDS)
        assert page.locator("[data-lab-presented]").count() == 0
        assert page.evaluate(VISIBLE_PROSE) > 0


@pytest.mark.timeout(600)
def test_present_mode_is_mounted_once_so_that_it_hears_every_key(page, server):
    page.add_init_script(COUNT_MOUNTS)
    opened(page, server, "grpo?from=the%20base")
    page.get_by_role("button", name="Present").click()
    keys_of(page, "← → G · ↑ ↓ figure 1 of")
    slider = page.locator("[data-lab-presented] input[type=range]")
    place = int(slider.input_value())
    for number in range(10):  # each as soon as the server has heard of the one before
        key, place, address = (
            ("ArrowLeft", place - 1, "G=8") if number % 2 else ("ArrowRight", place + 1, "G=16")
        )
        press(page, key, address)
        assert int(slider.input_value()) == place
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('present')", timeout=SECONDS)
    page.wait_for_function(IDLE, timeout=SECONDS)
    go_to(page, "DPO")
    page.get_by_role("button", name="Present").click(timeout=SECONDS)
    keys_of(page, "Esc leaves")
    assert page.evaluate("window.mounts") == 1


@pytest.mark.timeout(600)
def test_the_qr_code_leads_to_the_page_and_says_who_can_open_it(page, server):
    page.goto(f"{server.url}/dpo?present=1&beta=0.2")
    address = urlsplit(shown_address(page))
    query = parse_qs(address.query)
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{server.url}/dpo"
    assert query["beta"] == ["0.2"] and "present" not in query
    page.wait_for_function(f"location.search.includes('room={query['room'][0]}')", timeout=SECONDS)
    page.get_by_text("Only this computer can open this address.").wait_for(timeout=SECONDS)


@pytest.mark.timeout(600)
def test_the_playground_fills_the_screen_and_the_arrow_keys_change_its_method(page, server):
    page.set_viewport_size({"width": 1920, "height": 1080})
    page.goto(f"{server.url}/?present=1")
    page.wait_for_function(FILLS, timeout=SECONDS)
    keys_of(page, "← → method · Esc leaves")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.search.includes('play=dpo')", timeout=SECONDS)
    assert "live=" not in page.url


def answer(page, address, option):
    """Open the room's address and answer the question."""
    page.goto(address)
    button = page.get_by_test_id("stMain").get_by_text(option, exact=True).first
    button.click(timeout=SECONDS)


def votes(page, text):
    page.locator(".lab-total", has_text=text).wait_for(timeout=SECONDS)


@pytest.mark.timeout(600)
def test_a_room_votes_and_the_presenter_reveals(browser, server):
    with (
        visitor(browser) as presenter,
        visitor(browser) as first,
        visitor(browser) as second,
        visitor(browser) as stranger,
    ):
        presenter.goto(f"{server.url}/grpo?from=the%20base&present=1")
        address = shown_address(presenter)
        votes(presenter, "0 votes so far")
        answer(first, address, "to half")
        votes(presenter, "1 vote so far")
        answer(second, address, "hardly")
        votes(presenter, "2 votes so far")

        first.get_by_text("Your vote counts").wait_for(timeout=SECONDS)
        first.reload()
        first.get_by_text("Your vote counts").wait_for(timeout=SECONDS)
        stranger.goto(f"{server.url}/grpo?from=the%20base&present=1&room=ZZZZ")
        votes(stranger, "0 votes so far")
        assert parse_qs(urlsplit(shown_address(stranger)).query)["room"] == ["ZZZZ"]
        votes(presenter, "2 votes so far")
        assert presenter.locator(".lab-veiled b").all_inner_texts() == ["?"] * 3
        assert first.get_by_text("Right.").count() == 0

        presenter.get_by_role("button", name="Reveal").click()
        presenter.locator(".lab-present-ballot ul:not(.lab-veiled)").wait_for(timeout=SECONDS)
        bars = presenter.locator(".lab-present-ballot li b")
        assert bars.all_inner_texts() == ["0", "1", "1"]
        presenter.locator(".lab-present-verdict", has_text="Most votes: to half. Right.").wait_for(
            timeout=SECONDS
        )
        presenter.wait_for_function(AGAIN_IN_VIEW, timeout=SECONDS)
        first.get_by_text("Right.").wait_for(timeout=SECONDS)
        answer(second, address, "to half")  # too late
        second.get_by_text("Right.").wait_for(timeout=SECONDS)
        assert bars.all_inner_texts() == ["0", "1", "1"]
        presenter.get_by_role("button", name="Vote again").click()
        votes(presenter, "so far")
