"""Which operator and province a mainland number was allocated to.

By the table that the library phonenumbers carries, which is as old as its version. Numbers that were taken along to
another operator stay under the first one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from receiver.core import MissingExtra, parse_mainland_mobile

PREFIX_DIGITS = 7  # the unit of allocation: ten thousand numbers
_PROVINCES = (
    "北京", "天津", "河北", "山西", "内蒙古", "辽宁", "吉林", "黑龙江", "上海", "江苏", "浙江",
    "安徽", "福建", "江西", "山东", "河南", "湖北", "湖南", "广东", "广西", "海南", "重庆",
    "四川", "贵州", "云南", "西藏", "陕西", "甘肃", "青海", "宁夏", "新疆",
)  # fmt: skip
_MAINLAND = 86
_REST = "0" * (11 - PREFIX_DIGITS)


class CarrierLookup:
    """The table. Raises MissingExtra where it is not installed."""

    def __init__(self) -> None:
        try:
            import phonenumbers  # noqa: PLC0415  (an extra)
            from phonenumbers import carrier, geocoder  # noqa: PLC0415
        except ImportError:
            raise MissingExtra(
                "operators and provinces need the extra `numbers`: pip install 'receiver[numbers]'"
            ) from None
        self.source = f"phonenumbers {phonenumbers.__version__}, as allocated, porting ignored"
        self._number = phonenumbers.PhoneNumber
        self._carrier, self._geocoder = carrier, geocoder

    def operator(self, prefix: str) -> str | None:
        """Return the operator of the numbers with this prefix, such as 中国移动; None: unknown."""
        number = self._parsed(prefix)
        return None if number is None else str(self._carrier.name_for_number(number, "zh")) or None

    def province(self, prefix: str) -> str | None:
        """Return their province, such as 湖南; None: unknown."""
        number = self._parsed(prefix)
        if number is None:
            return None
        place = str(self._geocoder.description_for_valid_number(number, "zh"))
        return next((province for province in _PROVINCES if place.startswith(province)), None)

    def _parsed(self, prefix: str) -> Any:
        mobile = parse_mainland_mobile(prefix + _REST)
        return None if mobile is None else self._number(country_code=_MAINLAND, national_number=int(mobile))


@lru_cache(maxsize=1)
def allocation() -> CarrierLookup:
    """Return the table, loaded once. Raises MissingExtra."""
    return CarrierLookup()
