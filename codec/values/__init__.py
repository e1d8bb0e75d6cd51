"""What the values are: elements as they are, or codes of a codebook (spec section 7.1)."""

from codec.values.coding import RAW, ValueCoding, check_values

__all__ = ["RAW", "ValueCoding", "check_values"]
