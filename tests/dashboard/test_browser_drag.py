"""While a slider is dragged, the figure is redrawn without plotly; it must look as plotly draws it at
rest.
"""

import pytest
from support.browser import IDLE, SECONDS, opened, wait_for

FIGURE = "document.getElementById('{}').closest('.lab-explorer').querySelector('.lab-figure')"
MOVE = """([id, at]) => {
  const input = document.getElementById(id);
  input.value = String(at);
  input.dispatchEvent(new Event('input', { bubbles: true }));
}"""
PICTURE = """(plot) => {  // numbers in pixels, by what they belong to
  const numbers = (text) => (text.match(/-?\\d+(\\.\\d+)?(e-?\\d+)?/g) ?? []).map(Number);
  const heightsOf = (path) => {  // of a line at forty places, where it is not steep: plotly leaves points out
    const parts = path.split('M').filter(Boolean).map((part) => numbers(part));
    return Array.from({ length: 40 }, (_, k) => {
      const x = 7.3 + k * 12;
      for (const part of parts) for (let i = 0; i + 3 < part.length; i += 2) {
        const [x0, y0, x1, y1] = part.slice(i, i + 4);
        const slope = (y1 - y0) / (x1 - x0);
        if (x0 <= x && x <= x1 && Math.abs(slope) < 2) return y0 + slope * (x - x0);
      }
      return null;
    }).map((y) => (y === null || y < 0 || y > 300 ? null : y));
  };
  const each = (node, selector, read) => [...node.querySelectorAll(selector)].flatMap(read);
  const box = (node) => { const { x, y, width, height } = node.getBBox(); return [x, y, width, height]; };
  const found = {};
  plot.querySelectorAll('.cartesianlayer .trace').forEach((trace, t) => {
    found[`lines ${t}`] = each(trace, 'path.js-line', (line) => heightsOf(line.getAttribute('d')));
    found[`errors ${t}`] = each(trace, 'path.yerror', box);
    found[`points ${t}`] = each(trace, 'path.point', (point) => numbers(point.getAttribute('transform')).slice(0, 2));
    found[`symbols ${t}`] = each(trace, 'path.point', (point) => Math.round(point.getBBox().height));
    found[`bars ${t}`] = each(trace, 'g.point > path', box);
    found[`texts ${t}`] = each(trace, '.textpoint text', ({ x, y }) => [x, y].map((at) => at.baseVal[0].value));
    found[`words ${t}`] = each(trace, '.textpoint text', (text) => text.textContent);
  });
  const { y: top } = plot.getBoundingClientRect();
  found.ticks = each(plot, '.ytick text', (text) => [text.textContent, text.getBoundingClientRect().y - top]);
  found.legend = each(plot, '.legendtext', (text) => text.textContent);
  found.notes = each(plot, '.annotation-text', (text) => text.textContent);
  found.shapes = each(plot, '.shapelayer path', (shape) => numbers(shape.getAttribute('d')));
  return found;
}"""


def differences(quick: dict, whole: dict) -> list[str]:
    """What differs by more than a pixel."""
    found = [f"{name} is drawn once" for name in quick.keys() ^ whole.keys()]
    for name in quick.keys() & whole.keys():
        first, second = quick[name], whole[name]
        if len(first) != len(second):
            found.append(f"{name}: {len(first)} and {len(second)} numbers")
        for a, b in zip(first, second):
            both = isinstance(a, float | int) and isinstance(b, float | int)
            if abs(a - b) > 1 if both else a != b and isinstance(a, str):
                found.append(f"{name}: {a} and {b}")
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("address", "slider", "places"),
    [
        ("rlhf-dpo?guess=Skip", "lab-policies-beta", (3, 5, 9)),
        ("dpo?guess=Skip", "lab-loss-beta", (2, 20, 12)),
        ("dpo?guess=Skip", "lab-loss-step", (3, 9, 17)),
        ("dpo?guess=Skip", "lab-beta-runs-after", (1, 3, 5)),
        ("ipo-kto?guess=Skip", "lab-bounded-beta", (2, 16, 9)),
        ("ipo-kto?guess=Skip", "lab-kto-z", (2, 16, 9)),
        ("ipo-kto?guess=Skip", "lab-kto-up", (5, 9, 16)),  # the value axis grows
        ("grpo?from=the%20base&guess=Skip", "lab-group-G", (1, 3, 2)),
    ],
)
def test_a_dragged_figure_looks_as_plotly_draws_it_at_rest(page, server, address, slider, places):
    opened(page, server, address)
    figure = FIGURE.format(slider)
    page.wait_for_function(f"{figure}.querySelector('.main-svg')", timeout=SECONDS)
    page.wait_for_function(
        IDLE, timeout=SECONDS
    )  # what the page sends late draws its figures again
    count = f"[{figure}.dataset.draws, {figure}.dataset.moves].map((n) => Number(n ?? 0))"
    page.evaluate(MOVE, [slider, places[0]])  # the first move after another slider draws all
    draws, moves = page.evaluate(count)
    for place in places[1:]:
        page.evaluate(MOVE, [slider, place])
    assert page.evaluate(count) == [draws, moves + len(places) - 1]
    dragged = page.evaluate(f"({PICTURE})({figure})")
    assert any(dragged.values())
    page.evaluate(f"document.getElementById('{slider}').dispatchEvent(new Event('change'))")
    wait_for(lambda: page.evaluate(count)[0] > draws)
    assert differences(dragged, page.evaluate(f"({PICTURE})({figure})")) == []


def test_each_figure_is_drawn_once_when_its_page_opens(page, server):
    opened(page, server, "ipo-kto?guess=Skip")
    figures = "[...document.querySelectorAll('.lab-figure')]"
    page.wait_for_function(
        f"{figures}.length > 2 && {figures}.every((plot) => plot.querySelector('.main-svg'))",
        timeout=SECONDS,
    )
    page.wait_for_function(IDLE, timeout=SECONDS)
    page.evaluate("new Promise((done) => requestIdleCallback(done))")
    assert set(page.evaluate(f"{figures}.map((plot) => plot.dataset.draws)")) == {"1"}
