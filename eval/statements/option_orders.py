# SPDX-License-Identifier: MIT
"""The orders in which options are shown, so that a preference for a place cancels."""

import logging
from collections import Counter

log = logging.getLogger(__name__)


def option_orders(n_options: int) -> list[list[int]]:
    """Return all cyclic orders and all reversed ones, balanced as early as possible.

    Rotations by even steps come first, each with its reverse. So for an even number of options the first
    two mirror each other, and the first ``n_options`` show every option once in every place, half of them
    upwards; all ``2 n_options`` do so for any number.
    """
    rotations = [*range(0, n_options, 2), *range(1, n_options, 2)]
    upwards = list(range(n_options))
    orders = []
    for r in rotations:
        for order in (upwards, upwards[::-1]):
            turned = order[r:] + order[:r]
            if turned not in orders:
                orders.append(turned)
    return orders


def first_orders(name: str, n_options: int, n_orders: int) -> list[list[int]]:
    """Return the first ``n_orders``, and say in the log what they leave of position bias.

    Args:
        name: What a config calls their number.
        n_options: Number of options.
        n_orders: At least 1.

    Raises:
        ValueError: If there are fewer.
    """
    orders = option_orders(n_options)
    if not 1 <= n_orders <= len(orders):
        raise ValueError(f"{name}={n_orders}; use 1 to {len(orders)}")
    orders = orders[:n_orders]
    shown = Counter(place for order in orders for place in enumerate(order))
    if {tuple(order) for order in orders} != {tuple(order[::-1]) for order in orders}:
        log.warning("%s=%d: some options come early more often; position bias remains", name, n_orders)
    elif len(shown) < n_options**2 or len(set(shown.values())) > 1:
        log.info("%s=%d: orders and their reverses; position bias cancels on symmetric scales only", name, n_orders)
    return orders
