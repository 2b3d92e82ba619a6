"""A server that speaks Anthropic's streaming messages protocol, and fails as ``fake_openai`` does.

    with FakeAnthropic() as server:
        server.plan(refuses(429, retry_after_s=7), answers("Hel", "lo"))
        ...  # point ANTHROPIC_BASE_URL at server.base_url

A request that forces the model to use a tool gets the planned pieces as the tool's input.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fake_openai import FakeOpenAI, Handler, Reply


class FakeAnthropic(FakeOpenAI):
    """The server; a context manager."""

    @staticmethod
    def handler() -> type[Handler]:
        """Return the class that answers requests."""
        return _Messages

    @property
    def base_url(self) -> str:
        """What goes into ANTHROPIC_BASE_URL."""
        return self.origin


class _Messages(Handler):
    def _error(self, reply: Reply) -> None:
        error = {"type": "error", "error": {"type": "api_error", "message": reply.message}}
        self._document(reply.status, "application/json", json.dumps(error).encode(), reply.headers)

    def _stream(self, reply: Reply, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tool = "tool_choice" in body
        message = {**self._completion(reply, body), "content": [], "stop_reason": None}
        message["usage"] = {"input_tokens": 5, "output_tokens": 1}
        self._say("message_start", message=message)
        block = {"type": "tool_use", "id": "t1", "name": "answer", "input": {}} if tool else _text("")
        self._say("content_block_start", index=0, content_block=block)
        self._say("ping")
        for piece in reply.pieces:
            delta = (
                {"type": "input_json_delta", "partial_json": piece}
                if tool
                else {"type": "text_delta", "text": piece}
            )
            self._say("content_block_delta", index=0, delta=delta)
        if reply.then == "hang":
            self._hang()
        elif reply.then == "error":
            self._say("error", error={"type": "overloaded_error", "message": reply.message})
        elif reply.then == "done":
            self._say("content_block_stop", index=0)
            usage = {"usage": {"output_tokens": len(reply.pieces)}} if reply.usage else {}
            self._say("message_delta", delta={"stop_reason": reply.finish_reason}, **usage)
            self._say("message_stop")
            self.wfile.write(b"0\r\n\r\n")

    def _say(self, kind: str, **fields: Any) -> None:
        data = json.dumps({"type": kind, **fields}).encode()
        self._write(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")

    @staticmethod
    def _completion(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [_text("".join(reply.pieces))],
            "stop_reason": reply.finish_reason,
            "usage": {
                "input_tokens": 3,
                "cache_read_input_tokens": 2,
                "output_tokens": len(reply.pieces),
            },
        }


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
