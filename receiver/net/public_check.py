"""Checks of the public URL as the platform sees it: DNS, certificate, TLS, HTTP, and a test push."""

from __future__ import annotations

import errno
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

from receiver.config import is_loopback
from receiver.core import SettingsError
from receiver.net.egress import open_client
from receiver.net.egress_policy import EgressError, EgressFault, EgressUnsendable, TargetUrl, ascii_host
from receiver.net.handshake import Handshake, shake_hands
from receiver.net.probe import unverified_context
from receiver.net.self_test import SelfTestAnswer, push_self_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from receiver.config import Settings

_PATIENCE_SECONDS = 5.0
_RENEW_DAYS = 14
_ADDRESSES_MAX = 8
_HTTP_PORT = 80
_UNKNOWN_ROOT = 19  # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN of OpenSSL
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_VERSIONS = (
    ("1.0", ssl.TLSVersion.TLSv1),
    ("1.1", ssl.TLSVersion.TLSv1_1),
    ("1.2", ssl.TLSVersion.TLSv1_2),
    ("1.3", ssl.TLSVersion.TLSv1_3),
)


class EndpointFinding(NamedTuple):
    """The result of one check."""

    check: str
    ok: bool | None  # None: no fault, but worth knowing
    text: str  # one line; for a fault, also what to do


class PublicEndpointCheck:
    """The checks of one public URL. `plain_port` is the port to check for plain HTTP."""

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
        """Yield the result of each check, in the order of a push, up to a fault that blocks the rest."""
        reached = list(self._check_addresses())
        yield from reached
        if any(finding.ok is False for finding in reached):
            return
        trusted = False
        if self._tls:
            try:
                handshake = self._shake_hands()
            except OSError as error:
                yield EndpointFinding(
                    "TLS", False, f"no handshake on port {self._port}: {_reason(error)}; {_tls_advice(error)}"
                )
                return
            findings = list(self._check_certificate(handshake))
            yield from findings
            trusted = all(finding.ok is not False for finding in findings)
            yield self._check_versions()
            yield self._check_without_name(handshake)
        else:
            yield EndpointFinding(
                "TLS", False, "plain HTTP: the secret and the numbers can be read on the way; put HTTPS in front"
            )
            trusted = is_loopback(self._host)
        yield from self._check_http(trusted=trusted)

    # --- Addresses ---

    def _check_addresses(self) -> Iterator[EndpointFinding]:
        try:
            entries = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            yield EndpointFinding("address", False, f"{self._host} does not resolve; add an A record to the DNS")
            return
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))[:_ADDRESSES_MAX]
        reached = []
        for address in addresses:
            try:
                socket.create_connection((address, self._port), timeout=_PATIENCE_SECONDS).close()
                reached.append(address)
            except OSError as error:
                if error.errno in _NO_ROUTE:
                    yield EndpointFinding("address", None, f"{address} is not reachable from here: {_reason(error)}")
                else:
                    advice = "open the port in the firewall, check the server, or remove the DNS record"
                    yield EndpointFinding("address", False, f"{address} port {self._port}: {_reason(error)}; {advice}")
        if reached:
            yield EndpointFinding("address", True, f"{', '.join(reached)} port {self._port}")

    # --- TLS ---

    def _trusting_roots(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca)
        except OSError:
            raise SettingsError(f"--ca: {self._ca} contains no readable certificate; pass a PEM file") from None

    def _shake_hands(self, tls: ssl.SSLContext | None = None, *, named: bool = True) -> Handshake:
        name = self._host if named else None
        return shake_hands(self._address, tls=tls or unverified_context(), name=name, timeout_seconds=_PATIENCE_SECONDS)

    def _check_certificate(self, handshake: Handshake) -> Iterator[EndpointFinding]:
        own, now = handshake.chain[0], datetime.now(UTC)
        left = (own.not_valid_after_utc - now).days
        if own.not_valid_after_utc <= now:
            yield EndpointFinding("certificate", False, f"expired on {own.not_valid_after_utc:%Y-%m-%d}; renew it")
            return
        if own.not_valid_before_utc > now:
            begins = f"{own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
            yield EndpointFinding("certificate", False, f"not valid before {begins}; wait, or set this machine's clock")
            return
        if not _covers(own, self._host):
            names = ", ".join(_names(own)) or "no name"
            yield EndpointFinding("certificate", False, f"is for {names}, not for {self._host}; get one for that name")
        elif left < _RENEW_DAYS:
            yield EndpointFinding("certificate", None, f"expires in {left} days; check that its renewal works")
        else:
            yield EndpointFinding("certificate", True, f"for {self._host}, expires in {left} days")
        yield self._check_chain(handshake.chain)

    def _check_chain(self, chain: Sequence[x509.Certificate]) -> EndpointFinding:
        roots = self._trusting_roots()
        roots.check_hostname = False  # _check_certificate has reported that
        try:
            self._shake_hands(roots)
        except ssl.SSLCertVerificationError as error:
            return EndpointFinding("chain", False, _chain_fault(chain, error))
        except OSError as error:
            return EndpointFinding(
                "chain", False, f"no handshake with today's usual TLS: {_reason(error)}; update the server's TLS"
            )
        if any(one.issuer != above.subject for one, above in pairwise(chain)):
            return EndpointFinding(
                "chain", None, "complete, but out of order: old clients may refuse it; put each before its issuer"
            )
        return EndpointFinding("chain", True, f"complete: {len(chain)} certificate(s) sent, trusted root")

    def _check_versions(self) -> EndpointFinding:
        spoken = []
        for version, number in _VERSIONS:
            try:
                self._shake_hands(unverified_context(number))
                spoken.append(version)
            except OSError:
                continue
        text = f"speaks {', '.join(spoken)}"
        if "1.2" not in spoken:
            return EndpointFinding(
                "TLS versions", False, f"{text}; allow 1.2: the platform's client may not support 1.3"
            )
        if spoken[0] != "1.2":
            return EndpointFinding(
                "TLS versions", None, f"{text}; disable versions before 1.2, unless a client needs them"
            )
        return EndpointFinding("TLS versions", True, text)

    def _check_without_name(self, handshake: Handshake) -> EndpointFinding:
        check, advice = "without SNI", "make this host the default of its address"
        try:
            default = self._shake_hands(named=False).chain[0]
        except OSError as error:
            return EndpointFinding(check, False, f"a client without SNI is refused: {_reason(error)}; {advice}")
        if default != handshake.chain[0] and not _covers(default, self._host):
            names = ", ".join(_names(default)) or "no name"
            return EndpointFinding(check, False, f"a client without SNI gets a certificate for {names}; {advice}")
        return EndpointFinding(check, True, "a client without SNI gets the right certificate")

    # --- HTTP ---

    def _check_http(self, *, trusted: bool) -> Iterator[EndpointFinding]:
        try:
            # A random secret: an untrusted server may see it.
            answer = self._push(secrets.token_urlsafe(32), tls=unverified_context())
        except EgressError as error:
            yield EndpointFinding("wrong secret", False, f"no answer: {error}; see the log of that server")
            return
        if 300 <= answer.status < 400:
            where = _origin(answer.location)
            yield EndpointFinding(
                "redirect", False, f"pushes are redirected{where}, and lost; serve /push/ without a redirect"
            )
            return
        if answer.status == 404:
            yield EndpointFinding("wrong secret", True, "is answered with 404")
        else:
            advice = "expected 404: check that the proxy passes requests to the receiver and answers none itself"
            yield EndpointFinding("wrong secret", False, f"is answered with {answer.status}; {advice}")
        yield from self._check_plain_port()
        if trusted:
            yield self._check_push()
        else:
            yield EndpointFinding("self-test", False, "skipped: only a trusted server gets the secret; fix the above")

    def _check_plain_port(self) -> Iterator[EndpointFinding]:
        if not self._tls:
            return
        try:
            answer = self._push(secrets.token_urlsafe(32), plain_port=self._plain_port)
        except EgressError:
            return
        if 300 <= answer.status < 400:
            text = f"port {self._plain_port} redirects: use the https:// URL, a push to http:// is lost"
            yield EndpointFinding("plain HTTP", None, text)
        elif answer.status == 404:
            text = f"port {self._plain_port} takes requests too; there the secret can be read on the way"
            yield EndpointFinding("plain HTTP", None, text)

    def _check_push(self) -> EndpointFinding:
        check = "self-test"
        began = time.monotonic()
        try:
            answer = self._push(self._settings.push_tokens[0][1], tls=self._trusting_roots())
        except EgressError as error:
            return EndpointFinding(check, False, f"no answer: {error}; see the receiver's log")
        milliseconds = round((time.monotonic() - began) * 1000)
        if answer.status == self._settings.ack_status and answer.kept:
            return EndpointFinding(
                check, True, f"acknowledged in {milliseconds} ms and stored, X-Push-Id {answer.push_id}"
            )
        if answer.status == 403:
            return EndpointFinding(check, None, "not possible: RECEIVER_PUSH_ALLOW refuses this machine's address")
        if answer.status == 404:
            advice = "set the same RECEIVER_PUSH_TOKENS there and here, or check where the URL leads"
            return EndpointFinding(check, False, f"the server there has another secret; {advice}")
        if answer.status == self._settings.ack_status:
            advice = "check the proxy in front: it may answer itself or drop headers"
            return EndpointFinding(check, False, f"acknowledged by another server, without X-Push-Id; {advice}")
        return EndpointFinding(check, False, f"answered with {answer.status}, not acknowledged; see the receiver's log")

    def _push(self, secret: str, *, tls: ssl.SSLContext | None = None, plain_port: int | None = None) -> SelfTestAnswer:
        """Push to the URL with that secret; `plain_port`: by plain HTTP, there. Raises EgressError."""
        scheme = "https" if self._tls and plain_port is None else "http"
        try:
            place = TargetUrl(scheme=scheme, host=ascii_host(self._host), port=plain_port or self._port)
        except ValueError:
            raise EgressUnsendable(EgressFault.UNUSABLE_URL) from None
        now = datetime.now(self._settings.timezone)
        path = f"{self._path}/push/{secret}"
        return push_self_test(open_client(place, tls=tls), path, at=now, seconds=_PATIENCE_SECONDS)


def _chain_fault(chain: Sequence[x509.Certificate], error: ssl.SSLCertVerificationError) -> str:
    """Return why a client with root certificates only does not accept a chain."""
    now = datetime.now(UTC)
    for above in chain[1:]:
        if not above.not_valid_before_utc <= now < above.not_valid_after_utc:
            return f"«{_text(above.subject)}» in it is not valid today; use the authority's current chain"
    top = chain[0]
    by_subject = {each.subject: each for each in chain[1:]}
    for _ in chain:
        top = by_subject.get(top.issuer, top)
    if top.issuer != top.subject:
        return (
            f"«{_text(top.issuer)}» is missing: the server does not send it, and this machine does not trust it; "
            "serve the whole chain (fullchain.pem), or pass a private authority's root as --ca"
        )
    if top is chain[0]:
        return "self-signed: no platform trusts it; get a certificate from a public authority"
    if error.verify_code == _UNKNOWN_ROOT:
        return f"this machine does not trust the root «{_text(top.subject)}»; use a public authority, or --ca"
    return f"not accepted: {error.verify_message}; use the authority's current chain"


def _names(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return names.get_values_for_type(x509.DNSName) + addresses


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
    """Return where a redirect leads, without its path, which contains the secret."""
    parts = urlsplit(location or "")
    return f" to {parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme and parts.netloc else ""


def _tls_advice(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "the port speaks plain HTTP: put HTTPS in front, or set RECEIVER_TLS_CERT and RECEIVER_TLS_KEY"
    return "check the TLS settings of the server there"


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_PATIENCE_SECONDS:.0f} s"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or type(error).__name__
