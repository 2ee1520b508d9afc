"""What the platform meets at our public address: name, certificate, TLS, HTTP, and a push of our own."""

from __future__ import annotations

import errno
import http.client
import secrets
import socket
import ssl
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509

from receiver.core import SettingsError
from receiver.net.probe import Handshake, shake_hands, trusting_anybody
from receiver.net.self_test import push_self_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.config import Settings

_PATIENCE_SECONDS = 5.0
_RENEW_DAYS = 14
_ADDRESSES_MAX = 8
_HTTP_PORT = 80
_UNKNOWN_ROOT = 19  # OpenSSL's number for it
_NOT_FROM_HERE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_VERSIONS = (
    ("1.0", ssl.TLSVersion.TLSv1),
    ("1.1", ssl.TLSVersion.TLSv1_1),
    ("1.2", ssl.TLSVersion.TLSv1_2),
    ("1.3", ssl.TLSVersion.TLSv1_3),
)


class EndpointFinding(NamedTuple):
    """What one check has found."""

    check: str
    ok: bool | None  # None: no fault, but to be known
    text: str  # one line; of a fault, with what to do


class PublicEndpointCheck:
    """The checks of one public URL. `plain_port` is where plain HTTP would be looked for."""

    def __init__(self, settings: Settings, url: str, *, ca: Path | None = None, plain_port: int = _HTTP_PORT) -> None:
        parts = urlsplit(url)
        self._settings = settings
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else _HTTP_PORT)
        self._path = parts.path.rstrip("/")
        self._plain_port = plain_port
        self._address = (self._host, self._port)
        self._ca = ca
        self._trusting_roots()

    def check(self) -> Iterator[EndpointFinding]:
        """Make every check, in the order in which a push meets them; stop where none is possible any more."""
        reached = list(self._check_addresses())
        yield from reached
        if any(finding.ok is False for finding in reached):
            return
        proven = False
        if self._tls:
            try:
                seen = self._shake_hands()
            except OSError as error:
                yield EndpointFinding(
                    "TLS", False, f"no handshake on port {self._port}: {_words(error)}; {_no_tls(error)}"
                )
                return
            found = list(self._check_certificate(seen))
            yield from found
            proven = all(finding.ok is not False for finding in found)
            yield self._check_versions()
            yield self._check_without_name(seen)
        else:
            yield EndpointFinding(
                "TLS", False, "plain HTTP: whoever listens reads the secret and the numbers; put HTTPS in front"
            )
            proven = _is_near(self._host)
        yield from self._check_http(proven=proven)

    # --- The way there ---

    def _check_addresses(self) -> Iterator[EndpointFinding]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            yield EndpointFinding("address", False, f"{self._host} is not known to the DNS; give it an A record")
            return
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_ADDRESSES_MAX]
        reached = []
        for address in addresses:
            try:
                socket.create_connection((address, self._port), timeout=_PATIENCE_SECONDS).close()
                reached.append(address)
            except OSError as error:
                if error.errno in _NOT_FROM_HERE:
                    yield EndpointFinding("address", None, f"{address} cannot be tried from here: {_words(error)}")
                else:
                    what_to_do = "open the port in the firewall, see that something listens, or take the address away"
                    yield EndpointFinding(
                        "address", False, f"{address} port {self._port}: {_words(error)}; {what_to_do}"
                    )
        if reached:
            yield EndpointFinding("address", True, f"{', '.join(reached)} port {self._port}")

    # --- TLS ---

    def _trusting_roots(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca)
        except OSError:
            raise SettingsError(f"--ca: {self._ca} holds no certificate that can be read; name a PEM file") from None

    def _shake_hands(self, tls: ssl.SSLContext | None = None, *, named: bool = True) -> Handshake:
        name = self._host if named else None
        return shake_hands(self._address, tls=tls or trusting_anybody(), name=name, timeout_seconds=_PATIENCE_SECONDS)

    def _check_certificate(self, seen: Handshake) -> Iterator[EndpointFinding]:
        own, now = seen.chain[0], datetime.now(UTC)
        left = (own.not_valid_after_utc - now).days
        if own.not_valid_after_utc <= now:
            yield EndpointFinding("certificate", False, f"ended on {own.not_valid_after_utc:%Y-%m-%d}; renew it")
            return
        if own.not_valid_before_utc > now:
            begins = f"{own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
            yield EndpointFinding("certificate", False, f"begins at {begins} only; wait, or set this machine's clock")
            return
        if not _covers(own, self._host):
            names = ", ".join(_names(own)) or "no name at all"
            yield EndpointFinding("certificate", False, f"is for {names}, not for {self._host}; get one for that name")
        elif left < _RENEW_DAYS:
            yield EndpointFinding("certificate", None, f"ends in {left} days; see that its renewal works")
        else:
            yield EndpointFinding("certificate", True, f"for {self._host}, ends in {left} days")
        yield self._check_chain(seen.chain)

    def _check_chain(self, chain: Sequence[x509.Certificate]) -> EndpointFinding:
        roots = self._trusting_roots()
        roots.check_hostname = False  # that was told already
        try:
            self._shake_hands(roots)
        except ssl.SSLCertVerificationError as error:
            return EndpointFinding("chain", False, _distrust(chain, error))
        except OSError as error:
            return EndpointFinding(
                "chain", False, f"no handshake with what is usual today: {_words(error)}; renew its TLS"
            )
        if any(one.issuer != above.subject for one, above in pairwise(chain)):
            return EndpointFinding(
                "chain", None, "complete, but out of order: old clients may refuse it; put each before its issuer"
            )
        return EndpointFinding("chain", True, f"complete: {len(chain)} certificate(s) sent, the root is known")

    def _check_versions(self) -> EndpointFinding:
        spoken = []
        for version, number in _VERSIONS:
            try:
                self._shake_hands(trusting_anybody(number))
                spoken.append(version)
            except OSError:
                continue
        text = f"speaks {', '.join(spoken)}"
        if "1.2" not in spoken:
            return EndpointFinding(
                "TLS versions", False, f"{text}; allow 1.2, the platform's client may know nothing newer"
            )
        if spoken[0] != "1.2":
            return EndpointFinding(
                "TLS versions", None, f"{text}; those before 1.2 are only for a client that needs them"
            )
        return EndpointFinding("TLS versions", True, text)

    def _check_without_name(self, seen: Handshake) -> EndpointFinding:
        check, what_to_do = "without SNI", "make this host the default one of that address"
        try:
            shown = self._shake_hands(named=False).chain[0]
        except OSError as error:
            return EndpointFinding(
                check, False, f"a client that sends no server name is refused: {_words(error)}; {what_to_do}"
            )
        if shown != seen.chain[0] and not _covers(shown, self._host):
            names = ", ".join(_names(shown)) or "nobody"
            return EndpointFinding(
                check, False, f"a client that sends no server name gets {names}'s certificate; {what_to_do}"
            )
        return EndpointFinding(check, True, "a client that sends no server name gets the right certificate")

    # --- HTTP ---

    def _check_http(self, *, proven: bool) -> Iterator[EndpointFinding]:
        now = datetime.now(self._settings.timezone)
        try:
            # Whoever it is that answers: this secret is nobody's.
            wrong = push_self_test(self._connection(proven=False), self._target(secrets.token_urlsafe(32)), at=now)
        except OSError as error:
            yield EndpointFinding(
                "wrong secret", False, f"no answer: {_words(error)}; see the log of what listens there"
            )
            return
        if 300 <= wrong.status < 400:
            where = _origin(wrong.location)
            yield EndpointFinding(
                "redirect", False, f"pushes are redirected{where}, and lost by it; serve /push/ as it is asked for"
            )
            return
        if wrong.status == 404:
            yield EndpointFinding("wrong secret", True, "is answered with 404")
        else:
            what_to_do = (
                "it has to be 404: see that the receiver is behind it, and that nothing in front answers itself"
            )
            yield EndpointFinding("wrong secret", False, f"is answered with {wrong.status}; {what_to_do}")
        yield from self._check_plain_port()
        if proven:
            yield self._check_push()
        else:
            yield EndpointFinding(
                "self-test", False, "not made: the secret goes to a proven server only; mend the above"
            )

    def _check_plain_port(self) -> Iterator[EndpointFinding]:
        if not self._tls:
            return
        connection = http.client.HTTPConnection(self._host, self._plain_port, timeout=_PATIENCE_SECONDS)
        target = self._target(secrets.token_urlsafe(32))
        try:
            answer = push_self_test(connection, target, at=datetime.now(self._settings.timezone))
        except OSError:
            return
        if 300 <= answer.status < 400:
            text = f"port {self._plain_port} redirects: paste the https:// URL, a push to http:// is lost"
            yield EndpointFinding("plain HTTP", None, text)
        elif answer.status == 404:
            text = f"port {self._plain_port} takes requests too, and there the secret can be read on the way"
            yield EndpointFinding("plain HTTP", None, text)

    def _check_push(self) -> EndpointFinding:
        check = "self-test"
        began = time.monotonic()
        target = self._target(self._settings.push_tokens[0][1])
        at = datetime.now(self._settings.timezone)
        try:
            answer = push_self_test(self._connection(proven=True), target, at=at)
        except OSError as error:
            return EndpointFinding(check, False, f"no answer: {_words(error)}; see the receiver's log")
        took = round((time.monotonic() - began) * 1000)
        if answer.status == self._settings.ack_status and answer.kept:
            return EndpointFinding(check, True, f"acknowledged in {took} ms and kept, X-Push-Id {answer.push_id}")
        if answer.status == 403:
            return EndpointFinding(
                check, None, "RECEIVER_PUSH_ALLOW lets nothing from this machine in, so it ends here"
            )
        if answer.status == 404:
            what_to_do = "give it the RECEIVER_PUSH_TOKENS that are set here, or look where the URL leads"
            return EndpointFinding(check, False, f"what answers knows another secret; {what_to_do}")
        if answer.status == self._settings.ack_status:
            what_to_do = "see what stands in front, it may answer itself or drop headers"
            return EndpointFinding(check, False, f"acknowledged by something else, X-Push-Id is missing; {what_to_do}")
        return EndpointFinding(check, False, f"answered with {answer.status}, not acknowledged; see the receiver's log")

    def _target(self, secret: str) -> str:
        return f"{self._path}/push/{secret}"

    def _connection(self, *, proven: bool) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE_SECONDS)
        tls = self._trusting_roots() if proven else trusting_anybody()
        return http.client.HTTPSConnection(self._host, self._port, timeout=_PATIENCE_SECONDS, context=tls)


def _distrust(chain: Sequence[x509.Certificate], error: ssl.SSLCertVerificationError) -> str:
    """Say why a client that knows only roots does not accept a chain."""
    now = datetime.now(UTC)
    for above in chain[1:]:
        if not above.not_valid_before_utc <= now < above.not_valid_after_utc:
            return f"«{_text(above.subject)}» in it does not hold today; take the authority's present chain"
    top = chain[0]
    by_subject = {each.subject: each for each in chain[1:]}
    for _ in chain:
        top = by_subject.get(top.issuer, top)
    if top.issuer != top.subject:
        return (
            f"«{_text(top.issuer)}» is missing: the server does not send it, and it is no root that is known here; "
            "serve the whole chain (fullchain.pem), or name a private authority's root by --ca"
        )
    if top is chain[0]:
        return "self-signed: no platform trusts it; get a certificate of a public authority"
    if error.verify_code == _UNKNOWN_ROOT:
        return f"«{_text(top.subject)}» is no root that is known here; get one of a public authority, or use --ca"
    return f"not accepted: {error.verify_message}; take the authority's present chain"


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the names that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return found.get_values_for_type(x509.DNSName) + addresses


def _covers(certificate: x509.Certificate, host: str) -> bool:
    names = [name.lower() for name in _names(certificate)]
    try:
        return str(ip_address(host)) in names
    except ValueError:
        first, _, rest = host.lower().encode("idna").decode().partition(".")
        return f"{first}.{rest}".rstrip(".") in names or f"*.{rest}" in names


def _text(name: x509.Name) -> str:
    return name.rfc4514_string()


def _origin(location: str | None) -> str:
    """Say where a redirect leads, without its path, which holds a secret."""
    parts = urlsplit(location or "")
    return f" to {parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme and parts.netloc else ""


def _is_near(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _no_tls(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it speaks plain HTTP there: put HTTPS in front, or set RECEIVER_TLS_CERT and RECEIVER_TLS_KEY"
    return "see the TLS settings of what listens there"


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_PATIENCE_SECONDS:.0f} s"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or type(error).__name__
