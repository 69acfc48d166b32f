"""What a labelled image takes, and what a million of them cost."""

from pydantic import BaseModel, ConfigDict

from pipeline.config import Prices

MILLION = 1_000_000
GB = 1e9
HOUR = 3600.0


class Usage(BaseModel):
    """What a labelled image takes, by stage: means over the images that have been measured, None where none has.

    Core-seconds are processor time and GPU-seconds the time that a GPU was held, both of the stages' own work.
    """

    model_config = ConfigDict(frozen=True)

    front_end_core_s: float | None
    front_end_gpu_s: float | None
    back_end_core_s: float | None
    bytes_read: float | None  # the encoded photograph
    bytes_scores: float | None  # from front end to back end, without the photograph that goes along
    bytes_written: float | None  # the mask

    @property
    def core_s(self) -> float | None:
        """Of both stages."""
        return _sum([self.front_end_core_s, self.back_end_core_s])


class Cost(Usage):
    """And what a million images like these cost; None without prices, or where a priced quantity is not known."""

    million: float | None
    currency: str | None


def priced(usage: Usage, prices: Prices | None) -> Cost:
    """The usage with its price."""
    if prices is None:
        return Cost(**usage.model_dump(), million=None, currency=None)
    quantities = [
        (prices.core_hour, usage.core_s, HOUR),
        (prices.gpu_hour, usage.front_end_gpu_s, HOUR),
        (prices.gb_read, usage.bytes_read, GB),
        (prices.gb_written, usage.bytes_written, GB),
    ]
    counted = [(price, used, unit) for price, used, unit in quantities if price is not None]
    image = _sum([None if used is None else price * used / unit for price, used, unit in counted])
    million = None if image is None or not counted else MILLION * image
    return Cost(**usage.model_dump(), million=million, currency=prices.currency)


def table(usage: Usage) -> list[tuple[str, str, str, str]]:
    """A row a stage for people: stage, core-seconds, GPU-seconds, bytes; each an image."""
    read, scores, written = map(_size, (usage.bytes_read, usage.bytes_scores, usage.bytes_written))
    return [
        ("front end", _seconds(usage.front_end_core_s), _seconds(usage.front_end_gpu_s), f"{read} read"),
        ("between", "", "", f"{scores} of scores"),
        ("back end", _seconds(usage.back_end_core_s), "", f"{written} written"),
    ]


def words(cost: Cost) -> str:
    """The cost in a line for people."""
    used = f"{_seconds(cost.core_s)} core-s, {_seconds(cost.front_end_gpu_s)} GPU-s"
    moved = f"{_size(cost.bytes_read)} read, {_size(cost.bytes_scores)} of scores, {_size(cost.bytes_written)} written"
    return "; ".join(filter(None, [f"an image takes {used}, {moved}", million_words(cost)]))


def million_words(cost: Cost) -> str:
    """What a million images cost; nothing where that is not known."""
    return "" if cost.million is None else f"a million images cost {cost.million:,.2f} {cost.currency}"


def price_list(prices: Prices) -> str:
    """The prices in words."""
    units = {"core_hour": "a core-hour", "gpu_hour": "a GPU-hour", "gb_read": "a GB read", "gb_written": "a GB written"}
    known = {unit: getattr(prices, name) for name, unit in units.items()}
    return ", ".join(f"{amount:g} {prices.currency} {unit}" for unit, amount in known.items() if amount is not None)


def _size(nbytes: float | None) -> str:
    """So many bytes, by thousands."""
    if nbytes is None:
        return "–"
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _sum(values: list[float | None]) -> float | None:
    """The sum, or None where a part of it is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
