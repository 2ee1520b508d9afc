"""The platform's times: Asia/Shanghai, exactly yyyy-MM-dd HH:mm:ss, to UTC."""

from tests.payloads.case import Case, quarantined, receipt, receipt_form, reply, reply_form

FRACTION = ("fraction_dropped",)


def _read(name: str, given: bytes, reported_at: str, *, flags: tuple[str, ...] = ()) -> Case:
    return receipt(name, receipt_form(receivetime=given), {"reported_at": reported_at}, flags=flags)


def _not_of_the_form(name: str, given: bytes) -> Case:
    return quarantined(name, receipt_form(receivetime=given), "receivetime: not of the form yyyy-MM-dd HH:mm:ss")


def _not_on_the_calendar(name: str, given: bytes) -> Case:
    return quarantined(name, receipt_form(receivetime=given), "receivetime: not on the calendar")


_READ = (
    _read("time_of_the_sample", b"2019-07-23+17%3A00%3A00", "2019-07-23T09:00:00Z"),
    _read("time_with_raw_colons_and_space", b"2019-07-23 17:00:00", "2019-07-23T09:00:00Z"),
    _read("time_with_percent_20", b"2019-07-23%2017:00:00", "2019-07-23T09:00:00Z"),
    _read("time_between_line_ends", b"%0D%0A2019-07-23+17:00:00%09%0A", "2019-07-23T09:00:00Z"),
    _read("time_on_the_day_before_in_utc", b"2026-01-01+07:59:59", "2025-12-31T23:59:59Z"),
    _read("time_at_midnight", b"2026-01-01+00:00:00", "2025-12-31T16:00:00Z"),
    _read("time_at_the_last_second_of_a_day", b"2026-11-23+23:59:59", "2026-11-23T15:59:59Z"),
    _read("time_on_a_leap_day", b"2024-02-29+12:00:00", "2024-02-29T04:00:00Z"),
    _read("time_at_the_first_moment_that_may_be_right", b"2000-01-01+00:00:00", "1999-12-31T16:00:00Z"),
)

_NOT_RIGHT = (
    *(
        quarantined(name, receipt_form(receivetime=given), "receivetime: before 2000")
        for name, given in (
            ("time_in_shanghais_summer_time", b"1988-07-01+12:00:00"),
            ("time_at_the_epoch", b"1970-01-01+08:00:00"),
            ("time_with_a_year_of_three_digits", b"0226-11-20+10:00:00"),
            ("time_in_the_year_126", b"0126-11-20+10:00:00"),
            ("time_at_the_end_of_the_year_999", b"0999-12-31+23:59:59"),
            ("time_of_the_first_year", b"0001-01-02+12:00:00"),
            ("time_that_sorted_wrong", b"1000-01-01+00:00:00"),
        )
    ),
    *(
        quarantined(name, receipt_form(receivetime=given), "receivetime: more than 48 hours ahead")
        for name, given in (
            ("time_at_the_end_of_time", b"9999-12-31+23:59:59"),
            ("time_in_the_far_future", b"2099-12-31+23:59:59"),
        )
    ),
    quarantined(
        "time_of_a_reply_in_the_last_century",
        reply_form(receivetime=b"1999-12-31+23:59:59"),
        "receivetime: before 2000",
    ),
    quarantined(
        "time_of_a_reply_with_a_year_of_three_digits",
        reply_form(receivetime=b"0226-11-20+10:00:00"),
        "receivetime: before 2000",
    ),
)

_FRACTIONS = (
    _read("time_with_a_java_timestamps_fraction", b"2019-07-23+17:00:00.0", "2019-07-23T09:00:00Z", flags=FRACTION),
    _read("time_with_milliseconds", b"2019-07-23+17:00:00.123", "2019-07-23T09:00:00Z", flags=FRACTION),
    _read(
        "time_with_nanoseconds_not_rounded_up",
        b"2019-07-23+17:00:59.999999999",
        "2019-07-23T09:00:59Z",
        flags=FRACTION,
    ),
    reply(
        "time_with_a_fraction_in_gb18030",
        reply_form(content=b"%CA%D5%B5%BD", receivetime=b"2019-07-23+17:00:00.5"),
        flags=("gb18030", "fraction_dropped"),
    ),
    _not_of_the_form("time_with_ten_digits_of_fraction", b"2019-07-23+17:00:00.1234567890"),
    _not_of_the_form("time_with_a_dot_and_no_fraction", b"2019-07-23+17:00:00."),
    _not_of_the_form("time_with_a_comma_before_its_fraction", b"2019-07-23+17:00:00,123"),
    _not_of_the_form("time_with_a_full_width_fraction", "2019-07-23+17:00:00.５".encode()),
    _not_on_the_calendar("time_with_a_fraction_off_the_calendar", b"2019-02-30+17:00:00.5"),
)

_OTHER_FORMS = (
    _not_of_the_form("time_with_a_t", b"2019-07-23T17:00:00"),
    _not_of_the_form("time_with_a_z", b"2019-07-23+17:00:00Z"),
    _not_of_the_form("time_with_an_offset", b"2019-07-23+17:00:00%2B08:00"),
    _not_of_the_form("time_with_slashes", b"2019/07/23+17:00:00"),
    _not_of_the_form("time_without_seconds", b"2019-07-23+17:00"),
    _not_of_the_form("time_without_a_time_of_day", b"2019-07-23"),
    _not_of_the_form("time_without_a_date", b"17:00:00"),
    _not_of_the_form("time_without_separators", b"20190723170000"),
    _not_of_the_form("time_in_epoch_seconds", b"1563872400"),
    _not_of_the_form("time_in_epoch_milliseconds", b"1563872400000"),
    _not_of_the_form("time_without_zero_padding", b"2019-7-23+17:00:00"),
    _not_of_the_form("time_without_a_zero_before_its_hour", b"2019-07-23+7:00:00"),
    _not_of_the_form("time_with_a_two_digit_year", b"19-07-23+17:00:00"),
    _not_of_the_form("time_with_a_five_digit_year", b"12019-07-23+17:00:00"),
    _not_of_the_form("time_with_a_negative_year", b"-2019-07-23+17:00:00"),
    _not_of_the_form("time_with_two_spaces", b"2019-07-23++17:00:00"),
    _not_of_the_form("time_with_a_no_break_space_inside", b"2019-07-23%C2%A017:00:00"),
    _not_of_the_form("time_with_an_underscore", b"2019-07-23_17:00:00"),
    _not_of_the_form("time_with_its_day_first", b"23-07-2019+17:00:00"),
    _not_of_the_form("time_with_am_or_pm", b"2019-07-23+05:00:00+PM"),
    _not_of_the_form("time_in_full_width_digits", "２０１９-０７-２３ １７:００:００".encode()),
    _not_of_the_form("time_with_one_full_width_digit", "2019-07-23+17:00:0０".encode()),
    _not_of_the_form("time_in_arabic_indic_digits", "٢٠١٩-٠٧-٢٣ ١٧:٠٠:٠٠".encode()),
    _not_of_the_form("time_with_full_width_colons", "2019-07-23+17：00：00".encode()),
    _not_of_the_form("time_in_chinese", "2019年07月23日 17时00分00秒".encode()),
    _not_of_the_form("time_in_words", b"now"),
    _not_of_the_form("time_null", b"null"),
    _not_of_the_form("time_that_is_its_own_pattern", b"yyyy-MM-dd+HH:mm:ss"),
    _not_of_the_form("time_with_an_escaped_line_break_inside", b"2019-07-23%0A17:00:00"),
    _not_of_the_form("time_with_a_nul", b"2019-07-23+17:00:00%00"),
)

_OFF_THE_CALENDAR = (
    _not_on_the_calendar("time_at_24_hours", b"2019-07-23+24:00:00"),
    _not_on_the_calendar("time_at_25_hours", b"2019-07-23+25:00:00"),
    _not_on_the_calendar("time_at_60_minutes", b"2019-07-23+17:60:00"),
    _not_on_the_calendar("time_at_60_seconds", b"2019-07-23+17:00:60"),
    _not_on_the_calendar("time_at_a_leap_second", b"2017-01-01+07:59:60"),
    _not_on_the_calendar("time_on_the_30th_of_february", b"2020-02-30+00:00:00"),
    _not_on_the_calendar("time_on_the_29th_of_february_of_a_common_year", b"2019-02-29+00:00:00"),
    _not_on_the_calendar("time_on_the_29th_of_february_of_1900", b"1900-02-29+00:00:00"),
    _not_on_the_calendar("time_on_the_31st_of_april", b"2019-04-31+00:00:00"),
    _not_on_the_calendar("time_on_day_0", b"2019-07-00+00:00:00"),
    _not_on_the_calendar("time_in_month_13", b"2019-13-01+00:00:00"),
    _not_on_the_calendar("time_in_month_0", b"2019-00-10+00:00:00"),
    quarantined(
        "time_of_a_reply_off_the_calendar",
        reply_form(receivetime=b"2019-02-29+00:00:00"),
        "receivetime: not on the calendar",
    ),
    quarantined(
        "time_before_the_first_of_utc",
        receipt_form(receivetime=b"0001-01-01+00:00:00"),
        "receivetime: not representable in UTC",
    ),
)

CASES: tuple[Case, ...] = (*_READ, *_NOT_RIGHT, *_FRACTIONS, *_OTHER_FORMS, *_OFF_THE_CALENDAR)
