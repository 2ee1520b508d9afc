"""`receiver doctor --public-url`: each fault that the platform would meet is found, and said with what to do."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import NameOID

from receiver.net.public_check import PublicEndpointCheck
from tests.conftest import OTHER_SECRET, SECRET, make_settings
from tests.harness.certificates import Files
from tests.harness.ports import free_port
from tests.harness.server import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from receiver.net.public_check import EndpointFinding

FINE = (200, {"X-Push-Id": "01a20ba6-9e90-722a-ad43-577ce8e17ffe", "X-Push-Outcome": "accepted"})
NOT_FOUND: tuple[int, Mapping[str, str]] = (404, {})


class Scripted(ThreadingHTTPServer):
    """A server that answers a push with the real secret so, and any other so."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None, right: Any, wrong: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tls = tls
        self.right, self.wrong = right, wrong
        self.secrets: list[str] = []  # that came in

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a handshake that was broken off."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        secret = self.path.rpartition("/")[2]
        self.server.secrets.append(secret)
        status, headers = self.server.right if secret == SECRET else self.server.wrong
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def scripted(tls: ssl.SSLContext | None, *, right: Any = FINE, wrong: Any = NOT_FOUND) -> Iterator[Scripted]:
    with Scripted(tls, right, wrong) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class World:
    """An authority that everybody knows, and what is found at a server there."""

    def __init__(self, place: Path) -> None:
        self.root = trustme.CA()
        self.ca = place / "roots.pem"
        self.root.cert_pem.write_to_path(str(self.ca))
        self.settings = make_settings("", place)

    def tls(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or self.root.issue_cert("localhost")).configure_cert(context)
        return context

    def find(
        self, server: Scripted, *, host: str = "localhost", plain_port: int | None = None, **changes: Any
    ) -> dict[str, EndpointFinding]:
        scheme = "http" if server.tls is None else "https"
        url = changes.pop("url", f"{scheme}://{host}:{server.server_port}")
        outside = PublicEndpointCheck(self.settings, url, ca=self.ca, plain_port=plain_port or free_port())
        found = list(outside.check())
        text = "\n".join(finding.text for finding in found)
        assert SECRET not in text
        assert len(text.splitlines()) == len(found)
        return {finding.check: finding for finding in found}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def faults(found: Mapping[str, EndpointFinding]) -> set[str]:
    return {check for check, finding in found.items() if finding.ok is False}


# --- A server that is well ----------------------------------------------------------------------------


def test_receiver_that_is_set_up_well_has_no_fault_and_keeps_the_self_test(tmp_path: Path) -> None:
    root = trustme.CA()
    files = Files(tmp_path, root.create_child_ca())
    roots = tmp_path / "roots.pem"
    root.cert_pem.write_to_path(str(roots))
    trusting = ssl.create_default_context(cafile=str(roots))
    with ServeProcess(tmp_path, environment=files.environment, tls=trusting) as process:
        url = f"https://localhost:{process.port}"
        checked = process.run("doctor", "--public-url", url, "--ca", str(roots))
        assert (checked.returncode, checked.stderr) == (0, "")
        told = {line[6:].partition(":")[0]: line for line in checked.stdout.splitlines()}
        assert list(told) == [
            "address", "certificate", "chain", "TLS versions", "without SNI", "wrong secret", "self-test",
        ]  # fmt: skip
        assert all(line.startswith("ok") for line in told.values()), checked.stdout
        assert "complete: 2 certificate(s) sent" in told["chain"]
        assert told["TLS versions"].endswith("speaks 1.2, 1.3")
        push_id = told["self-test"].rpartition(" ")[2]
        key = process.make_key("pushes", "read")
        kept = process.request("GET", "/api/v1/pushes", headers=key).json["items"]
        assert [row["id"] for row in kept] == [push_id]
        assert process.request("GET", "/api/v1/messages", headers=key).json["items"] == []

        unknown = process.run("doctor", "--json", "--public-url", url)
        assert unknown.returncode == 1
        by_check = {row["check"]: row for row in json.loads(unknown.stdout)}
        assert (by_check["chain"]["ok"], by_check["self-test"]["ok"]) == (False, False)
        assert "--ca" in by_check["chain"]["text"]
        assert SECRET not in checked.stdout + unknown.stdout + unknown.stderr


def test_url_is_the_setting_or_has_to_be_named(tmp_path: Path) -> None:
    port = free_port()
    nobody = ServeProcess(tmp_path, environment={"RECEIVER_PUBLIC_URL": f"https://localhost:{port}"})
    assert f"FAIL  address: 127.0.0.1 port {port}" in nobody.run("doctor", "--public-url").stdout
    unset = ServeProcess(tmp_path).run("doctor", "--public-url")
    assert (unset.returncode, len(unset.stderr.splitlines())) == (1, 1)
    assert "RECEIVER_PUBLIC_URL: not set" in unset.stderr


# --- What may be wrong with the certificate -----------------------------------------------------------


def test_chain_without_its_intermediate_is_found_and_the_missing_one_named(world: World, tmp_path: Path) -> None:
    between = world.root.create_child_ca()
    leaf = between.issue_cert("localhost")
    with scripted(world.tls(leaf)) as server:
        assert faults(world.find(server)) == set()
    files = Files(tmp_path)
    files.write(leaf)
    files.chain.write_bytes(leaf.cert_chain_pems[0].bytes())
    with scripted(files.serving()) as server:
        found = world.find(server)
        assert faults(found) == {"chain", "self-test"}
        assert "is missing" in found["chain"].text
        assert "fullchain.pem" in found["chain"].text
        assert "Testing CA" in found["chain"].text  # of the authority between, by its own name
        assert SECRET not in server.secrets


def test_certificate_for_another_name_is_found(world: World) -> None:
    with scripted(world.tls(world.root.issue_cert("sms.example.com", "*.example.org"))) as server:
        found = world.find(server)
        assert faults(found) >= {"certificate", "self-test"}
        assert "is for sms.example.com, *.example.org, not for localhost" in found["certificate"].text
        assert SECRET not in server.secrets


def test_certificate_that_has_ended_or_ends_soon_is_told(world: World) -> None:
    now = datetime.now(UTC)
    ended = world.root.issue_cert("localhost", not_before=now - timedelta(days=90), not_after=now - timedelta(days=1))
    with scripted(world.tls(ended)) as server:
        found = world.find(server)
        assert faults(found) == {"certificate", "self-test"}
        assert "expired on" in found["certificate"].text
        assert SECRET not in server.secrets
    soon = world.root.issue_cert("localhost", not_after=now + timedelta(days=5, hours=1))
    with scripted(world.tls(soon)) as server:
        found = world.find(server)
        assert faults(found) == set()
        assert (found["certificate"].ok, found["certificate"].text[:17]) == (None, "expires in 5 days")


def test_private_authority_whose_root_is_sent_is_told_by_its_name(world: World, tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.chain.write_bytes(files.chain.read_bytes() + files.authority.cert_pem.bytes())
    with scripted(files.serving()) as server:
        found = world.find(server)
        assert faults(found) == {"chain", "self-test"}
        assert "does not trust the root" in found["chain"].text
        assert "; use a public authority, or --ca" in found["chain"].text


def test_self_signed_certificate_is_called_so(world: World, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Files(tmp_path)
    files.chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with scripted(files.serving()) as server:
        found = world.find(server)
        assert faults(found) == {"chain", "self-test"}
        assert found["chain"].text.startswith("self-signed")


# --- What may be wrong with TLS -----------------------------------------------------------------------


def test_server_of_tls_13_alone_is_found(world: World) -> None:
    tls = world.tls()
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    with scripted(tls) as server:
        found = world.find(server)
        assert faults(found) == {"TLS versions"}
        assert "speaks 1.3; allow 1.2" in found["TLS versions"].text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_versions_are_a_note(world: World) -> None:
    tls = world.tls()
    tls.minimum_version = ssl.TLSVersion.TLSv1
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    with scripted(tls) as server:
        versions = world.find(server)["TLS versions"]
        assert (versions.ok, "speaks 1.0, 1.1, 1.2, 1.3" in versions.text) == (None, True)


@pytest.mark.parametrize("refuses", [False, True], ids=["another", "none"])
def test_client_without_sni_that_gets_another_certificate_or_none_is_found(world: World, refuses: bool) -> None:
    right, first = world.tls(), world.tls(world.root.issue_cert("other.example.com"))

    def choose(connection: Any, name: str | None, _context: ssl.SSLContext) -> int | None:
        if name == "localhost":
            connection.context = right
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if refuses and name is None else None

    first.sni_callback = choose
    with scripted(first) as server:
        found = world.find(server)
        assert faults(found) == {"without SNI"}
        assert ("is refused" if refuses else "gets a certificate for other.example.com") in found["without SNI"].text
        assert "the default of its address" in found["without SNI"].text


# --- What may be wrong with the rest ------------------------------------------------------------------


def test_plain_http_is_a_fault_and_so_is_plain_http_where_https_is_meant(world: World) -> None:
    with scripted(None) as server:
        found = world.find(server, host="127.0.0.1")
        assert faults(found) == {"TLS"}
        assert found["self-test"].ok
        meant = world.find(server, url=f"https://localhost:{server.server_port}")
        assert faults(meant) == {"TLS"}
        assert "RECEIVER_TLS_CERT" in meant["TLS"].text


def test_redirect_of_pushes_is_found_and_its_target_told_without_the_path(world: World) -> None:
    moved = (301, {"Location": f"https://www.example.com/push/{OTHER_SECRET}"})
    with scripted(world.tls(), wrong=moved, right=moved) as server:
        found = world.find(server)
        assert faults(found) == {"redirect"}
        assert found["redirect"].text.startswith("pushes are redirected to https://www.example.com, and lost")
        assert SECRET not in server.secrets


def test_redirect_of_plain_http_is_a_note(world: World) -> None:
    moved = (308, {"Location": "https://localhost/"})
    with scripted(None, wrong=moved) as plain, scripted(world.tls()) as server:
        found = world.find(server, plain_port=plain.server_port)
        assert faults(found) == set()
        assert "a push to http:// is lost" in found["plain HTTP"].text
    with scripted(None) as plain, scripted(world.tls()) as server:
        assert "can be read on the way" in world.find(server, plain_port=plain.server_port)["plain HTTP"].text


@pytest.mark.parametrize(
    ("right", "wrong", "check", "said"),
    [
        (FINE, FINE, "wrong secret", "answered with 200; expected 404"),
        (FINE, (502, {}), "wrong secret", "answered with 502"),
        (NOT_FOUND, NOT_FOUND, "self-test", "RECEIVER_PUSH_TOKENS"),
        ((200, {}), NOT_FOUND, "self-test", "without X-Push-Id"),
        ((503, {}), NOT_FOUND, "self-test", "answered with 503"),
    ],
)
def test_answers_that_are_not_the_receivers_are_found(
    world: World, right: Any, wrong: Any, check: str, said: str
) -> None:
    with scripted(world.tls(), right=right, wrong=wrong) as server:
        found = world.find(server)
    assert faults(found) == {check}
    assert said in found[check].text


def test_name_in_chinese_is_asked_for_as_the_dns_has_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(None) as server:
        here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.server_port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: here)
        found = world.find(server, host="短信.example")
    assert found["address"].ok


def test_address_that_nobody_can_reach_is_said(world: World) -> None:
    with scripted(world.tls()) as server:
        unknown = world.find(server, url="https://no-such-host.invalid")
    assert "DNS" in unknown["address"].text
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = {
        finding.check: finding for finding in PublicEndpointCheck(world.settings, f"https://127.0.0.1:{port}").check()
    }
    assert (list(found), found["address"].ok) == (["address"], False)
    assert "firewall" in found["address"].text
