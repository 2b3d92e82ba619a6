"""Fixtures of these tests: the API with a worker that the tests of REST use, too."""

from __future__ import annotations

from tests.rest.conftest import rest_environ, shared_api

__all__ = ["rest_environ", "shared_api"]
