"""Settings: read once, every wrong one named, secrets never shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from receiver.config import load_settings
from receiver.core import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

A, B = "a-secret-of-22-letters", "b-secret-of-22-letters"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("RECEIVER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.embedded
    assert settings.data_dir == tmp_path / "var"
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert (settings.ack_status, settings.ack_body) == (200, "ok")
    assert load_settings().push_tokens == settings.push_tokens
    assert (settings.push_tokens_generated, load_settings().push_tokens_generated) == (True, False)
    assert settings.push_tokens[0][1] not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVER_DATA_DIR", '"/data"'),
        ("RECEIVER_ACK_BODY", "'ok'"),
        ("RECEIVER_OPT_OUT_WORDS", '"T,退订"'),
        ("RECEIVER_TIME_FORMATS", '"%Y/%m/%d %H:%M:%S"'),
        ("RECEIVER_PUSH_TOKENS", f'"default:{A}"'),
    ],
)
def test_quotation_marks_that_nothing_has_taken_off_stop_the_start(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)  # as docker run --env-file hands it on
    with pytest.raises(SettingsError, match=f"{name}: in quotation marks"):
        load_settings()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    assert load_settings(tmp_path / "none")
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    assert load_settings()  # here they are syntax


def test_quotation_marks_of_a_file_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "body").write_text('"ok"\n')
    monkeypatch.setenv("RECEIVER_ACK_BODY_FILE", str(tmp_path / "body"))
    assert load_settings().ack_body == '"ok"'


@pytest.mark.parametrize("written", ["shop:{}", "\ufeffshop:{}\r\n", "\n shop:{} \n\n"])
def test_secret_is_read_as_any_editor_writes_it(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_bytes(written.format(A).encode())
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS_FILE", str(tmp_path / "tokens"))
    assert load_settings().push_tokens == (("shop", A),)


def test_env_file_works_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("RECEIVER_ACK_BODY=SUCCESS\nRECEIVER_BIND=127.0.0.1:1\n")
    monkeypatch.setenv("RECEIVER_BIND", "[::1]:9000")
    settings = load_settings()
    assert (settings.ack_body, settings.bind) == ("SUCCESS", ("::1", 9000))


def test_secret_comes_from_a_file_or_from_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "RECEIVER_PUSH_TOKENS").write_text(f"shop:{A}\n")
    (tmp_path / "tokens").write_text(f"bank:{B}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert load_settings().push_tokens == (("shop", A),)
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS_FILE", str(tmp_path / "tokens"))
    assert load_settings().push_tokens == (("bank", B),)
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match=r"RECEIVER_PUSH_TOKENS: cannot read the file of RECEIVER_PUSH_TOKENS_FILE"):
        load_settings()


@pytest.mark.parametrize(
    "given",
    [
        "TD，不要了, stop ,", "TD、不要了、stop", "TD;不要了;stop", "TD；不要了；stop", "TD|不要了|stop",
        "TD\n不要了\nstop", "TD 不要了 stop", "TD\u3000不要了\tstop", ",TD,不要了, ,stop",
    ],
)  # fmt: skip
def test_words_for_opting_out_may_be_parted_by_anything(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_OPT_OUT_WORDS", given)
    assert load_settings().opt_out_words.words == ("TD", "不要了", "stop")


def test_word_for_opting_out_may_have_a_blank_where_another_sign_parts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_OPT_OUT_WORDS", "stop all, TD")
    assert load_settings().opt_out_words.words == ("stop all", "TD")
    monkeypatch.setenv("RECEIVER_OPT_OUT_WORDS", "stop all,")
    assert load_settings().opt_out_words.words == ("stop all",)


@pytest.mark.parametrize(
    ("given", "bind"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::]:8000", ("::", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("localhost:8000", ("localhost", 8000)),
        ("sms-1.internal:8000", ("sms-1.internal", 8000)),
    ],
)
def test_bind_is_an_address_or_a_name_with_a_port(
    given: str, bind: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_BIND", given)
    assert load_settings().bind == bind


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (":8000", "HOST is missing"),
        ("8000", "HOST is missing"),
        ("*:8000", "HOST is missing"),
        ("0.0.0.0", "HOST:PORT"),
        ("[::]", "HOST:PORT"),
        ("localhost", "HOST:PORT"),
        ("http://127.0.0.1:8000", "without http://"),
        ("unix:/run/receiver.sock", "HOST:PORT"),
        ("127.0.0.256:8000", "HOST:PORT"),
        ("127.0.0.1:99999", "HOST:PORT"),
        ("127.0.0.1:８０", "HOST:PORT"),
    ],
)
def test_bind_of_another_form_is_refused_with_the_one_to_write(
    given: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_BIND", given)
    with pytest.raises(SettingsError, match=f"RECEIVER_BIND: .*{says}"):
        load_settings()


@pytest.mark.parametrize("given", ["x" * 41, "a\tb", "a\u202eb"])
def test_name_of_the_console_is_one_short_line(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_CONSOLE_NAME", "甲公司短信平台")
    assert load_settings().console_name == "甲公司短信平台"
    monkeypatch.setenv("RECEIVER_CONSOLE_NAME", given)
    with pytest.raises(SettingsError, match="RECEIVER_CONSOLE_NAME: not 1 to 40 printable"):
        load_settings()


def test_every_wrong_setting_is_named_in_one_message_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "RECEIVER_DATABASE_URL": "mysql://root:hunter2@db/x",
        "RECEIVER_PUSH_TOKENS": f"a:{A},b:{A}",
        "RECEIVER_PUSH_ALLOW": "10.0.0.0/33",
        "RECEIVER_TRUSTED_PROXIES": "everyone",
        "RECEIVER_ACK_STATUS": "404",
        "RECEIVER_ACK_BODY": "x" * 256,
        "RECEIVER_ACK_CONTENT_TYPE": "text/plain\r\nX: y",
        "RECEIVER_TIMEZONE": "../etc/passwd",
        "RECEIVER_LATE_AFTER_SECONDS": "-1",
        "RECEIVER_OPT_OUT_WORDS": "TD,!?",
        "RECEIVER_OPT_OUT_PHRASES": "别发,!?",
        "RECEIVER_NO_RECEIPT_AFTER_HOURS": "soon",
        "RECEIVER_PLATFORM_CREDENTIALS": "default:only-an-id",
        "RECEIVER_BIND": "localhost",
        "RECEIVER_ALARM_URLS": "dingtalk:http://oapi.dingtalk.com/robot/send?access_token=s3cret",
        "RECEIVER_ALARM_HEARTBEAT_URL": "ftp://hc.example.com/s3cret",
        "RECEIVER_ALARM_LANGUAGE": "klingon",
        "RECEIVER_ALARM_SILENT_MINUTES": "never",
        "RECEIVER_ALARM_REFUSALS": "few",
        "RECEIVER_ALARM_QUARANTINED": "a lot",
        "RECEIVER_ALARM_DELIVERY_FALL_PERCENT": "130",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    for name, value in wrong.items():
        assert name in text
        assert value not in text
    assert "hunter2" not in text
    assert "MySQL is not supported" in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RECEIVER_BNID", "RECEIVER_BIND"),
        ("RECEIVER_TRUSTED_PROXIE", "RECEIVER_TRUSTED_PROXIES"),
        ("RECEIVER_ACKBODY", "RECEIVER_ACK_BODY"),
        ("RECEIVER_LATE_AFTER", "RECEIVER_LATE_AFTER_SECONDS"),
        ("RECEIVER_PUSH_TOKEN_FILE", "RECEIVER_PUSH_TOKENS_FILE"),
        ("receiver_bind", "RECEIVER_BIND"),
        ("RECIEVER_PUBLIC_URL", "RECEIVER_PUBLIC_URL"),
    ],
)
def test_name_that_is_no_setting_is_told_with_the_nearest_one(
    name: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"{name}=hunter2\nCOMPOSE_PROJECT_NAME=x\n")
    assert load_settings().unknown == (f"{name}: unknown setting; did you mean {meant}?",)
    (tmp_path / ".env").unlink()
    monkeypatch.setenv(name, "hunter2")
    assert load_settings().unknown == (f"{name}: unknown setting; did you mean {meant}?",)
    monkeypatch.setenv("RECEIVER_ACK_STATUS", "404")
    with pytest.raises(SettingsError, match=f"{name}: unknown setting"):
        load_settings()


def test_name_that_is_like_no_setting_is_told_without_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_XYZZY", "1")
    assert load_settings().unknown == ("RECEIVER_XYZZY: unknown setting",)


def test_what_kubernetes_and_docker_set_for_a_service_of_our_name_is_nobodys_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "RECEIVER_PORT": "tcp://10.96.0.7:8000",
        "RECEIVER_PORT_8000_TCP": "tcp://10.96.0.7:8000",
        "RECEIVER_PORT_8000_TCP_PROTO": "tcp",
        "RECEIVER_PORT_8000_TCP_PORT": "8000",
        "RECEIVER_PORT_8000_TCP_ADDR": "10.96.0.7",
        "RECEIVER_SERVICE_HOST": "10.96.0.7",
        "RECEIVER_SERVICE_PORT": "8000",
        "RECEIVER_SERVICE_PORT_HTTP": "8000",
        "RECEIVER_INSIDE_SERVICE_HOST": "10.96.0.8",
        "RECEIVER_INSIDE_PORT": "tcp://10.96.0.8:8001",
        "RECEIVER_NAME": "/app/receiver",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings().unknown == ()
    monkeypatch.setenv("RECEIVER_PORT", "8000")  # a person's
    assert len(load_settings().unknown) == 1


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_env_file_that_is_not_utf_8_is_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("RECEIVER_ACK_BODY=ok\nRECEIVER_ALARM_LANGUAGE=en # 中文\n".encode(encoding))
    line = 1 if encoding == "utf-16" else 2
    with pytest.raises(SettingsError, match=rf"/\.env: line {line} is not UTF-8; save the file as UTF-8"):
        load_settings()


def test_env_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = "\ufeffRECEIVER_ACK_BODY='a$HOME${HOME}'\r\nexport RECEIVER_ACK_STATUS = 201\r\n"
    (tmp_path / ".env").write_bytes(text.encode())
    settings = load_settings()
    assert (settings.ack_body, settings.ack_status, settings.unknown) == ("a$HOME${HOME}", 201, ())


@pytest.mark.parametrize("tokens", [f"a:{A[:-1]}", f":{A}", A, f"a:{A}!", f"a b:{A}"])
def test_wrong_push_secrets_stop_the_start(tokens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS", tokens)
    with pytest.raises(SettingsError, match="RECEIVER_PUSH_TOKENS"):
        load_settings()


def test_several_secrets_and_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_PUSH_TOKENS", f"a:{A}, a:{B} ,c:{B}x")
    monkeypatch.setenv("RECEIVER_PLATFORM_CREDENTIALS", "d:id:key")
    settings = load_settings()
    assert settings.push_tokens == (("a", A), ("a", B), ("c", f"{B}x"))
    assert settings.accounts == {"a", "c", "d"}


def test_postgresql_urls_use_the_driver_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("postgresql", "postgres"):
        monkeypatch.setenv("RECEIVER_DATABASE_URL", f"{scheme}://u:p@h/d")
        assert load_settings().database_url == "postgresql+psycopg://u:p@h/d"


def test_of_several_servers_the_one_that_takes_writes_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, read in (
        ("u:p@a:5432,b:5432/d", "u:p@a:5432,b:5432/d?target_session_attrs=read-write"),
        ("u:p@a,[::1]:5433/d?sslmode=require", "u:p@a,[::1]:5433/d?sslmode=require&target_session_attrs=read-write"),
        ("u:p@a,b/d?target_session_attrs=primary", "u:p@a,b/d?target_session_attrs=primary"),
    ):
        monkeypatch.setenv("RECEIVER_DATABASE_URL", f"postgresql://{given}")
        assert load_settings().database_url == f"postgresql+psycopg://{read}"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("u:hunter2@a,b/d?target_session_attrs=any", "a standby cannot store pushes"),
        ("u:hunter2@a/d?target_session_attrs=standby", "a standby cannot store pushes"),
        ("u:hunter2@a:54321,b:port/d", "a port is not a number"),
        ("u:hun/ter2@a:54321/d", "a port is not a number.* %XX"),
        ("u:hunter2%@a/d", "special characters as %XX"),
        ("u:p@hunter2@a/d", "write the @ of a password as %40"),
        ("u:p@hunter2@a:5432,b/d", "write the @ of a password as %40"),
        ("u:hunter2@a/d?pool_size=3", "only parameters of libpq"),
    ],
)
def test_wrong_servers_are_said_without_the_password(given: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_DATABASE_URL", f"postgresql://{given}")
    with pytest.raises(SettingsError, match=f"RECEIVER_DATABASE_URL: .*{fault}") as caught:
        load_settings()
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "100%", "数据", "a?b=%3F"])
def test_embedded_database_is_in_its_directory_whatever_that_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path / name))
    settings = load_settings()
    assert sa.make_url(settings.database_url).database == str(settings.data_dir / "receiver.db")
    assert settings.database_files[0] == tmp_path / name / "receiver.db"


def test_data_directory_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path / "file" / "var"))
    with pytest.raises(SettingsError, match="RECEIVER_DATA_DIR"):
        load_settings()


def test_alarm_urls_hold_their_kind_and_the_secret_to_sign_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "RECEIVER_ALARM_URLS",
        "dingtalk:https://oapi.dingtalk.com/robot/send?access_token=a#SECb, wecom:https://qyapi.weixin.qq.com/x?key=c,"
        "url:http://collector.inside:9000/alarms",
    )
    settings = load_settings()
    assert settings.alarm_urls == (
        ("dingtalk", "https://oapi.dingtalk.com/robot/send?access_token=a", "SECb"),
        ("wecom", "https://qyapi.weixin.qq.com/x?key=c", ""),
        ("url", "http://collector.inside:9000/alarms", ""),
    )
    assert "SECb" not in repr(settings)


@pytest.mark.parametrize(
    ("urls", "fault"),
    [
        ("https://hook.example.com/x", "not of the form kind:URL"),
        ("wecom:https://qyapi.weixin.qq.com/x?key=c#secret", "wecom has no signature"),
        ("feishu:ftp://x/y", "not a URL of the form https://HOST/PATH"),
        ("url:http:///path", "not a URL of the form http://HOST/PATH"),
        ("url:https://a.example.com,url:https://a.example.com", "occurs twice"),
    ],
)
def test_wrong_alarm_urls_are_explained(urls: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_ALARM_URLS", urls)
    with pytest.raises(SettingsError, match=fault):
        load_settings()


@pytest.mark.parametrize(
    ("binds", "named"),
    [
        ({"RECEIVER_SEND_PROXY_BIND": "127.0.0.1:8000"}, "RECEIVER_SEND_PROXY_BIND: same port as RECEIVER_BIND"),
        ({"RECEIVER_INTERNAL_BIND": "10.0.0.5:8000"}, "RECEIVER_INTERNAL_BIND: same port as RECEIVER_BIND"),
        (
            {"RECEIVER_INTERNAL_BIND": "10.0.0.5:8443", "RECEIVER_SEND_PROXY_BIND": "127.0.0.1:8443"},
            "RECEIVER_SEND_PROXY_BIND: same port as RECEIVER_INTERNAL_BIND",
        ),
    ],
)
def test_listeners_of_one_port_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, binds: dict[str, str], named: str
) -> None:
    monkeypatch.setenv("RECEIVER_DATA_DIR", str(tmp_path))
    for name, value in binds.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named):
        load_settings(tmp_path / "none")


@pytest.mark.parametrize(
    "given",
    [
        "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S;%d/%m/%y %I:%M:%S %p", "%Y-%m-%dT%H:%M:%S%z", "%d %b %Y, %H:%M:%S.%f",
        "%Y-%j %H.%M.%S", "%Y年%m月%d日 %H:%M:%S; ;", "%Y-%m-%d %H:%M:%S %Z", "%%%Y-%m-%d %H:%M:%S", "",
    ],
)  # fmt: skip
def test_form_of_times_that_reads_a_whole_time_is_taken(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_TIME_FORMATS", given)
    assert len(load_settings().time_formats) == len([part for part in given.split(";") if part.strip()])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("%Y/%m/%d %H:%m:%S", "%m occurs twice; minutes are %M"),
        ("%H:%M %H", "%H occurs twice"),
        ("%Y%m%d%H%M%S,%Y/%m/%d %H:%M:%S", "separate them by ;"),
        ("%Y%m%d%H%M%S|%Y/%m/%d %H:%M:%S", "separate them by ;"),
        ("%Y%m%d%H%M%S，%Y/%m/%d %H:%M:%S", "separate them by ;"),
        ("%Y/%m/%d %H:%M:%S; %Y/%m/%d", "format 2: "),
        ("yyyyMMddHHmmss", "the usual one is %Y-%m-%d %H:%M:%S"),
        ("%Q", "not valid for Python's strptime"),
        ("%s", "not valid for Python's strptime"),
        ("%D %T", "not valid for Python's strptime"),
        ("(%Y", "lacks year, month"),
        ("%Y-%m-%d %H:%M:%S%", "not valid for Python's strptime"),
        ("%H:%M:%S", "lacks year, month"),
        ("%m-%d %H:%M:%S", "lacks year, month"),
        ("%Y-%m-%d %I:%M:%S", "lacks year, month"),
    ],
)
def test_form_of_times_that_does_not_stops_the_start(given: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVER_TIME_FORMATS", given)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "RECEIVER_TIME_FORMATS" in str(caught.value)
    assert says in str(caught.value)
