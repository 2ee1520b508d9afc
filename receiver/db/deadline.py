"""PostgreSQL connections with deadlines, over several servers.

A server that hangs (stopped, or unreachable without an error) fires none of its own timeouts. So the time limit is
enforced on this side: past it the connection is abandoned, and its statement's outcome is unknown.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import waiting
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.abc import ConnDict, PQGen
    from psycopg.errors import Diagnostic
    from psycopg.pq.abc import PGconn

_TICK_SECONDS = 0.1
_FIRST_TRY_SECONDS = 0.3  # one server of several, before the next has its turn
# In which PostgreSQL warns that a commit has not reached its synchronous standby. The text is in the server's language.
_STANDBY_WAIT = "SyncRepWaitForLSN"


class DeadlineConnection(psycopg.Connection[Any]):
    """Waits for the server until `deadline`, a reading of time.monotonic(); None: for ever.

    If a commit's wait for a synchronous standby is cancelled, PostgreSQL warns and reports success, though the
    transaction is on that one server only. Here it is an error: the outcome is in doubt.
    """

    deadline: float | None = None
    _on_one_server_only = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_notice_handler(self._look_at)

    def wait(self, gen: PQGen[Any], interval: float = _TICK_SECONDS, timeout: float | None = None) -> Any:
        """Wait as psycopg does. Past the deadline, close the connection and raise OperationalError."""
        if self.deadline is None:
            found = super().wait(gen, interval, timeout)
        else:
            left = self.deadline - time.monotonic()
            try:
                if left <= 0:
                    raise psycopg.errors.ConnectionTimeout
                found = waiting.wait(gen, self.pgconn.socket, interval=min(interval, left), timeout=left)
            except (psycopg.errors._WaitTimeout, psycopg.errors.ConnectionTimeout):  # noqa: SLF001  (`timeout` raises it)
                self.pgconn.finish()
                raise psycopg.OperationalError("the server did not answer in time") from None
        if self._on_one_server_only:
            self._on_one_server_only = False
            raise psycopg.OperationalError("committed, but not on the synchronous standby")
        return found

    def take_copied(self, least: int) -> tuple[bytes, int | None]:
        """Return so many bytes of a COPY that has begun, in whole rows, or what is left, and the number of all rows.

        The number is None until the end. The driver's own loop makes ready to wait for each row, and so takes longer.
        """
        taken: tuple[bytes, int | None] = self.wait(_take_copied(self.pgconn, least))
        return taken

    def _look_at(self, notice: Diagnostic) -> None:
        self._on_one_server_only |= notice.source_function == _STANDBY_WAIT


def _take_copied(pgconn: PGconn, least: int) -> PQGen[tuple[bytes, int | None]]:
    rows: list[Any] = []
    size = 0
    while size < least:
        length, row = pgconn.get_copy_data(1)
        if length > 0:
            rows.append(row)
            size += length
        elif length == 0:
            yield from _receive(pgconn)
        else:  # the end
            return b"".join(rows), (yield from _finish_copy(pgconn))
    return b"".join(rows), None


def _finish_copy(pgconn: PGconn) -> PQGen[int]:
    while pgconn.is_busy():
        yield from _receive(pgconn)
    result = pgconn.get_result()
    while pgconn.get_result() is not None:
        pass
    if result is None:
        raise psycopg.OperationalError("the server ended a COPY without a result")
    if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return result.command_tuples or 0


def _receive(pgconn: PGconn) -> PQGen[None]:
    while not (yield waiting.WAIT_R):
        pass  # it is asked now and then whether the time is up
    pgconn.consume_input()


class Servers:
    """The servers of one URL. Safe for many threads.

    They are tried in order, the last one that worked first. They share one time limit: in a first round each gets a
    moment, so that an unreachable one costs no more than that; a second round uses the rest.
    """

    def __init__(self, url: str, *, options: str = "", **defaults: Any) -> None:
        parameters = {**defaults, **conninfo_to_dict(url)}
        parameters["options"] = f"{options} {parameters.get('options', '')}".strip()
        self._servers = list(_split(parameters))
        self._last = 0

    def connect(self, deadline: float) -> DeadlineConnection:
        """Connect to the first server that meets the URL's requirements. Raises OperationalError naming all errors."""
        said: dict[str, None] = {}
        several = len(self._servers) > 1
        trying = sorted(range(len(self._servers)), key=lambda number: number != self._last)
        for longest in (_FIRST_TRY_SECONDS, float("inf")) if several else (float("inf"),):
            silent = []
            for turn, number in enumerate(trying):
                share = (deadline - time.monotonic()) / (len(trying) - turn)
                try:
                    connection = _connect(self._servers[number], time.monotonic() + min(share, longest))
                except psycopg.errors.ConnectionTimeout:
                    silent.append(number)
                    said[f"{_place(self._servers[number])} failed: no answer in time"] = None
                except psycopg.OperationalError as error:
                    said[str(error)] = None
                else:
                    self._last = number
                    return connection
            trying = silent
        raise psycopg.OperationalError("; ".join(said))


def _place(server: ConnDict) -> str:
    """Name a server as libpq does."""
    host = server.get("host") or server.get("hostaddr") or "its socket"
    return f'connection to server at "{host}", port {server.get("port") or 5432}'


def _split(parameters: Mapping[str, Any]) -> Iterator[ConnDict]:
    """Return the parameters for each server alone."""
    lists = {name: str(parameters[name]).split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)}
    for number in range(max(map(len, lists.values()), default=1)):
        yield {**parameters, **{name: values[number % len(values)] for name, values in lists.items()}}


def _connect(server: ConnDict, deadline: float) -> DeadlineConnection:
    """Connect to one server by any of its addresses. Resolving its name comes first and may take longer."""
    attempts = conninfo_attempts(server)
    for turn, attempt in enumerate(attempts, 1):
        share = (deadline - time.monotonic()) / (len(attempts) + 1 - turn)
        try:
            if share <= 0:
                raise psycopg.errors.ConnectionTimeout("connection timeout expired")
            # Not psycopg's own `connect`: it waits at least two seconds for each.
            making = DeadlineConnection._connect_gen(make_conninfo("", **attempt))  # noqa: SLF001
            return waiting.wait_conn(making, interval=min(_TICK_SECONDS, share), timeout=share)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001
            if turn == len(attempts):
                raise psycopg.errors.ConnectionTimeout("connection timeout expired") from None
        except psycopg.OperationalError:
            if turn == len(attempts):
                raise
    raise psycopg.OperationalError("no address to connect to")
