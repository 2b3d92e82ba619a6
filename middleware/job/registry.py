"""What a job type is, and the registry of all of them; the built-in ones are declared in ``types.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

import msgspec
from msgspec import Struct

from middleware.job.base import Job, Name
from ops.errors import InvalidJob, SettingsError
from ops.settings.table import Settings
from ops.settings.work import TypeOverrides, TypeSettings


class Payload(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of all payloads: immutable, strict, defaults left out when encoded."""


class JobType(Struct, frozen=True, kw_only=True):
    """The declaration of a job type.

    Attributes:
        name: What clients, settings and logs call it.
        summary: One line for lists and for the REST schema.
        payload: What its actor needs.
        default_payload: Used if a job is submitted without one; None: a payload is required.
        needs_project: A job of this type must name a project.
        limits: Where its limits differ from the general defaults.
        runs_programs: The policy denies it by default to anyone without a login on this machine.
        delivers: Its results are written to 0UT.3OX unless ``deliver.types`` says otherwise.
        internal: Only the bridge itself creates jobs of this type.
    """

    name: str
    summary: str
    payload: type[Payload]
    default_payload: Payload | None = None
    needs_project: bool = False
    limits: TypeOverrides = TypeOverrides()
    runs_programs: bool = False
    delivers: bool = False
    internal: bool = False

    def struct(self, base: type[Struct], ending: str) -> type[Any]:
        """Return a new struct, tagged with the name, that has the payload of this type.

        Args:
            base: The other fields: ``Job``, or the request of an interface.
            ending: Ending of its name: ``Job`` makes ``ShellCmdJob`` of ``ShellCmdPayload``.
        """
        default = () if self.default_payload is None else (self.default_payload,)
        fields: list[Any] = [("payload", self.payload, *default)]
        if self.needs_project:
            fields.append(("project", Name))
        return msgspec.defstruct(
            self.payload.__name__.removesuffix("Payload") + ending,
            fields,
            bases=(base,),
            module=base.__module__,
            namespace={"__doc__": self.summary},
            tag=self.name,
            frozen=True,
            kw_only=True,
        )


class JobTypes:
    """The registry of job types; iterating yields the names of those that clients may submit."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}
        self._structs: dict[str, type[Job]] = {}
        self._decoder: msgspec.json.Decoder[Any] | None = None

    def add(self, job_type: JobType) -> None:
        """Register a job type.

        Raises:
            ValueError: The name is in use.
        """
        if job_type.name in self._types:
            raise ValueError(f"the job type {job_type.name!r} is declared twice")
        self._types[job_type.name] = job_type
        self._structs[job_type.name] = job_type.struct(Job, "Job")
        self._decoder = None

    def __iter__(self) -> Iterator[str]:
        return (name for name, job_type in self._types.items() if not job_type.internal)

    def __contains__(self, name: object) -> bool:
        return name in self._types and not self._types[str(name)].internal

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def declared(self) -> tuple[JobType, ...]:
        """Return all job types, internal ones included."""
        return tuple(self._types.values())

    def get(self, name: str) -> JobType | None:
        """Return a job type, None if it is unknown."""
        return self._types.get(name)

    def struct(self, name: str) -> type[Job]:
        """Return the struct of a job type's jobs."""
        return self._structs[name]

    @property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes a job of any type."""
        if self._decoder is None:
            self._decoder = msgspec.json.Decoder(Union[tuple(self._structs.values())])  # noqa: UP007
        return self._decoder

    def require(self, name: str, *, field: str) -> None:
        """Check that clients may submit jobs of this type.

        Args:
            name: Name of the job type.
            field: Field that the error names.

        Raises:
            InvalidJob: They may not; names the nearest type and all that they may submit.
        """
        if name not in self:
            raise InvalidJob(f"Unknown job type {name!r}.", remedy=_nearest(name, tuple(self)), field=field)

    def require_settings(self, settings: Settings) -> None:
        """Check the names of ``[types]`` in 3ox.toml.

        Raises:
            SettingsError: One of them is unknown; names the nearest one.
        """
        for name in settings.types:
            if name not in self._types:
                remedy = _nearest(name, tuple(self._types))
                raise SettingsError(f"Unknown job type {name!r} in [types] of 3ox.toml.", remedy=remedy)

    def limits(self, name: str, settings: Settings) -> TypeSettings:
        """Return the limits of a job type: those of 3ox.toml, else its own, else the general ones.

        Args:
            name: Name of the job type; an unknown one has the general limits.
            settings: The settings.
        """
        declared = self._types.get(name)
        own = TypeOverrides() if declared is None else declared.limits
        layers = (settings.types.get(name, own), own)

        def first(limit: str, general: float) -> Any:
            values = (getattr(layer, limit) for layer in layers)
            return next((value for value in values if value is not None), general)

        return TypeSettings(
            timeout_s=first("timeout_s", settings.default_timeout_s),
            max_retries=first("max_retries", settings.default_max_retries),
            backoff_min_s=first("backoff_min_s", settings.backoff_min_s),
            backoff_max_s=first("backoff_max_s", settings.backoff_max_s),
        )

    def runs_programs(self, name: str) -> bool:
        """Return whether jobs of this type run programs; of an unknown type, assume that they do."""
        declared = self._types.get(name)
        return declared is None or declared.runs_programs


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return a remedy for an unknown name."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Use one of: {', '.join(known)}."
