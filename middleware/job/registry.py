"""What a job type is, and the registry of all of them; the built-in ones are in ``actors/job_types/``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Protocol, get_args

import msgspec
from msgspec import Meta, Struct

from middleware.job.base import Job, Name
from middleware.job.json_schema import validate
from middleware.job.keys import QUEUE
from ops.errors import InvalidJob, SettingsError
from ops.settings.table import Settings
from ops.settings.work import TypeOverrides, TypeSettings


class Payload(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of all payloads: immutable, strict, defaults left out when encoded."""


class Signature(Protocol):
    """Parameters of a user's actor: ``signature.ActorSignature``, which the fast commands do not import."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return the arguments of a call by name."""

    def unbind(self, payload: Mapping[str, Any], positional: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with which the actor is called."""

    def validate(self, payload: Mapping[str, Any]) -> None:
        """Check the arguments."""

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the payload."""


#: Origin of the built-in job types.
BUILT_IN = "built-in"


class JobType(Struct, frozen=True, kw_only=True):
    """The declaration of a job type: a built-in one, or that of a user's actor.

    Attributes:
        name: What clients, settings and logs call it.
        summary: One line for lists and for the REST schema.
        payload: What its actor needs; None for a user's actor, whose payload is a mapping.
        result: Type of what its actor returns, or where it is: ``MODULE:NAME``.
        actor: What its actor runs, a function of the payload; or where it is, ``MODULE:NAME``, if its module
            takes more than a few milliseconds to import. None for a user's actor.
        queue: Queue that its jobs go to.
        choose_queue: Chooses the queue of a job by its payload and the settings: ``queue`` or one of
            ``other_queues``. None: always ``queue``.
        other_queues: Other queues that its jobs may go to.
        priority: Priority of its jobs unless they have their own; None: the general default.
        origin: ``built-in``, or the module that declares the actor.
        signature: The parameters of a user's actor, in the process that declares it.
        schema: JSON Schema of the payload of a user's actor that another process declares.
        parameters: Names of the parameters of a user's actor, in their order.
        default_payload: Used if a job is submitted without one; None: a payload is required.
        needs_project: A job of this type must name a project.
        limits: Where its limits differ from the general defaults.
        runs_programs: The policy denies it by default to anyone without a login on this machine.
        runs_argv: Its payload is a command, with ``argv`` and ``env``: rules match it by ``command``, and
            content of a file or message never submits one.
        delivers: Its results are written to 0UT.3OX unless ``deliver.types`` says otherwise.
        internal: Only the bridge itself creates jobs of this type.
        title: Fields of the payload that tell people what a job is about; lists show the first that is set.
        result_texts: Fields of the result that are texts for people.
        answers: Those texts are a reply in themselves: chats show nothing else.
        example: A payload, for documentation and tests.
    """

    name: str
    summary: str
    payload: type[Payload] | None
    result: Any = None
    actor: Callable[[Any], Any] | str | None = None
    queue: str = QUEUE
    choose_queue: Callable[[Any, Settings], str] | None = None
    other_queues: tuple[str, ...] = ()
    priority: int | None = None
    origin: str = BUILT_IN
    signature: Signature | None = None
    schema: dict[str, Any] | None = None
    parameters: tuple[str, ...] = ()
    default_payload: Payload | None = None
    needs_project: bool = False
    limits: TypeOverrides = TypeOverrides()
    runs_programs: bool = False
    runs_argv: bool = False
    delivers: bool = False
    internal: bool = False
    title: tuple[str, ...] = ()
    result_texts: tuple[str, ...] = ()
    answers: bool = False
    example: Mapping[str, Any] = {}

    def function(self) -> Callable[[Any], Any]:
        """Return what its actor runs; imports the module that the declaration names.

        Raises:
            LookupError: It is a user's actor, whose function only its broker knows.
        """
        if self.actor is None:
            raise LookupError(f"the job type {self.name!r} names no function")
        found: Callable[[Any], Any] = _imported(self.actor)
        return found

    def result_schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema (2020-12) of the result; None if it is not known."""
        kind = self.result_type()
        return None if kind is None else _schema_of(*(get_args(kind) or (kind,)))

    def queue_of(self, payload: Any, settings: Settings) -> str:
        """Return the queue that a job with this payload goes to."""
        return self.queue if self.choose_queue is None else self.choose_queue(payload, settings)

    def result_type(self) -> Any:
        """Return the type of what its actor returns; None if that is not known."""
        return _imported(self.result)

    def struct(self, base: type[Struct], ending: str) -> type[Any]:
        """Return a new struct, tagged with the name, that has the payload of this type.

        Args:
            base: The other fields: ``Job``, or the request of an interface.
            ending: Ending of its name: ``Job`` makes ``ShellCmdJob`` of ``ShellCmdPayload``.
        """
        if self.payload is None:
            raise TypeError(f"{self.name} is an actor of a user: its jobs are of the struct ActorJob")
        default = () if self.default_payload is None else (self.default_payload,)
        payload: Any = self.payload
        if self.example:
            payload = Annotated[payload, Meta(examples=[self.example])]
        fields: list[Any] = [("payload", payload, *default)]
        if self.needs_project:
            fields.append(("project", Name))
        return msgspec.defstruct(
            self.payload.__name__.removesuffix("Payload") + ending,
            fields,
            bases=(base,),
            module=base.__module__,
            # A constant in place of the property of `Job`: it is asked for many times for each job.
            namespace={"__doc__": self.summary, "job_type": self.name},
            tag=self.name,
            frozen=True,
            kw_only=True,
        )

    def limits_of(self, settings: Settings) -> TypeSettings:
        """Return the limits of this type: those of 3ox.toml, else its own, else the general ones."""
        layers = (settings.types.get(self.name, self.limits), self.limits)

        def first(limit: str, general: float) -> Any:
            values = (getattr(layer, limit) for layer in layers)
            return next((value for value in values if value is not None), general)

        return TypeSettings(
            timeout_s=first("timeout_s", settings.default_timeout_s),
            max_retries=first("max_retries", settings.default_max_retries),
            backoff_min_s=first("backoff_min_s", settings.backoff_min_s),
            backoff_max_s=first("backoff_max_s", settings.backoff_max_s),
        )

    def validate(self, payload: Mapping[str, Any]) -> None:
        """Check the payload of a user's actor, by its signature or by its published schema.

        Raises:
            InvalidJob: It does not fit; names the field.
        """
        if self.signature is not None:
            self.signature.validate(payload)
        elif self.schema is not None:
            validate(payload, self.schema, self.parameters)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the payload."""
        if self.payload is not None:
            return _schema_of(self.payload)
        if self.signature is not None:
            return self.signature.json_schema()
        return {"type": "object"} if self.schema is None else self.schema


def _imported(place: Any) -> Any:
    """Return what a declaration names as ``MODULE:NAME``; anything else as it is."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _schema_of(*kinds: Any) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a type, or of any of several."""
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    if len(kinds) > 1:
        body: dict[str, Any] = {"anyOf": list(schemas)}
    else:
        # Of a struct, the schema itself and not a reference to it.
        body = dict(components.pop(kinds[0].__name__) if schemas[0].keys() == {"$ref"} else schemas[0])
    return {**body, "$defs": components} if components else body


class DeclaringModules:
    """The modules of one package; each declares the job type of its name.

    Args:
        package: Name of the package; imported at the first use.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._modules: frozenset[str] | None = None

    def load(self, job_type: str) -> None:
        """Import the module that declares a job type, if there is one."""
        if _module_of(job_type) in self._names():
            import_module(f"{self._package}.{_module_of(job_type)}")

    def load_all(self, declared: Callable[[], Collection[str]]) -> None:
        """Import all modules.

        Args:
            declared: Returns the names of the types that have been declared.

        Raises:
            ValueError: A module declares no type of its name.
        """
        for module in sorted(self._names()):
            import_module(f"{self._package}.{module}")
        missing = self._names() - {_module_of(name) for name in declared()}
        if missing:
            raise ValueError(
                f"{self._package}.{min(missing)} declares no job type of its name; the type 'a.b' is declared"
                " in a_b.py"
            )

    def _names(self) -> frozenset[str]:
        if self._modules is None:
            found = (name for folder in import_module(self._package).__path__ for name in os.listdir(folder))  # noqa: PTH208 (importing pathlib takes 5 ms)
            self._modules = frozenset(
                name[:-3] for name in found if name.endswith(".py") and not name.startswith("_")
            )
        return self._modules


def _module_of(job_type: str) -> str:
    return job_type.replace(".", "_").replace("-", "_")


class JobTypes:
    """The registry of job types; iterating yields the names of those that clients may submit.

    Args:
        modules: Modules that declare further types, each loaded when its type is asked for: a command that
            submits one job imports one declaration.
    """

    def __init__(self, modules: DeclaringModules | None = None) -> None:
        self._types: dict[str, JobType] = {}
        self._structs: dict[str, type[Job]] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        #: None when all of them have been loaded.
        self._modules = modules

    def add(self, job_type: JobType) -> None:
        """Register a job type.

        Raises:
            ValueError: The name is in use.
        """
        if job_type.name in self._types:
            raise ValueError(f"the job type {job_type.name!r} is declared twice")
        self._types[job_type.name] = job_type

    def __iter__(self) -> Iterator[str]:
        return (job_type.name for job_type in self.declared() if not job_type.internal)

    def __contains__(self, name: object) -> bool:
        found = self.get(str(name))
        return found is not None and not found.internal

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def declared(self) -> tuple[JobType, ...]:
        """Return all job types by name, internal ones included."""
        if self._modules is not None:
            self._modules.load_all(self._types.keys)
            self._modules = None
        return tuple(self._types[name] for name in sorted(self._types))

    def get(self, name: str) -> JobType | None:
        """Return a job type, None if it is unknown."""
        found = self._types.get(name)
        if found is None and self._modules is not None:
            self._modules.load(name)
            found = self._types.get(name)
        return found

    def struct(self, name: str) -> type[Job]:
        """Return the struct of a job type's jobs.

        Raises:
            KeyError: The type is unknown.
        """
        found = self._structs.get(name)
        if found is None:
            declared = self.get(name)
            if declared is None:
                raise KeyError(name)
            # Two threads may make two structs; all use the first.
            found = self._structs.setdefault(name, declared.struct(Job, "Job"))
        return found

    def decoder(self, name: str) -> msgspec.json.Decoder[Any] | None:
        """Return what decodes the jobs of a type; None if the type is unknown."""
        found = self._decoders.get(name)
        if found is None and self.get(name) is not None:
            found = self._decoders[name] = msgspec.json.Decoder(self.struct(name))
        return found

    def require(self, name: str, *, field: str) -> None:
        """Check that clients may submit jobs of this type.

        Args:
            name: Name of the job type.
            field: Field that the error names.

        Raises:
            InvalidJob: They may not; names the nearest type and all that they may submit.
        """
        if name not in self:
            remedy = nearest(name, tuple(self))
            raise InvalidJob(f"Unknown job type {name!r}.", remedy=remedy, field=field)

    def require_settings(self, settings: Settings, published: Callable[[], Collection[str] | None]) -> None:
        """Check the names of ``[types]`` in 3ox.toml.

        A name that resembles none of ours may be the actor of a user, which this process need not know.

        Args:
            settings: The settings.
            published: Returns the names of the types of users; None if they cannot be known. Called only
                for a name that resembles one of ours.

        Raises:
            SettingsError: One of them is a mistyped name of ours; names that one.
        """
        for name in settings.types:
            if self.get(name) is not None:
                continue
            import difflib

            known = tuple(job_type.name for job_type in self.declared())
            if not difflib.get_close_matches(name, known, n=1, cutoff=0.8):
                continue
            others = published()
            if others is not None and name not in others:
                remedy = nearest(name, known)
                raise SettingsError(f"Unknown job type {name!r} in [types] of 3ox.toml.", remedy=remedy)

    def limits(self, name: str, settings: Settings) -> TypeSettings:
        """Return the limits of a job type: those of 3ox.toml, else its own, else the general ones.

        Args:
            name: Name of the job type; an unknown one has the general limits.
            settings: The settings.
        """
        declared = self.get(name)
        return (JobType(name=name, summary="", payload=None) if declared is None else declared).limits_of(
            settings
        )

    def runs_programs(self, name: str) -> bool:
        """Return whether jobs of this type run programs; of an unknown type, assume that they do."""
        declared = self.get(name)
        return declared is None or declared.runs_programs

    def runs_argv(self, name: str) -> bool:
        """Return whether jobs of this type are commands, with ``argv`` and ``env``."""
        declared = self.get(name)
        return declared is not None and declared.runs_argv


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the remedy for an unknown job type: the name that was meant, and all known ones."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Use one of: {', '.join(known)}."
