"""`[model]` and `[[models]]`: what scores the rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tickwire.toml.table import Duration, Name, Table
from tickwire.toml.words import at
from tickwire.units import parse_duration

__all__ = ["OF_PROCESSES", "Model"]


def _check_files(value: object) -> object:
    many = value if isinstance(value, list) else [value]
    if not 1 <= len(many) <= 16 or not all(isinstance(each, str) and each for each in many):
        raise ValueError("expected the name of a file, or a list of 1 to 16 of them")
    return value


# Keys of a model that say how its processes are kept.
OF_PROCESSES = (
    "restart_backoff",
    "max_restarts",
    "restart_window",
    "heartbeat_timeout",
    "max_rss_mb",
)


class Model(Table):
    """`[model]`, or `[[models]]` for several: what scores the rows. Leave it out to get rows alone."""

    name: Name = ""
    """What signals, counters and `tickwire model swap` call it. Empty: the file's name without its ending."""

    path: Annotated[str | list[str], BeforeValidator(_check_files)]
    """The ONNX file, bound to these features by `tickwire model bind`. Several files are an ensemble: each
    scores the row, and the signal has their mean, or what `weights` makes of them."""

    weights: Annotated[list[float], Field(max_length=16)] = []
    """Of the files of an ensemble, in their order; only their ratios count. Empty: all weigh the same."""

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    """What ONNX Runtime runs it on. One that the installed ONNX Runtime does not have is an error."""

    cache_dir: str = ""
    """Where TensorRT keeps what it has built for this model and device. Empty: it builds at each start."""

    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    """Inference agents, each with its own session. None: one for each of `cores`, else one."""

    cores: Annotated[list[Annotated[int, Field(ge=0, le=4095)]], Field(max_length=64)] = []
    """Cores to pin the inference agents to, one each. Empty: they float."""

    assign: Literal["instrument", "least_loaded"] = "instrument"
    """Which worker scores a row: always the same one for an instrument, so that its signals keep their order;
    or the one with the fewest rows waiting, for a model that is slower than its busiest instrument. Its
    signals may then pass each other, but none comes after the notice that ended its epoch."""

    max_batch: Annotated[int, Field(ge=1, le=64)] = 1
    """Rows that wait already and are scored in one run, at most; a run never waits for more. For a model that
    is late in bursts. Needs a model whose first dimension is free."""

    max_age_us: Annotated[int, Field(ge=0, le=60_000_000)] | None = None
    """`features.max_age` for this model's signals alone, in microseconds. None: that one; 0: no limit."""

    queue_slots: Annotated[int, Field(ge=16, le=1 << 20)] = 1024
    """Rows that wait for an inference agent. A full queue drops the newest row and counts it."""

    policy: Literal["every", "drop_oldest", "conflate"] = "every"
    """What a late model does with the rows that wait: score all, give up the oldest beyond `queue_limit`, or
    score only the newest of each instrument."""

    queue_limit: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """For `drop_oldest`: rows that may wait."""

    shadow: bool = False
    """Score and record, but send nothing to the sinks: to try a model beside the one that counts."""

    watch: bool = False
    """Look at the file once a second, and go over to it when it changes, as `tickwire model swap` does. Put
    the new one in its place by a rename: a file that is still being written is refused."""

    restart_backoff: Duration = "100ms"
    """Layout `processes`: the pause before a worker is started again that failed soon after its start, within
    ten times this; twice as long each further time, up to ten seconds. One that had worked for longer is
    started again at once."""

    max_restarts: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    """Layout `processes`: a worker that dies, hangs or grows too large more often than this within
    `restart_window` is given up: its rows leave unscored, and say so."""

    restart_window: Duration = "1m"
    """Layout `processes`: for `max_restarts`."""

    heartbeat_timeout: Duration = "2s"
    """Layout `processes`: a worker that gives no sign of life for so long hangs, and is killed. More than the
    longest run of the model."""

    start_timeout: Duration = "1m"
    """A model that is not read, or not loaded and warm, by then is refused, at a start and at an exchange: it
    is tried in a process of its own. Layout `processes`: a worker that needs longer has failed."""

    max_rss_mb: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """Layout `processes`: a worker that holds more memory of its own than this is replaced by a fresh one, in
    good order. 0: no limit."""

    @model_validator(mode="after")
    def _fits(self) -> Model:
        if self.policy == "drop_oldest" and self.queue_limit > self.queue_slots:
            raise at("queue_limit", f"expected at most queue_slots = {self.queue_slots}", self.queue_limit)
        if self.weights and len(self.weights) != len(self.paths):
            raise at("weights", f"expected one for each of the {len(self.paths)} files", self.weights)
        if self.weights and len(self.paths) == 1:
            raise at("weights", "expected none for a single file", self.weights)
        if not all(0 < weight < math.inf for weight in self.weights):
            raise at("weights", "expected numbers above zero", self.weights)
        if parse_duration(self.heartbeat_timeout) < 500_000_000:
            raise at("heartbeat_timeout", "expected at least 500ms, five heartbeats", self.heartbeat_timeout)
        if parse_duration(self.start_timeout) == 0:
            raise at("start_timeout", "expected more than zero", self.start_timeout)
        if self.cores and self.workers not in (None, len(self.cores)):
            raise at("workers", f"expected one for each of the {len(self.cores)} cores", self.workers)
        if self.cache_dir and self.provider != "tensorrt":
            raise at("cache_dir", 'expected none without provider = "tensorrt"', self.cache_dir)
        if self.assign == "least_loaded" and self.worker_count == 1:
            raise at("assign", 'expected "instrument" with a single worker', self.assign)
        return self

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def label(self) -> str:
        """The name, or the one made from the file's."""
        return self.name or "+".join(Path(path).stem for path in self.paths)

    @property
    def worker_count(self) -> int:
        return self.workers or len(self.cores) or 1

    def member_weights(self) -> list[float]:
        return list(self.weights) or [1.0] * len(self.paths)
