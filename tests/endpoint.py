"""A small server that speaks OpenAI's chat-completions protocol, and answers by looking at the question."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "sk-of-the-tests-only"


@dataclass(frozen=True)
class Request:
    """What arrived. pictures: decoded."""

    payload: dict[str, Any]
    authorization: str
    text: str
    pictures: tuple[Image.Image, ...]

    @property
    def letters(self) -> list[str]:
        """Of the options, whether written "A. red" or "(A) red"."""
        return re.findall(r"(?:^|\s)\(?([A-E])[.)]\s", self.text)


@dataclass
class Endpoint:
    address: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def endpoint(
    answer: Callable[[Request], str | tuple[int, str]],
    served_by: str = "tiny-2024-08-06",
    likeliest: Callable[[Request, str], list[tuple[str, dict[str, float]]]] | None = None,
) -> Iterator[Endpoint]:
    """answer: the response's text, or (status, message) of an error. served_by: the model that the responses name. likeliest: of
    each token of a text its own text and {token: log-probability}, for requests with `logprobs`."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = read(payload, self.headers.get("Authorization", ""))
            with lock:
                found.requests.append(request)
            given = answer(request)
            if isinstance(given, tuple):
                self.reply(given[0], {"error": {"message": given[1], "type": "test"}})
                return
            choice = {"index": 0, "message": {"role": "assistant", "content": given}, "finish_reason": "stop"}
            if payload.get("logprobs") and likeliest is not None:
                choice["logprobs"] = {"content": [listed(token, found) for token, found in likeliest(request, given)]}
            usage = {"prompt_tokens": 7, "completion_tokens": len(given.split()), "total_tokens": 7 + len(given.split())}
            whole = {"id": "1", "object": "chat.completion", "created": 0, "model": served_by, "choices": [choice]}
            self.reply(200, whole | {"usage": usage})

        def reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def listed(token: str, likeliest: dict[str, float]) -> dict[str, Any]:
    """As the protocol writes it."""
    tops = [{"token": other, "logprob": log, "bytes": None} for other, log in likeliest.items()]
    return {"token": token, "logprob": likeliest[token], "bytes": None, "top_logprobs": tops}


def read(payload: dict[str, Any], authorization: str) -> Request:
    parts = [part for message in payload["messages"] for part in message["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    pictures = tuple(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls)
    return Request(payload, authorization, "".join(p["text"] for p in parts if p["type"] == "text"), pictures)
