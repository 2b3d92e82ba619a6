"""A million finished jobs slow nothing down that an operator or a caller does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ingress.dispatch import Bridge, connect
from middleware.job.keys import Keys
from middleware.job.schema import make_job
from middleware.job.states import State
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.support import RunningValkey, clean_environ

MILLION = 1_000_000
_BATCH = 1_000

#: Lays down finished jobs as the scripts leave them, without running them: minutes become seconds. All are in
#: the indexes; record, receipt and result are there for those that a command reads, the newest.
_FILL = """
local P, from, count, records = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local all, tail, done = {}, {}, {}
for i = from, from + count - 1 do
  local id = string.format('01%018d', i)
  if records then
    local spec = '{"job_type":"heartbeat","job_id":"' .. id .. '","payload":{"nonce":"x"},"max_retries":0}'
    redis.call('HSET', P .. 'job:' .. id, 'spec', spec, 'status', 'completed', 'created', i, 'started', i,
      'completed', i, 'attempt', 1, 'worker', 'w')
    redis.call('RPUSH', P .. 'receipts:' .. id, '{"at":1,"status":"queued","input_sha256":"a"}')
    redis.call('SET', P .. 'result:' .. id, '"y"')
  end
  local n = #all
  all[n + 1], all[n + 2] = '0', id
  tail[n + 1], tail[n + 2] = '0', string.reverse(id)
  done[n + 1], done[n + 2] = i, id
end
for start = 1, #all, 2000 do
  local last = math.min(start + 1999, #all)
  redis.call('ZADD', P .. 'index:all', unpack(all, start, last))
  redis.call('ZADD', P .. 'index:tail', unpack(tail, start, last))
  redis.call('ZADD', P .. 'index:type:heartbeat', unpack(all, start, last))
  redis.call('ZADD', P .. 'jobs:completed', unpack(done, start, last))
end
"""


@pytest.fixture
def bridge(workspace: Workspace) -> Iterator[Bridge]:
    """A bridge whose store keeps more ended jobs than the test has, and forgets none for its age."""
    environ = clean_environ(
        {
            "BRIDGE_HOME": str(workspace.home),
            "BRIDGE_FINISHED_MAX": str(2 * MILLION),
            "BRIDGE_RETENTION_S": str(10**10),
            "BRIDGE_STORE_FSYNC": "no",
        },
    )
    server = RunningValkey(load_settings(environ=environ))
    server.start()
    yield connect(load_settings(environ=environ))
    server.stop()


def _work(bridge: Bridge, found: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Do what callers and operators do, and count the store's commands that it took."""
    before = found()
    job = make_job("heartbeat", {})
    bridge.submit(job)
    fetched = bridge.scripts.fetch("w", "jobs", room=1, delivery=job.job_id, lease_ms=60_000)
    assert [item.job_id for item in fetched.jobs] == [job.job_id]
    assert bridge.reader.resolve(job.job_id[-8:]) == job.job_id
    assert bridge.reader.job(job.job_id).status == "processing"
    assert bridge.scripts.cancel(job.job_id, "enough")[0] == "cancelling"
    page = bridge.reader.page(limit=20)
    assert page.jobs[0].job_id == job.job_id
    assert len(bridge.reader.page(status="completed", limit=20).jobs) == 20
    assert len(bridge.reader.page(job_type="heartbeat", limit=20).jobs) == 20
    assert bridge.scripts.recover("w") == [("w", job.job_id, "cancelled")]
    after = found()
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


@pytest.mark.timeout(600)
def test_a_million_finished_jobs_cost_no_command_more(bridge: Bridge) -> None:
    """Dispatch, fetch, look-up, list and status take the same commands over fifty jobs and over a million."""
    keys = Keys(bridge.loaded.settings.key_prefix)
    fill = bridge.store.call("SCRIPT", "LOAD", _FILL)

    def found() -> dict[str, int]:
        rows = bridge.store.call("INFO", "commandstats").decode().splitlines()
        pairs = (row.removeprefix("cmdstat_").split(":", 1) for row in rows if row.startswith("cmdstat_"))
        return {name: int(rest.split("=", 1)[1].split(",", 1)[0]) for name, rest in pairs if name != "info"}

    def put(count: int, start: int) -> None:
        end = start + count
        for at in range(start, end, _BATCH):
            newest = int(at + _BATCH >= end)
            bridge.store.call("EVALSHA", fill, 1, keys.prefix, at, min(_BATCH, end - at), newest)

    # What is counted here is asked of the memory: a journal on disk would only take time.
    bridge.store.call("CONFIG", "SET", "appendonly", "no")
    put(50, 0)
    _work(bridge, found)  # sends the scripts
    few = _work(bridge, found)
    put(MILLION, 50)
    assert bridge.reader.summary()[State.COMPLETED] == MILLION + 50
    many = _work(bridge, found)
    retire = {"zcard", "zrange", "zrangebyscore"}  # one settle in sixteen looks for what is too old
    assert {name: count for name, count in many.items() if name not in retire} == {
        name: count for name, count in few.items() if name not in retire
    }
    assert not {"keys", "scan", "zscan", "hscan", "sscan"} & found().keys()
    bridge.store.call("SLOWLOG", "RESET")
    bridge.store.call("CONFIG", "SET", "slowlog-log-slower-than", "100000")
    _work(bridge, found)
    assert bridge.store.call("SLOWLOG", "GET", 5) == [], "a command took more than 100 ms"
