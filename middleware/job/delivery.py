"""What is known of the way of a job's result to one sink."""

from __future__ import annotations

from msgspec import Struct


class Delivery(Struct, frozen=True, kw_only=True):
    """The way of a job's result to one sink.

    Attributes:
        sink: ``outbox``, ``webhook:NAME``, ``notify:NAME:NUMBER`` or ``telegram``.
        status: Of the delivery, which is a job of its own: ``completed`` when it has arrived, ``failed`` when
            it was given up.
        due_at: When it is tried again.
    """

    delivery_id: str
    sink: str
    status: str
    attempt: int = 0
    reason: str = ""
    delivered_at: str | None = None
    due_at: str | None = None
