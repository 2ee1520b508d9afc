"""`push-url`."""

from __future__ import annotations

import click

from receiver.cli.settings import read_settings
from receiver.config import push_urls
from receiver.core import SettingsError


@click.command("push-url")
@click.option("--active", is_flag=True, help="Print only the URL with the active secret, for use in a command.")
@click.option("--account", help="Whose URLs. --active needs it where there are several accounts.")
def push_url(active: bool, account: str | None) -> None:
    """Print the URLs to paste into the platform's console. They contain the secret: treat them as passwords.

    With several URLs, prints each one's account, whether its secret is active or retiring, and its last push.

    \b
    Example:
      receiver push-url
      receiver push-url --active --account default
    """
    urls = push_urls(read_settings())
    accounts = list(dict.fromkeys(of for of, _ in urls))
    if account is not None and account not in accounts:
        raise SettingsError(f"--account: {account}: no such account is configured")
    if active and account is None and len(accounts) > 1:
        raise SettingsError(f"--account: choose one of {', '.join(accounts)}")
    wanted = [url for of, url in urls if account in (None, of)]
    if active or len(wanted) == 1:
        print(wanted[0])  # an account's first secret is its active one
        return
    # The database knows the uses of each. Most have one URL, and all that reads a database takes longer than the rest.
    from receiver.cli.common import open_store  # noqa: PLC0415
    from receiver.cli.state import secret_lines  # noqa: PLC0415

    with open_store() as store:
        for (of, url), use in zip(urls, secret_lines(store) or [""] * len(urls), strict=True):
            if url in wanted:
                print(f"{of}\t{url}\t{use}".rstrip("\t"))
