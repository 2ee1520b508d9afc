"""The menu of the staff pages: one table of its entries, and what the current user sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask_babel import lazy_gettext

from receiver.web.console.session import POLICIES, reason_against

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from receiver.web.console.session import CurrentUser

# Group: its pages, as endpoint and label. Pages of the first group stand in the bar itself, the others in a menu. Who
# sees a page says POLICIES alone.
_GROUPS: Sequence[tuple[Any, Mapping[str, Any]]] = (
    (
        None,
        {
            "console.home": lazy_gettext("Look up"),
            "console.messages": lazy_gettext("Messages"),
            "console.replies": lazy_gettext("Replies"),
            "console.cases": lazy_gettext("Cases"),
            "console.opt_outs": lazy_gettext("Opt-out list"),
        },
    ),
    (
        lazy_gettext("Figures"),
        {
            "console.reports": lazy_gettext("Reports"),
            "console.exports": lazy_gettext("Exports"),
        },
    ),
    (
        lazy_gettext("Service"),
        {
            "console.status": lazy_gettext("Status"),
            "console.incidents": lazy_gettext("Incidents"),
            "console.tail": lazy_gettext("Live pushes"),
            "console.pushes": lazy_gettext("Journal"),
            "console.setup": lazy_gettext("Setup"),
            "console.docs": lazy_gettext("Documentation"),
        },
    ),
    (
        lazy_gettext("Settings"),
        {
            "console.users": lazy_gettext("Users"),
            "console.keys": lazy_gettext("API keys"),
            "console.webhooks": lazy_gettext("Webhooks"),
            "console.advice": lazy_gettext("Advice"),
            "console.audit": lazy_gettext("Audit log"),
            "console.access": lazy_gettext("Access review"),
        },
    ),
)
# Pages without a permission of their own that are of use to some only.
_SEEN_BY = {"console.home": POLICIES["console.look_up"]}


@dataclass(frozen=True, slots=True)
class Group:
    """The pages of one group that a user may see."""

    label: Any  # None: they stand in the bar itself
    pages: Mapping[str, Any]


def find_navigation(user: CurrentUser) -> list[Group]:
    """Return the groups that a user sees, with the pages that they may open."""
    groups = []
    for label, pages in _GROUPS:
        seen = {
            endpoint: text
            for endpoint, text in pages.items()
            if reason_against(user, endpoint, _SEEN_BY.get(endpoint, POLICIES[endpoint])) is None
        }
        if seen:
            groups.append(Group(label, seen))
    return groups
