"""The mobile number in every form in which it may arrive."""

from tests.payloads.case import Case, quarantined, receipt, receipt_form, reply, reply_form


def _read(name: str, given: bytes, mobile: str) -> Case:
    return receipt(name, receipt_form(mobile=given), {"mobile": mobile, "masked": "*" in mobile})


def _no_number(name: str, given: bytes) -> Case:
    return quarantined(name, receipt_form(mobile=given), "mobile: not a phone number")


_CHINESE = (
    _read("number_plain", b"15080920001", "15080920001"),
    _read("number_with_escaped_plus_86", b"%2B8615080920001", "15080920001"),
    _read("number_with_unescaped_plus_86", b"+8615080920001", "15080920001"),
    _read("number_with_86", b"8615080920001", "15080920001"),
    _read("number_with_0086", b"008615080920001", "15080920001"),
    _read("number_with_spaces", b"150+8092%200001", "15080920001"),
    _read("number_with_dashes", b"150-8092-0001", "15080920001"),
    _read("number_with_prefix_spaces_and_dashes", b"%2B86+150-8092+0001", "15080920001"),
    _read("number_with_86_and_a_dash", b"86-15080920001", "15080920001"),
    _read("number_between_ideographic_spaces", b"%E3%80%8015080920001%C2%A0", "15080920001"),
    _read("number_between_line_ends_and_tabs", b"%0A%0915080920001%0D%0A", "15080920001"),
    reply("number_with_prefix_in_a_reply", reply_form(mobile=b"%2B8615080920001")),
)

_OTHER = (
    _read("number_of_hong_kong", b"%2B85291234567", "85291234567"),
    _read("number_of_hong_kong_with_00", b"0085291234567", "85291234567"),
    _read("number_with_86_before_10_digits", b"861508092000", "861508092000"),
    _read("number_with_86_before_12_digits", b"86150809200012", "86150809200012"),
    _read("number_with_86_before_11_digits_not_starting_with_1", b"8625080920001", "8625080920001"),
    _read("number_of_a_landline", b"010-1234-5678", "01012345678"),
    _read("number_of_5_digits", b"10658", "10658"),
    _read("number_of_15_digits", b"123456789012345", "123456789012345"),
    _read("number_of_15_digits_after_a_plus", b"%2B223456789012345", "223456789012345"),
)

_MASKED = (
    _read("number_masked_with_stars", b"1508092****", "1508092****"),
    _read("number_masked_with_escaped_stars", b"1508092%2A%2A%2A%2A", "1508092****"),
    _read("number_masked_in_the_middle_with_x", b"150xxxx0001", "150****0001"),
    _read("number_masked_with_upper_case_x", b"150XXXX0001", "150****0001"),
    _read("number_masked_with_all_three_signs", b"150*xX*0001", "150****0001"),
    _read("number_masked_with_plus_86", b"%2B861508092****", "1508092****"),
    _read("number_masked_with_86", b"86150xxxx0001", "150****0001"),
    _read("number_masked_with_0086_and_dashes", b"0086-150-****-0001", "150****0001"),
    _read("number_masked_to_its_last_three_digits", b"********001", "********001"),
    _read("number_masked_to_its_first_three_digits", b"150********", "150********"),
    _read("number_masked_of_hong_kong", b"%2B852****4567", "852****4567"),
    _no_number("number_masked_to_two_digits", b"15*********"),
    _no_number("number_masked_whole", b"***********"),
    _no_number("number_masked_with_hashes", b"1508092####"),
    _no_number("number_masked_with_full_width_stars", "1508092＊＊＊＊".encode()),
)

_NONE = (
    _no_number("number_in_full_width_digits", "１５０８０９２０００１".encode()),
    _no_number("number_in_arabic_indic_digits", "١٥٠٨٠٩٢٠٠٠١".encode()),
    _no_number("number_in_superscripts", "¹⁵⁰⁸⁰⁹²⁰⁰⁰¹".encode()),
    _no_number("number_with_a_full_width_plus", "＋8615080920001".encode()),
    _no_number("number_with_a_letter", b"1508092000a"),
    _no_number("number_in_words", b"unknown"),
    _no_number("number_null", b"null"),
    _no_number("number_of_4_digits", b"1234"),
    _no_number("number_of_4_digits_after_00", b"001234"),
    _no_number("number_of_16_digits", b"1234567890123456"),
    _no_number("number_with_a_plus_inside", b"150%2B80920001"),
    _no_number("number_with_a_plus_at_its_end", b"15080920001%2B"),
    _no_number("number_that_is_a_plus_alone", b"%2B"),
    _no_number("number_that_is_dashes_alone", b"---"),
    _no_number("number_with_dots", b"150.8092.0001"),
    _no_number("number_with_parentheses", b"(010)12345678"),
    _no_number("number_with_an_en_dash", "150–8092–0001".encode()),
    _no_number("number_as_a_decimal", b"15080920001.0"),
    _no_number("number_in_scientific_notation", b"1.5080920001E10"),
    _no_number("number_as_a_tel_uri", b"tel:%2B8615080920001"),
    _no_number("number_in_quotes", b"%2215080920001%22"),
    _no_number("number_with_a_nul", b"15080920001%00"),
    _no_number("numbers_two_with_a_comma", b"15080920001,15080920002"),
)

CASES: tuple[Case, ...] = (*_CHINESE, *_OTHER, *_MASKED, *_NONE)
