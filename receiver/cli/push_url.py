"""`push-url`."""

from __future__ import annotations

import click

from receiver.cli.settings import read_settings
from receiver.config import push_urls


@click.command("push-url")
def push_url() -> None:
    """Print the URLs to paste into the platform's console. They contain the secret: treat them as passwords.

    With several URLs, prints each one's account, whether its secret is active or retiring, and its last push.

    \b
    Example:
      receiver push-url
    """
    urls = push_urls(read_settings())
    if len(urls) == 1:
        print(urls[0][1])
        return
    # The database knows the uses of each. Most have one URL, and all that reads a database takes longer than the rest.
    from receiver.cli.common import open_runtime, secret_lines  # noqa: PLC0415

    with open_runtime() as runtime:
        for (account, url), use in zip(urls, secret_lines(runtime) or [""] * len(urls), strict=True):
            print(f"{account}\t{url}\t{use}".rstrip("\t"))
