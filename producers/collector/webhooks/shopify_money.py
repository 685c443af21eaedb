"""What an order and a refund of Shopify are worth, in one basis of money.

Shopify writes amounts twice: ``shop_money`` in the shop's currency and ``presentment_money`` in the customer's. The
plain fields ``total_price`` and ``currency`` are shop money. A refund's transactions are entered in the customer's
currency, unless the shop asks otherwise. Mixing the two takes euros off dollars.

A refund is the sum of its successful refund transactions when all are in the basis currency, because that is the money
that moved. Otherwise it is the sum of its lines, shipping lines and adjustments in the basis. Adjustments are negative
where more was given back than the lines say. An adjustment for shipping and the list of shipping lines say the same
thing twice: the list counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import product
from typing import Any

from .payload import Skipped, Unmapped, currency_of, decimal_of, micros_of, object_in, objects_in
from .source import ShopifyOptions

_ZERO = Decimal(0)
_AMOUNTS = {
    "refund_line_items": ("subtotal_set", "total_tax_set"),
    "refund_shipping_lines": ("subtotal_amount_set", "tax_amount_set"),
    "order_adjustments": ("amount_set", "tax_amount_set"),
}


def order_worth(order: Mapping[str, Any], options: ShopifyOptions) -> tuple[int, str]:
    """Return the value of an order in micros, and its currency.

    Raises:
        Unmapped: an amount is missing, of another currency, or no whole number of minor units.
    """
    total, currency = _of_order(order, "total_price", options)
    if options.currency and options.basis == "shop_money" and currency != options.currency:
        raise Unmapped("currency", "is not the shop's currency of the settings")
    if options.measure == "subtotal":
        total, other = _of_order(order, "subtotal_price", options)
    elif options.measure == "without_tax":
        tax, other = _of_order(order, "total_tax", options)
        total -= tax
    elif options.measure == "without_shipping":
        shipping, other = _amount(order, "total_shipping_price_set", options)
        total -= shipping
    else:
        other = currency
    if other != currency:
        raise Unmapped("currency", "must be one in all amounts of the order")
    return micros_of(total, currency, options.measure), currency


def _of_order(order: Mapping[str, Any], name: str, options: ShopifyOptions) -> tuple[Decimal, str]:
    if isinstance(order.get(f"{name}_set"), Mapping):
        return _amount(order, f"{name}_set", options)
    if options.basis == "presentment_money":
        raise Unmapped(f"{name}_set", "must be set to count presentment money")
    return decimal_of(order.get(name), name), currency_of(order.get("currency"))


def _amount(entity: Mapping[str, Any], name: str, options: ShopifyOptions) -> tuple[Decimal, str]:
    money = object_in(object_in(entity.get(name)).get(options.basis))
    return decimal_of(money.get("amount"), f"{name}.amount"), currency_of(
        money.get("currency_code"), f"{name}.currency_code"
    )


def refund_worth(refund: Mapping[str, Any], options: ShopifyOptions) -> tuple[int, str]:
    """Return what a refund gave back in micros, and its currency; zero when no money moved.

    Raises:
        Skipped: no money moved (a restock).
        Unmapped: the amount in the basis cannot be told.
    """
    moved = [each for each in objects_in(refund.get("transactions")) if each.get("kind") == "refund"]
    succeeded = [each for each in moved if each.get("status") == "success"]
    if moved and len(succeeded) < len(moved) and any(each.get("status") == "pending" for each in moved):
        raise Unmapped("transactions.status", "is pending, and Shopify does not say later that it succeeded")
    if not succeeded:
        raise Skipped("no_money_moved")
    currency = _basis_currency(refund, options)
    paid_in = {currency_of(each.get("currency"), "transactions.currency") for each in succeeded}
    if currency is None and options.basis == "presentment_money" and len(paid_in) == 1:
        currency = next(iter(paid_in))
    if currency is None:
        raise Unmapped("currency", "of the shop is not in this refund: set it in the settings")
    if options.measure == "total" and paid_in == {currency}:
        total = sum((decimal_of(each.get("amount"), "transactions.amount") for each in succeeded), _ZERO)
    else:
        total = _by_lines(refund, options)
    return micros_of(total, currency, "refund"), currency


def _basis_currency(refund: Mapping[str, Any], options: ShopifyOptions) -> str | None:
    """Return the currency of the basis: from the settings, else from the amounts in the refund."""
    if options.currency and options.basis == "shop_money":
        return options.currency
    found = {currency_of(money.get("currency_code"), "currency_code") for money in _basis_amounts(refund, options)}
    if len(found) > 1:
        raise Unmapped("currency_code", "must be one in all amounts of the refund")
    return next(iter(found), None)


def _basis_amounts(refund: Mapping[str, Any], options: ShopifyOptions) -> Iterator[Mapping[str, Any]]:
    for list_name, names in _AMOUNTS.items():
        for part, name in product(objects_in(refund.get(list_name)), names):
            if money := object_in(object_in(part.get(name)).get(options.basis)):
                yield money


def _by_lines(refund: Mapping[str, Any], options: ShopifyOptions) -> Decimal:
    total, has_lines = _ZERO, False
    add_tax = options.measure in {"total", "without_shipping"} and not options.taxes_included
    take_tax = options.measure == "without_tax" and options.taxes_included
    for line in objects_in(refund.get("refund_line_items")):
        has_lines = True
        total += _amount(line, "subtotal_set", options)[0]
        total += _tax(line, "total_tax_set", options) * (add_tax - take_tax)
    shipping = list(objects_in(refund.get("refund_shipping_lines")))
    if options.measure in {"total", "without_tax"}:
        for line in shipping:
            has_lines = True
            total += _amount(line, "subtotal_amount_set", options)[0]
            total += _tax(line, "tax_amount_set", options) * (add_tax - take_tax)
    for adjustment in objects_in(refund.get("order_adjustments")):
        is_shipping = adjustment.get("kind") == "shipping_refund"
        if is_shipping and (shipping or options.measure in {"subtotal", "without_shipping"}):
            continue
        has_lines = True
        total -= _amount(adjustment, "amount_set", options)[0]
        if add_tax:
            total -= _tax(adjustment, "tax_amount_set", options)
    if not has_lines:
        raise Unmapped("refund_line_items", "say no amount in the basis, and the transactions are in another currency")
    return total


def _tax(part: Mapping[str, Any], name: str, options: ShopifyOptions) -> Decimal:
    return _amount(part, name, options)[0] if isinstance(part.get(name), Mapping) else _ZERO
