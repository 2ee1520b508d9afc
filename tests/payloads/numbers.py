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

# As people, spreadsheets and web pages write them.
_WRITTEN = (
    *(
        _read(f"number_written_{name}", written.encode().replace(b"+", b"%2B"), "15080920001")
        for name, written in (
            ("with_dots", "150.8092.0001"),
            ("with_middle_dots", "150·8092・0001"),
            ("with_brackets", "(150)8092-0001"),
            ("with_full_width_brackets", "（150）8092【0001】"),
            ("with_an_en_dash", "150–8092—0001"),
            ("with_a_minus_sign", "150−8092-0001"),
            ("with_a_country_code_and_no_break_spaces", "+86\u00a0150\u202f8092\u30000001"),
            ("between_marks_of_direction", "\u202d15080920001\u202c"),
            ("behind_a_zero_width_space", "15080920001\u200b"),
            ("behind_a_byte_order_mark", "\ufeff15080920001"),
            ("with_soft_hyphens", "150\u00ad8092\u00ad0001"),
            ("in_full_width", "１５０８０９２０００１"),
            ("in_full_width_with_plus_and_brackets", "＋８６（１５０）８０９２－０００１"),
            ("as_a_decimal", "15080920001.0"),
            ("as_a_decimal_before_a_space", "15080920001.0 "),
            ("as_a_decimal_in_full_width", "１５０８０９２０００１．０"),
            ("with_a_trunk_zero", "015080920001"),
            ("with_a_country_code_and_a_trunk_zero", "+86(0)15080920001"),
            ("with_0086_and_a_trunk_zero", "0086 0150 8092 0001"),
            ("with_086", "086-15080920001"),
            ("with_a_tab_inside", "150\t80920001"),
        )
    ),
    receipt(
        "number_written_in_gb18030_with_marks",
        receipt_form(mobile="１５０（８０９２）\u200b０００１".encode("gb18030")),
        flags=("gb18030",),
    ),
    _read("number_written_masked_with_full_width_stars", "1508092＊＊＊＊".encode(), "1508092****"),
    _read("number_written_masked_behind_a_zero", b"0150****0001", "150****0001"),
    _read("number_written_of_a_landline_with_brackets", b"(010)12345678", "01012345678"),
    _read("number_written_of_a_landline_of_beijing_keeps_its_zero", b"010-1234-5678", "01012345678"),
    _read("number_written_with_dots_and_a_zero_at_its_end", b"150.8092.0000", "15080920000"),
    _read("number_written_of_another_country_with_brackets", b"%2B1+(212)+555.0123", "12125550123"),
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
)

_NONE = (
    _no_number("number_in_arabic_indic_digits", "١٥٠٨٠٩٢٠٠٠١".encode()),
    _no_number("number_in_superscripts", "¹⁵⁰⁸⁰⁹²⁰⁰⁰¹".encode()),
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
    _no_number("number_as_another_decimal_with_a_letter", b"15080920001.0L"),
    _no_number("number_masked_with_bullets", "150••••0001".encode()),
    _no_number("number_in_scientific_notation", b"1.5080920001E10"),
    _no_number("number_as_a_tel_uri", b"tel:%2B8615080920001"),
    _no_number("number_in_quotes", b"%2215080920001%22"),
    _no_number("number_with_a_nul", b"15080920001%00"),
    _no_number("numbers_two_with_a_comma", b"15080920001,15080920002"),
)

CASES: tuple[Case, ...] = (*_CHINESE, *_WRITTEN, *_OTHER, *_MASKED, *_NONE)
