"""The explorer in a real browser: a slider redraws its figure at every move, without the server,
and keeps zoom, address and keyboard.
"""

import re

import pytest
from support.browser import SECONDS, VIEWPORT, box_at_rest, opened, wait_for

FIGURE = "document.getElementById('lab-policies-beta').closest('.lab-explorer').querySelector('.lab-figure')"
TRACE = f"{FIGURE}.data[1].y.join()"  # the optimal policy's bars


@pytest.fixture(scope="module")
def visited(browser, warm_server):
    page = opened(browser.new_page(), warm_server, "rlhf-dpo?beta=2")
    slider(page).scroll_into_view_if_needed(timeout=SECONDS)
    page.wait_for_function(f"{FIGURE}.querySelector('.main-svg')")
    return page


@pytest.fixture
def derivation(visited):
    """The page as it was opened, whatever a test before has moved."""
    visited.mouse.up()
    visited.emulate_media(color_scheme="light")
    visited.set_viewport_size(VIEWPORT)
    if asked(visited) != "2":
        visited.get_by_role("button", name=re.compile("β.*: 2$")).click()
        wait_for(lambda: asked(visited) == "2")
    return visited


def slider(page):
    return page.get_by_role("slider", name=re.compile("β"))


def asked(page):
    """β in the page's address."""
    return page.evaluate("new URL(location.href).searchParams.get('beta')")


def test_a_drag_moves_the_curve_before_the_slider_is_released_and_then_the_address(derivation):
    page = derivation
    assert slider(page).get_attribute("aria-valuetext") == "2"
    box = box_at_rest(slider(page))
    draws, betas = [], set()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    page.mouse.down()
    for place in (0.5, 0.4, 0.3, 0.2, 0.1):
        page.mouse.move(box["x"] + box["width"] * place, box["y"] + box["height"] / 2)
        draws.append(page.evaluate(TRACE))
        betas.add(asked(page))
    assert len(set(draws)) == 5 and betas == {"2"}
    assert page.get_by_text(re.compile(r"^At β = 0\.\d+ the optimal policy")).is_visible()
    page.mouse.up()
    value = slider(page).get_attribute("aria-valuetext")
    wait_for(lambda: asked(page) == value)
    page.reload()
    slider(page).wait_for(timeout=SECONDS)
    page.wait_for_function(f"{FIGURE}.querySelector('.main-svg')")
    assert (
        slider(page).get_attribute("aria-valuetext") == value and page.evaluate(TRACE) == draws[-1]
    )


def test_arrow_keys_and_presets_move_the_slider_and_the_page_follows(derivation):
    page = derivation
    slider(page).press("ArrowRight")
    assert slider(page).get_attribute("aria-valuetext") == "2.5"
    wait_for(lambda: asked(page) == "2.5")
    page.get_by_role("button", name=re.compile("β.*: 0.5$")).click()
    assert slider(page).get_attribute("aria-valuetext") == "0.5"
    wait_for(lambda: asked(page) == "0.5")
    page.get_by_text("The value at the maximum is").wait_for(timeout=SECONDS)


def test_a_zoom_survives_moves_and_answers_of_the_server(derivation):
    page = derivation
    box = box_at_rest(page.locator(".lab-explorer", has=slider(page)).locator(".nsewdrag"))
    page.mouse.move(box["x"] + 100, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 110, box["y"] + 200, steps=4)
    page.mouse.up()
    zoomed = f"{FIGURE}._fullLayout.yaxis.range.map((v) => v.toFixed(4)).join()"
    before = wait_for(
        lambda: (
            page.evaluate(zoomed)
            if page.get_by_role("button", name="Whole figure").is_visible()
            else None
        )
    )
    slider(page).press("ArrowLeft")
    wait_for(lambda: asked(page) == "1.5")
    assert page.evaluate(zoomed) == before
    page.get_by_role("button", name="Whole figure").click()
    wait_for(lambda: page.evaluate(zoomed) == "0.0000,1.0200")


def test_the_figure_says_what_it_shows_to_those_who_do_not_see_it(derivation):
    assert (
        derivation.get_by_role("img", name=re.compile("Probability of five responses")).count() == 1
    )


def test_the_figure_takes_the_theme_and_the_width_of_the_page(derivation):
    page = derivation
    colour = f"{FIGURE}.querySelector('.xtick text').style.fill"
    diagram = "document.querySelector('.lab-diagram-picture').innerHTML"  # drawn by the server
    light, drawn = page.evaluate(colour), page.evaluate(diagram)
    page.emulate_media(color_scheme="dark")
    wait_for(lambda: page.evaluate(colour) != light and page.evaluate(diagram) != drawn)
    page.set_viewport_size({"width": 390, "height": 800})
    wait_for(lambda: page.evaluate(f"{FIGURE}.querySelector('.main-svg').clientWidth") < 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_loss_of_dpo_and_its_pairs_follow_both_sliders_and_time_can_play(page, server):
    opened(page, server, "dpo?beta=0.1&step=0")
    state = (
        "(() => { const [curve, , pairs] ="
        " document.querySelector('.lab-figure').data.slice(2); return [curve.y[0],"
        " pairs.x.join()]; })()"
    )
    first = page.evaluate(state)
    page.get_by_role("slider", name="β", exact=True).press("ArrowRight")
    second = page.evaluate(state)
    assert second[0] > first[0] and second[1] == first[1]
    page.get_by_role("button", name="Play or pause: step").click()
    wait_for(lambda: page.evaluate(state)[1] != first[1])
    assert page.evaluate(state)[0] == second[0]
