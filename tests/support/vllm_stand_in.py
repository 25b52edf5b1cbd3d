"""A stand-in for a vLLM server: it speaks the part of vLLM's protocol that the lab uses, and samples
with transformers and peft from the adapters that it is told to load.
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


class StandIn:
    """Serves the model in `folder` on `port`, 0 for any that is free.

    With `loads_adapters` False it has no address for adapters, as vLLM without
    VLLM_ALLOW_RUNTIME_LORA_UPDATING; with `applies_adapters` False it samples from the base all the
    same; with `gives_ids` False its completions are text alone; while `hangs` is set it answers nothing.
    """

    def __init__(
        self,
        folder,
        port=0,
        *,
        loads_adapters=True,
        applies_adapters=True,
        gives_ids=True,
        names=None,
    ):
        self.folder, self.names = str(folder), names or [str(folder)]
        self.loads_adapters, self.applies_adapters = loads_adapters, applies_adapters
        self.gives_ids, self.requests, self.adapters = gives_ids, [], {}
        self.hangs, self.released = False, threading.Event()
        self.lock, self.model = threading.Lock(), None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer({})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(json.loads(body))

            def answer(self, body):
                if owner.hangs:
                    owner.released.wait()
                    return
                with owner.lock, torch.no_grad():
                    status, answer = owner.reply(self.path, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self):
        return f"vllm://127.0.0.1:{self.port}"

    def stop(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    def reply(self, path, body):
        self.requests.append((path, body))
        if path == "/v1/models":
            cards = [{"id": name, "root": self.folder, "parent": None} for name in self.names]
            loaded = [{"id": name, "root": at, "parent": "x"} for name, at in self.adapters.items()]
            return 200, {"object": "list", "data": cards + loaded}
        if path == "/v1/completions":
            return self.complete(body)
        if self.loads_adapters and path == "/v1/load_lora_adapter":
            return self.load(body["lora_name"], body["lora_path"])
        if self.loads_adapters and path == "/v1/unload_lora_adapter":
            known = self.adapters.pop(body["lora_name"], None)
            return (200, "Success") if known else (404, error("The lora adapter cannot be found."))
        return 404, {"detail": "Not Found"}

    def load(self, name, path):
        if name in self.adapters:
            return 400, error(f"The lora adapter '{name}' has already been loaded.")
        if self.model is None:
            base = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
            self.model = PeftModel.from_pretrained(base, path, adapter_name=name).eval()
        else:
            self.model.load_adapter(path, name)
        self.adapters[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def complete(self, body):
        if body["model"] not in self.adapters:
            return 404, error(f"The model `{body['model']}` does not exist.")
        self.model.set_adapter(body["model"])
        choices = []
        for index in range(body["n"]):
            source = torch.Generator().manual_seed(body["seed"] + index)
            ids, logps = self.one_completion(body, source)
            ended = ids[-1] in body["stop_token_ids"]
            choice = {"index": index, "text": "", "finish_reason": "stop" if ended else "length"}
            if self.gives_ids:
                choice["token_ids"] = ids
            choices.append(choice | {"logprobs": {"token_logprobs": logps}})
        return 200, {"choices": choices}

    def one_completion(self, body, source):
        ids, logps = list(body["prompt"]), []
        while len(logps) < body["max_tokens"]:
            inputs = torch.tensor([ids])
            if self.applies_adapters:
                logits = self.model(input_ids=inputs).logits[0, -1]
            else:
                with self.model.disable_adapter():
                    logits = self.model(input_ids=inputs).logits[0, -1]
            scores = torch.log_softmax(logits.double() / body["temperature"], -1)
            token = int(torch.multinomial(scores.exp(), 1, generator=source))
            ids.append(token)
            logps.append(scores[token].item())
            if token in body["stop_token_ids"]:
                break
        return ids[len(body["prompt"]) :], logps


def error(message):
    return {"error": {"message": message, "type": "InvalidUserInput", "code": 400}}


@contextmanager
def stand_in(folder, port=0, **options):
    """A server that is stopped at the end, if it has not been stopped before."""
    server = StandIn(folder, port, **options)
    try:
        yield server
    finally:
        server.stop()
