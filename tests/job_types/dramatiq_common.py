"""Replaces ``tests/common.py`` of Dramatiq's suite: the same names, without RabbitMQ."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dramatiq import Worker

#: ``test_broker.py`` imports pika, Dramatiq's library for RabbitMQ.
RABBITMQ_CREDENTIALS = importlib.import_module("pika").PlainCredentials("guest", "guest")
skip_in_ci = pytest.mark.skipif(condition=False, reason="")
skip_on_windows = pytest.mark.skipif(platform.system() == "Windows", reason="test skipped on Windows")
skip_on_pypy = pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="not under PyPy")
skip_with_gevent = pytest.mark.skipif(condition=False, reason="")
skip_without_gevent = pytest.mark.skipif(condition=True, reason="Only with gevent.")
skip_unless_rabbit_mq = pytest.mark.skipif(condition=True, reason="RabbitMQ is not part of this run")


@contextmanager
def worker(*args: Any, **kwargs: Any) -> Iterator[Worker]:
    """Run a worker within a block."""
    running = Worker(*args, **kwargs)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def get_logs(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    """Return the log records that contain a message."""
    return [record for record in caplog.records if message in record.message]
