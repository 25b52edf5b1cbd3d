"""The process that answers for the dashboard: started once, ended when it hangs, and what is said
when it dies.
"""

import sys
import threading

import pytest

from lab.dashboard.state.inference_client import SERVE_COMMAND, InferenceWorker
from lab.errors import LabError

ECHO = (
    "import sys, json\nfor line in sys.stdin: print(json.dumps({'said': json.loads(line), 'pid':"
    " __import__('os').getpid()}), flush=True)"
)


def fake(script):
    return InferenceWorker((sys.executable, "-c", script))


@pytest.fixture
def closing():
    made = []
    yield lambda script: made.append(fake(script)) or made[-1]
    for worker in made:
        worker.close()
        worker._idle_timer and worker._idle_timer.cancel()


def test_one_process_answers_every_question_and_text_comes_back_as_it_was(closing):
    worker = closing(ECHO)
    worker.warm()
    first, second = worker.ask({"prompt": "β\n<b>"}), worker.ask({"prompt": "2"})
    assert first["said"] == {"prompt": "β\n<b>"} and first["pid"] == second["pid"]


def test_sessions_that_ask_at_once_each_get_their_own_answer(closing):
    worker, found = closing(ECHO), {}
    threads = [
        threading.Thread(
            target=lambda i=i: found.update({i: worker.ask({"prompt": i})["said"]["prompt"]})
        )
        for i in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i for i in range(10)}


def test_a_process_that_hangs_is_ended_and_the_next_question_starts_another(closing):
    worker = closing(
        "import sys, time\nfor line in sys.stdin: time.sleep(60) if 'slow' in line else print('{}',"
        " flush=True)"
    )
    with pytest.raises(LabError, match="No answer came within 0.5 s"):
        worker.ask({"prompt": "slow"}, 0.5)
    assert worker.ask({"prompt": "quick"}) == {}


def test_a_process_that_dies_is_quoted_and_the_next_question_starts_another(closing):
    worker = closing(
        "import sys\nfor line in sys.stdin:\n  if 'die' in line: sys.exit('out of memory')\n "
        " print('{}', flush=True)"
    )
    with pytest.raises(LabError, match="Its last message: out of memory"):
        worker.ask({"prompt": "die"})
    assert worker.ask({"prompt": "live"}) == {}


def test_an_error_of_the_answer_is_raised_and_the_process_goes_on(closing):
    worker = closing(
        'import sys\nfor line in sys.stdin: print(\'{"error": "no adapter"}\', flush=True)'
    )
    for _ in range(2):
        with pytest.raises(LabError, match="no adapter"):
            worker.ask({})


def test_the_dashboard_starts_the_command_that_serves():
    assert SERVE_COMMAND[1:] == ("-m", "lab", "talk", "--serve")
