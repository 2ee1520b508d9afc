"""What is sealed opens with its key, at its place, and says nothing without."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.db.encryption import TOKEN_CHARS, DecryptionError, is_token
from receiver.db.encryption.ciphers import FieldCipher, Keyring

OLD, NEW = ("old", bytes(range(32))), ("new", bytes(range(32, 64)))
SEALER = FieldCipher(Keyring([NEW, OLD]), b"r" * 32)
_MOBILES = st.text(alphabet="0123456789", min_size=5, max_size=15)
_few = settings(max_examples=30, deadline=None)


def test_every_key_opens_and_the_first_seals() -> None:
    sealed = Keyring([OLD]).encrypt(b"text", b"place")
    ring = Keyring([NEW, OLD])
    assert ring.decrypt(sealed, b"place") == b"text"
    assert not sealed.startswith(ring.head)
    assert ring.encrypt(b"text", b"place").startswith(ring.head)
    assert Keyring([NEW]).decrypt(ring.encrypt(b"text", b"place"), b"place") == b"text"


def test_a_key_that_is_missing_is_named_and_a_wrong_one_under_its_name_too() -> None:
    sealed = Keyring([OLD]).encrypt(b"text", b"place")
    with pytest.raises(DecryptionError, match="the key old is missing; add it to RECEIVER_ENCRYPTION_KEYS"):
        Keyring([NEW]).decrypt(sealed, b"place")
    with pytest.raises(DecryptionError, match="has another key of that name"):
        Keyring([("old", NEW[1])]).decrypt(sealed, b"place")


def test_what_is_sealed_opens_nowhere_else_and_not_once_it_was_changed() -> None:
    ring = Keyring([OLD])
    sealed = ring.encrypt(b"text", b"pushes.body")
    assert ring.can_decrypt(sealed, b"pushes.body")
    assert not ring.can_decrypt(sealed, b"pushes.query")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert not ring.can_decrypt(bytes(changed), b"pushes.body"), place
        assert not ring.can_decrypt(sealed[:place], b"pushes.body"), place


def test_the_same_is_sealed_another_way_each_time() -> None:
    assert len({Keyring([OLD]).encrypt(b"", b"place") for _ in range(100)}) == 100


@_few
@given(mobile=_MOBILES)
def test_a_token_is_the_same_each_time_and_gives_its_number_back(mobile: str) -> None:
    token = SEALER.token(mobile)
    assert is_token(token)
    assert len(token) == TOKEN_CHARS
    assert FieldCipher(Keyring([OLD]), b"r" * 32).token(mobile) == token
    assert SEALER.number(token) == mobile
    assert FieldCipher(Keyring([OLD]), b"s" * 32).token(mobile) != token


@_few
@given(first=_MOBILES, second=_MOBILES)
def test_tokens_begin_alike_where_ranges_do_and_end_alike_where_ends_do(first: str, second: str) -> None:
    one, other = SEALER.token(first), SEALER.token(second)
    assert (one[:7] == other[:7]) == (first[:7] == second[:7])
    assert (one[-4:] == other[-4:]) == (first[-4:] == second[-4:])
    assert one.endswith(SEALER.end(first[-4:]))


def test_a_token_that_was_changed_or_is_another_databases_is_no_number() -> None:
    token = SEALER.token("15080921090")
    for wrong in (token[:10] + ("A" if token[10] != "A" else "B") + token[11:], "!" * TOKEN_CHARS):
        with pytest.raises(DecryptionError):
            SEALER.number(wrong)
    with pytest.raises(DecryptionError):
        FieldCipher(Keyring([OLD]), os.urandom(32)).number(token)


@_few
@given(text=st.text(min_size=1), data=st.data())
def test_every_part_of_a_text_has_no_gram_that_the_text_has_not(text: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text) - 1))
    part = text.lower()[begin : data.draw(st.integers(begin + 1, len(text)))]
    assert set(SEALER.grams(part).split()) <= set(SEALER.grams(text).split())


def test_grams_say_nothing_of_the_order_and_need_the_key() -> None:
    assert SEALER.grams("abab") == SEALER.grams("baba")
    assert SEALER.grams("退订") != FieldCipher(Keyring([OLD]), b"s" * 32).grams("退订")
    assert len(SEALER.grams("退订").split()) == 3


def test_a_digest_needs_the_key() -> None:
    assert SEALER.digest(b"x" * 32) == SEALER.digest(b"x" * 32) != b"x" * 32
    assert FieldCipher(Keyring([OLD]), b"s" * 32).digest(b"x" * 32) != SEALER.digest(b"x" * 32)
