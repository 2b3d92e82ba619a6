"""Routes for verifying receipts: public keys of the ledger, and a job's sealed lines."""

from __future__ import annotations

from litestar import get
from litestar.concurrency import sync_to_thread
from msgspec import Struct

from ingress.core.http.app_state import AppState, AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.ledger_proofs import public_keys, seals
from ingress.rest.contract import JobPart, problems
from ingress.rest.job_queries import find_any
from ops.signing import PublicKey


class Keys(Struct, frozen=True):
    """The public keys.

    Attributes:
        keys: Oldest first, including retired keys and keys not used yet.
    """

    keys: list[PublicKey]


class Seals(Struct, frozen=True):
    """The sealed transitions of a job.

    Attributes:
        job_id: The job.
        lines: Lines of the ledger, exactly as signed; empty until the scheduler has sealed them.
    """

    job_id: str
    lines: list[str]


@get(
    "/v1/keys",
    operation_id="getKeys",
    summary="Public keys of the ledger",
    guards=[requires("view")],
    responses=problems(),
)
async def get_keys(app_state: AppStateDependency) -> Keys:
    """Return the public keys."""
    return Keys(await sync_to_thread(public_keys, app_state.loaded))


def _seals(app_state: AppState, part: str) -> Seals:
    job_id = find_any(app_state, part).job_id
    return Seals(job_id, [seal.raw.decode() for seal in seals(app_state.read_bridge, job_id)])


@get(
    "/v1/jobs/{job_id:str}/seals",
    operation_id="getSeals",
    summary="A job's sealed transitions",
    description="Each line can be verified with a key of /v1/keys; see docs/reference/ledger.md.",
    guards=[requires("view")],
    responses=problems(404, 409),
)
async def get_seals(app_state: AppStateDependency, job_id: JobPart) -> Seals:
    """Return the sealed lines of a job."""
    return await sync_to_thread(_seals, app_state, job_id)


ROUTES = [get_keys, get_seals]
TYPES = [Keys, Seals, PublicKey]
