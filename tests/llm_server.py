"""A chat endpoint on localhost that answers as it is told: well, late, wrongly, half, not at all."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TASKS = {"prepare clips": "choose", "write the texts": "write", "check questions": "check", "judge generated": "judge"}
TASKS |= {"Watch the clip": "cascade"}


@dataclass
class Call:
    """One request. number: in order of arrival, from 0. task: a value of TASKS. text: of the user's message."""

    number: int
    task: str
    text: str
    body: dict[str, Any]
    headers: dict[str, str]
    pictures: list[str]


@dataclass
class Answer:
    """What goes back. cut: the connection ends after so many bytes, though more were announced."""

    data: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def said(content: Any, finish: str = "stop", usage: dict | None = None, logprobs: Any = None) -> Answer:
    """A chat completion."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = logprobs
    tree = {"choices": [choice], "usage": usage or {"prompt_tokens": 100, "completion_tokens": 10}}
    return Answer(json.dumps(tree).encode())


def failed(status: int, message: str = "no", **headers: str) -> Answer:
    """An error as such endpoints give it."""
    body = json.dumps({"error": {"message": message, "code": status}}).encode()
    return Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def good(call: Call) -> Answer:
    """What a well-behaved model says; the caption repeats the target's label, so that mix-ups show."""
    if call.task == "choose":
        return said({"usable": True, "picture": 2})
    if call.task == "check":
        return said({"why": "it names nothing", "leaks": False})
    label = call.text.split("foresee. It is said to show: ")[1].splitlines()[0]
    texts = {"question": "What comes next?", "reasoning": f"So it goes: {label}.", "caption": f"Now {label}."}
    return said(texts)


class Server:
    """`with Server(behave) as server:` answers each call by `behave(call)`; calls: all of them, in order of arrival."""

    def __init__(self, behave: Callable[[Call], Answer] = good) -> None:
        self.behave, self.calls = behave, list[Call]()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer._answer(self, body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def count(self, task: str | None = None) -> int:
        """Calls so far (of one task)."""
        return sum(task in (None, call.task) for call in self.calls)

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict) -> None:
        system, user = (message["content"] for message in body["messages"])
        task = next(name for words, name in TASKS.items() if words in system)
        text = "\n".join(part["text"] for part in user if part["type"] == "text")
        pictures = [part["image_url"]["url"] for part in user if part["type"] == "image_url"]
        with self._lock:
            call = Call(len(self.calls), task, text, body, dict(handler.headers), pictures)
            self.calls.append(call)
        answer = self.behave(call)
        try:
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(answer.data)))
            handler.end_headers()
            handler.wfile.write(answer.data[: answer.cut])
        except OSError:  # the client has gone
            pass

    def __enter__(self) -> "Server":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
