"""`simulate`: a local simulator of the platform, and the demo."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import ssl
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from receiver.cli.common import print_json
from receiver.cli.groups import CommandGroup
from receiver.core import ReceiverError
from receiver.simulator import Ledger, PushFaults, PushTarget, Rules, Simulator
from receiver.simulator.check import ReceiverApi, await_agreement
from receiver.simulator.demo import run_demo
from receiver.simulator.traffic import generate_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SPAN = re.compile(r"(\d+)([smhd]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RATES = (
    ("failures", 0.03, "that are not delivered"),
    ("replies", 0.02, "that get a reply"),
    ("lost", 0.0, "whose receipt never comes"),
    ("flips", 0.0, "whose second receipt says the opposite"),
    ("early", 0.0, "whose receipt comes before the answer to the send"),
    ("duplicates", 0.0, "pushed again, up to three times"),
    ("masked", 0.0, "pushed with a masked number"),
    ("gb18030", 0.0, "pushed in GB18030"),
    ("in-query", 0.0, "pushed in the query, without a body"),
    ("slow", 0.0, "whose body arrives slowly"),
)


class Duration(click.ParamType[timedelta]):
    """A length of time: `90s`, `15m`, `36h`, `3d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the value as a timedelta."""
        if isinstance(value, timedelta):
            return value
        match = _SPAN.fullmatch(str(value))
        if match is None or int(match[1]) * _UNITS[match[2]] > 366 * 86400:
            self.fail("not a duration such as 90s, 15m, 36h or 3d, at most a year", param, ctx)
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _rate_options(command: Any) -> Any:
    for name, default, help_text in reversed(_RATES):
        option = click.option(
            f"--{name}",
            type=click.FloatRange(0, 1),
            default=default,
            show_default=True,
            metavar="SHARE",
            help=f"Messages or pushes {help_text}.",
        )
        command = option(command)
    return command


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.pass_context
@click.option(
    "--bind", default="127.0.0.1:8100", show_default=True, metavar="HOST:PORT", help="Address that answers sends."
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Answer over HTTPS; with --tls-key.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False))
@click.option("--push-url", metavar="URL", help="Push URL of receipts and replies (`receiver push-url`).")
@click.option("--receipt-url", metavar="URL", help="Push URL of receipts, instead.")
@click.option("--reply-url", metavar="URL", help="Push URL of replies, instead.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Trust these certificates when pushing.")
@click.option("--seed", type=click.IntRange(0), help="Repeat a run: the same sends give the same pushes.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Pushes a second at most; 0: no limit.")
@click.option("--connections", type=click.IntRange(1, 256), default=8, show_default=True, help="Connections that push.")
@click.option("--new-connections", is_flag=True, help="A new connection for every push.")
@click.option("--burst", type=click.IntRange(1), default=1, help="Collect so many pushes, then make them at once.")
@click.option("--retries", type=click.IntRange(0, 100), default=0, help="Push again after anything but a 2xx.")
@_rate_options
@click.option("--reorder", is_flag=True, help="Push the receipts and replies of a message in any order.")
@click.option(
    "--max-delay", type=Duration(), default=timedelta(0), help="Longest delay in the receipts' times, such as 3d."
)
@click.option("--hurry", is_flag=True, help="Push at once, with the times of a delayed push.")
@click.option("--limits", is_flag=True, help="The platform's limits: per number one a minute and ten a day.")
@click.option("--per-day", type=click.IntRange(0), default=0, help="Sends a day at most; 0: no limit.")
@click.option("--balance", type=click.IntRange(0), default=100_000, show_default=True, help="Messages left at first.")
@click.option("--credentials", multiple=True, metavar="APPID:APPKEY", help="Refuse others; may be repeated.")
@click.option("--template", "templates", multiple=True, metavar="ID", help="Refuse others; may be repeated.")
@click.option("--make-up", type=click.IntRange(0), default=0, help="Generate so many messages and push for them.")
@click.option("--days", type=click.IntRange(0, 366), default=0, help="Spread these messages over the last days.")
@click.option("--api", metavar="URL", help="The receiver, to record these messages and for a check.")
@click.option("--key-file", type=click.File(), help="The key for --api; else RECEIVER_API_KEY.")
@click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Write a record of the run to a file.")
@click.option("--once", is_flag=True, help="Stop after the planned pushes, instead of waiting for sends.")
@click.option("--check", type=click.Path(dir_okay=False, exists=True, path_type=Path), metavar="LEDGER",
              help="Only compare a ledger with the receiver at --api.")  # fmt: skip
@click.option(
    "--check-seconds", type=click.IntRange(0, 3600), default=30, help="How long a check may wait for agreement."
)
def simulate(context: click.Context, /, **options: Any) -> None:
    """Simulate the platform: answer sends, push receipts and replies, with the given faults. Ends with a summary.

    Set the receiver's RECEIVER_PLATFORM_URL=http://127.0.0.1:8100/smsApi. The key needs the scopes read and pii for
    a check, and messages:write to record messages.

    \b
    Examples:
      receiver simulate --push-url "$(receiver push-url --active)" --duplicates 0.2 --reorder
      receiver simulate --push-url "$(receiver push-url --active)" --make-up 1000 --days 30 --once --ledger run.json
      receiver simulate --check run.json --api http://127.0.0.1:8000 --key-file key
    """
    if context.invoked_subcommand is not None:
        return
    if options["check"] is not None:
        _check(options)
        return
    stopped = _stop_asked()
    seed = random.randrange(10**6) if options["seed"] is None else options["seed"]  # noqa: S311
    messages = generate_messages(options["make_up"], options["days"], seed, datetime.now(UTC))
    if messages and options["api"]:
        _api(options).record(messages)
    simulator = _simulator(options, seed)
    with simulator:
        print(f"the simulator listens on http{'s' if options['tls_cert'] else ''}://{_host(options)}:{simulator.port}/smsApi"
              f" (seed {seed})", file=sys.stderr, flush=True)  # fmt: skip
        simulator.add_messages(messages)
        with _progress(simulator) as update:
            while not stopped.wait(0.1):
                update()
                if options["once"] and not simulator.waiting:
                    break
    if options["ledger"] is not None:
        simulator.ledger.save(options["ledger"])
    print_json({"seed": seed, **simulator.ledger.summary()})


@simulate.command()
@click.option("--messages", type=click.IntRange(1, 100_000), default=3000, show_default=True)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="If it is in use, another one."
)
def demo(messages: int, port: int) -> None:
    """Run a receiver and a simulated platform on this machine, with thirty days of messages.

    Prints what to try, and runs until Ctrl-C. Leaves no files.

    \b
    Example:
      receiver demo
    """
    stopped = _stop_asked()
    print(f"generating {messages:,} messages over 30 days …", flush=True)
    with run_demo(messages, port) as tour:
        print(tour, flush=True)
        stopped.wait()
    print("\nstopped; all files are removed")


def _stop_asked() -> threading.Event:
    """Return the event that SIGINT and SIGTERM set from now on."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _host(options: dict[str, Any]) -> str:
    host: str = options["bind"].rpartition(":")[0]
    return host


def _simulator(options: dict[str, Any], seed: int) -> Simulator:
    host, _, port = options["bind"].rpartition(":")
    if not host or not port.isdigit():
        raise ReceiverError("--bind: not an address of the form HOST:PORT")
    try:
        return Simulator(
            bind=(host.strip("[]"), int(port)),
            rules=_rules(options),
            how=PushFaults(
                **{name.replace("-", "_"): options[name.replace("-", "_")] for name, _, _ in _RATES},
                reorder=options["reorder"],
                max_delay=options["max_delay"],
                hurry=options["hurry"],
            ),
            target=_target(options),
            seed=seed,
            tls=_server_tls(options),
        )
    except OSError as error:
        raise ReceiverError(f"--bind: {options['bind']}: {error.strerror}") from None


def _rules(options: dict[str, Any]) -> Rules:
    pairs = [text.partition(":") for text in options["credentials"]]
    if any(not app_id or not app_key for app_id, _, app_key in pairs):
        raise ReceiverError("--credentials: not of the form APPID:APPKEY")
    return Rules(
        credentials={app_id: app_key for app_id, _, app_key in pairs} or None,
        templates=frozenset(options["templates"]) or None,
        one_a_minute=options["limits"],
        per_number_per_day=10 if options["limits"] else 0,
        per_day=options["per_day"],
        balance=options["balance"],
    )


def _target(options: dict[str, Any]) -> PushTarget | None:
    receipt_url = options["receipt_url"] or options["push_url"]
    reply_url = options["reply_url"] or options["push_url"]
    if receipt_url is None and reply_url is None:
        return None
    if receipt_url is None or reply_url is None:
        raise ReceiverError("--receipt-url and --reply-url go together; or pass one --push-url for both")
    if any(not url.startswith(("http://", "https://")) for url in (receipt_url, reply_url)):
        raise ReceiverError("a push URL starts with http:// or https://; `receiver push-url` prints it")
    return PushTarget(
        receipt_url=receipt_url,
        reply_url=reply_url,
        connections=options["connections"],
        rate=options["rate"],
        burst=options["burst"],
        retries=options["retries"],
        new_connections=options["new_connections"],
        tls=ssl.create_default_context(cafile=options["ca"]) if options["ca"] else None,
    )


def _server_tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    if options["tls_cert"] is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["tls_cert"], options["tls_key"])
    return context


def _api(options: dict[str, Any]) -> ReceiverApi:
    file = options["key_file"]
    key = file.read().strip() if file is not None else os.environ.get("RECEIVER_API_KEY", "")
    if not options["api"] or not key:
        raise ReceiverError("--api URL is required, with a key by --key-file or RECEIVER_API_KEY")
    return ReceiverApi(options["api"], key)


def _check(options: dict[str, Any]) -> None:
    ledger = Ledger.load(options["check"])
    until: float = time.monotonic() + options["check_seconds"]

    def pause() -> bool:
        time.sleep(0.5)
        return time.monotonic() < until

    found = await_agreement(ledger, _api(options), pause)
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=1))
    if not found.ok:
        raise ReceiverError(f"{len(found.missing)} missing, {len(found.extra)} extra, {len(found.differing)} different")


@contextmanager
def _progress(simulator: Simulator) -> Iterator[Callable[[], None]]:
    """Show the progress, on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def update() -> None:
            done = simulator.ledger.summary()
            text = ", ".join(f"{count:,} {name}" for name, count in done.items())
            bar.update(task, description=f"{text}, {simulator.waiting:,} to come")

        yield update
