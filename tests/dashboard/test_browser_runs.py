"""The pages Runs and Talk in a real browser: replay, take away, delete and undo; a prompt that is
answered by a model.
"""

import pytest
from support.browser import SECONDS, box_at_rest, wait_for

from lab.config.methods import make_config
from lab.runs.folder import create
from lab.runs.records import Event, StepRecord
from lab.storage.jsonl import append_rows

MOVES = 12


def finished(root, name, steps=100, **knobs):
    folder = create(root / name, make_config("dpo", {"steps": steps, **knobs}))
    gold = {i: {"gold/accuracy": 0.4 + i / 250} for i in range(0, steps + 1, 5)}
    rows = [
        StepRecord(i, {"loss": 0.7 - i / 1000} | gold.get(i, {}), i * 0.5, i * 100).row()
        for i in range(steps + 1)
    ]
    append_rows(folder.path / "metrics.jsonl", [*rows, Event(steps, "finished").row()])
    folder.write_status("finished", steps)


@pytest.mark.timeout(600)
def test_a_replay_follows_every_move_and_a_deleted_run_is_taken_back(page, server):
    finished(server.runs, "a")
    finished(server.runs, "b", seed=1)
    page.goto(f"{server.url}/runs?run=a&run=b&mean=true")
    plot, slider = page.locator(".lab-plot"), page.get_by_label("Replay up to step")
    plot.locator(".main-svg").first.wait_for(timeout=SECONDS)
    assert page.locator(".lab-legend").get_by_text("2 seeds of a").is_visible()

    box = box_at_rest(slider)
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    seen = []
    for i in range(1, MOVES + 1):
        page.mouse.move(box["x"] + box["width"] * (1 - 0.05 * i), box["y"] + box["height"] / 2)
        seen.append(int(plot.get_attribute("data-until")))
    assert seen == sorted(set(seen), reverse=True) and "step=" not in page.url, (
        "every move is followed before the hand lets go"
    )
    widths = plot.evaluate(
        "p => [...p.querySelectorAll('clipPath.plotclip rect')].map((r) => r.getAttribute('width')"
        " / r.dataset.width)"
    )
    assert all(abs(w - seen[-1] / 100) < 0.05 for w in widths)
    page.mouse.up()
    page.wait_for_url(f"**step={seen[-1]}*", timeout=SECONDS)
    slider.press("ArrowRight")
    page.wait_for_url(f"**step={seen[-1] + 1}*", timeout=SECONDS)

    with page.expect_download(timeout=SECONDS) as picture:
        page.get_by_role("button", name="Save picture").click()
    assert picture.value.path().read_bytes()[:4] == b"\x89PNG"
    page.get_by_text("Download", exact=True).click()
    with page.expect_download(timeout=SECONDS) as numbers:
        page.get_by_role("button", name="Metrics, CSV").click()
    assert len(numbers.value.path().read_text().splitlines()) == 102

    page.get_by_role("button", name="Delete 2 selected runs").click(timeout=SECONDS)
    wait_for(lambda: not (server.runs / "a").exists() and not (server.runs / "b").exists())
    page.get_by_role("button", name="Undo").click(timeout=SECONDS)
    wait_for(lambda: all((server.runs / name / "config.json").exists() for name in "ab"))


@pytest.mark.timeout(600)
def test_a_typed_prompt_is_answered_by_the_model_and_what_is_no_prompt_is_refused(page, server):
    page.goto(f"{server.url}/talk?guess=Skip")
    first = page.locator(".lab-token").first
    first.wait_for(timeout=SECONDS)
    assert page.locator(".lab-token-line").count() == 2
    prompt = page.get_by_role("combobox", name="Prompt: pick one")
    prompt.click()
    prompt.fill("<b>")
    prompt.press("Enter")
    page.get_by_text("A chain cannot hold").wait_for(timeout=SECONDS)
    prompt.click()
    prompt.fill("9*8-7+1")
    prompt.press("Enter")
    page.get_by_text("Sampled now").wait_for(timeout=2 * SECONDS)
    assert page.get_by_text("The right answer is 66").is_visible() and "prompt=9" in page.url
    line = page.locator(".lab-token-line").last
    line.focus()
    line.press("End")
    assert "<eos>" in page.locator(".lab-token-says").last.text_content()
