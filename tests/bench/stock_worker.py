"""What ``dramatiq`` runs for the others: stock RedisBroker with its default middleware."""

from __future__ import annotations

import os

import dramatiq

from tests.bench.stock import RESULTS_VARIABLE, URL_VARIABLE, make_stock

broker = make_stock(os.environ[URL_VARIABLE], results=os.environ[RESULTS_VARIABLE] == "1").broker
dramatiq.set_broker(broker)
