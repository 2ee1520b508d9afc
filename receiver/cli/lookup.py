"""`lookup`: what became of a message, as the console answers it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from receiver.cli.common import ACTOR, as_json, known_accounts, one_line, open_runtime, print_json, print_table
from receiver.core import ReceiverError
from receiver.messages.fields import as_json as row_json
from receiver.messages.fields import without_numbers
from receiver.messages.reads import DATA_LAG
from receiver.support.answers import answer_of
from receiver.support.lookup import NearMissFault, parse_lookup
from receiver.support.lookup_service import PERIODS, answer_lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from receiver.messages.queries import MessageRow, ReplyRow
    from receiver.support.answers import Attempts
    from receiver.support.lookup import LookupQuery, NearMiss, ParsedLookup
    from receiver.support.lookup_service import AnsweredGroup, LookupResult

_FAULTS: Mapping[NearMissFault, str] = {
    NearMissFault.TOO_SHORT: "too few digits for a mobile number, which has 11",
    NearMissFault.TOO_LONG: "too many digits for a mobile number, which has 11",
    NearMissFault.LETTERS: "a letter among the digits, such as O for 0",
    NearMissFault.ROUNDED: "rounded by a spreadsheet: its last digits are lost",
    NearMissFault.NOT_MOBILE: "no mobile number: these begin with 13 to 19",
    NearMissFault.END_HIDDEN: "its last four digits are hidden",
}


@click.command("lookup")
@click.argument("text")
@click.option(
    "--period",
    type=click.Choice(list(PERIODS)),
    default=next(iter(PERIODS)),
    show_default=True,
    help="Sent in this time before now. If there is nothing, the newest before it.",
)
@click.option("--account", "accounts", multiple=True, help="Only messages of this account; may be repeated.")
@as_json
def lookup(text: str, period: str, accounts: tuple[str, ...], as_json: bool) -> None:
    """Look up what became of messages, as the console does; it need not run. TEXT - is standard input.

    TEXT is taken as it is pasted: a number in any form, several of them, last four digits, a task id, a reference. A
    number that TEXT does not contain in full is masked. The look-up is audited. The process list shows an argument, but
    not standard input.

    \b
    Examples:
      receiver lookup 15080921090
      echo '150 8092 1090 没收到' | receiver lookup - --period all
    """
    wanted = parse_lookup(sys.stdin.read() if text == "-" else text)
    if wanted is None:
        raise ReceiverError("TEXT: no number, task id, reference or last four digits")
    with open_runtime() as runtime:
        allowed = known_accounts(runtime, accounts)
        for number in wanted.audited:
            runtime.audit(ACTOR, "look_up", mobile=number)
        clock = runtime.clock()
        digest = runtime.mobile_hmac(wanted.numbers[0]) if len(wanted.numbers) == 1 else None
        results = runtime.ask(
            lambda connection: answer_lookup(
                connection,
                wanted,
                within=PERIODS[period],
                clock=clock,
                accounts=None if allowed is None else tuple(allowed),
                digest=digest,
            )
        )
    if (lag := DATA_LAG.get()) is not None:
        print(f"Pushes of the last {lag:.0f} seconds may be missing.", file=sys.stderr)
    if as_json:
        print_json(_as_fields(wanted, results))
    else:
        _print(wanted, results)


def _shown(wanted: ParsedLookup) -> Callable[[MessageRow], MessageRow]:
    """Return what shows a message: its number in full only where it was typed in full."""
    return lambda row: row if row.mobile in wanted.mobiles else without_numbers(row)


# --- For people -----------------------------------------------------------------------------------------


def _print(wanted: ParsedLookup, results: Sequence[LookupResult]) -> None:
    known = [miss for miss in wanted.near_misses if not any(result.names(miss.text) for result in results)]
    for miss in known:
        print(f"{miss.text}: {_FAULTS[miss.fault]}")
    if wanted.more:
        print(f"{wanted.more} more numbers were not looked up.")
    for result in results:
        if known and result.is_empty and len(results) == 1:
            continue  # what is nearly a number says nothing of messages
        print(", ".join(_named(result.queries)))
        _print_result(result, wanted)


def _named(queries: Sequence[LookupQuery]) -> Iterator[str]:
    """Yield what is looked up, in words; the text of a number is one of its meanings only."""
    numbers = {digits for query in queries for digits in (query.mobile, query.last_digits)}
    for query in queries:
        if query.mobile or query.masked:
            yield f"number {query.mobile or query.masked}"
        elif query.last_digits:
            yield f"last digits {query.last_digits}"
        elif query.text not in numbers:
            yield f"task id or reference {query.text}"


def _print_result(result: LookupResult, wanted: ParsedLookup) -> None:
    if result.earlier:
        print("Nothing in the period. The newest before it:")
    if result.groups:
        print_table(
            ["answer", "sent", "receipt", "number", "task", "template", "attempts", "reason"],
            [_cells(group, _shown(wanted)) for group in result.groups],
        )
    elif not result.replies:
        print(_nothing(result))
    for reply in (*(reply for group in result.groups for reply in group.replies), *result.replies):
        print(_reply_line(reply))
    for receipt in result.possible:
        print(f"possible receipt {_time(receipt.reported_at)} {receipt.mobile} task {one_line(receipt.task_id)}")
    if result.further or result.next or result.cut:
        print("There are more messages: the console shows them.")
    elif result.older:
        print("There are older messages: --period all, or the console, shows them.")


def _cells(group: AnsweredGroup, shown: Callable[[MessageRow], MessageRow]) -> list[object]:
    message = shown(group.message)
    return [
        group.answer.replace("_", " "),
        _sent(message),
        _time(message.reported_at) if message.reported_at else "",
        message.mobile,
        message.task_id,
        message.template_id,
        _attempts(group.attempts),
        message.error_message,
    ]


def _sent(message: MessageRow) -> str:
    """Return when a message was sent; where no time of that was recorded, what is known."""
    if message.sent_at is not None:
        return _time(message.sent_at)
    return "not recorded" if message.recorded_at is None else f"recorded {_time(message.recorded_at)}"


def _attempts(attempts: Attempts) -> str:
    """Return how many attempts there were, and what became of the last one if that is another than the answer's."""
    requested = len(attempts.messages)
    if requested == 1:
        return ""
    last = f", the last: {answer_of(attempts.newest).replace('_', ' ')}" if attempts.later else ""
    return f"{requested} requested, {attempts.sent} sent{last}"


def _nothing(result: LookupResult) -> str:
    """Return the sentence where no message is found."""
    if result.unreadable is not None:
        return f"A push that may be about this could not be parsed: {result.unreadable.id}"
    if result.possible:
        return "No message, but a receipt with a masked number may be about this."
    if result.undated:
        return "The code was used, but neither the send nor a receipt is recorded."
    since = f" since {result.kept_since:%Y-%m-%d}; older records have been deleted" if result.kept_since else ""
    return f"No record{since}.{' It was never sent.' if result.never_sent else ''}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _reply_line(reply: ReplyRow) -> str:
    opt_out = " (opt-out)" if reply.opt_out else " (possible opt-out)" if reply.opt_out_review else ""
    return f"reply {_time(reply.replied_at)} {reply.mobile}{opt_out}: {one_line(reply.content)}"


# --- For programs ---------------------------------------------------------------------------------------


def _as_fields(wanted: ParsedLookup, results: Sequence[LookupResult]) -> dict[str, Any]:
    return {
        "near_misses": [_miss_fields(miss) for miss in wanted.near_misses],
        "numbers_not_looked_up": wanted.more,
        "results": [_result_fields(result, wanted) for result in results],
    }


def _miss_fields(miss: NearMiss) -> dict[str, str]:
    return {"text": miss.text, "fault": miss.fault}


def _result_fields(result: LookupResult, wanted: ParsedLookup) -> dict[str, Any]:
    return {
        "looked_up": [dict(_query_fields(query)) for query in result.queries],
        "groups": [_group_fields(group, _shown(wanted)) for group in result.groups],
        "earlier_than_period": result.earlier,
        "more": bool(result.older or result.further or result.next or result.cut),
        "replies": [row_json(reply) for reply in result.replies],
        "possible_receipts": [row_json(receipt) for receipt in result.possible],
        "unparsed_push_id": None if result.unreadable is None else str(result.unreadable.id),
        "never_sent": result.never_sent,
        "kept_since": None if result.kept_since is None else result.kept_since.isoformat(),
    }


def _query_fields(query: LookupQuery) -> Iterator[tuple[str, str]]:
    for name in ("mobile", "last_digits", "masked", "text"):
        if (value := getattr(query, name)) is not None:
            yield name, value


def _group_fields(group: AnsweredGroup, shown: Callable[[MessageRow], MessageRow]) -> dict[str, Any]:
    return {
        "answer": group.answer,
        "message": row_json(shown(group.message)),
        "attempts": [row_json(shown(message)) for message in group.attempts.messages],
        "sent": group.attempts.sent,
        "receipts": [row_json(receipt) for receipt in group.receipts],
        "replies": [row_json(reply) for reply in group.replies],
        "unparsed_push_id": None if group.unreadable is None else str(group.unreadable.id),
    }
