"""One invocation of `stages`: reads orders, sums them up, ranks the customers. Each stage needs other memory.

usage: handler.py

Writes one line of JSON to standard output. The standard library only.
"""

import hashlib
import json
import random
import time

ORDERS = 120_000
CUSTOMERS = 20_000


def orders():
    """As lines of JSON, the same ones each time."""
    numbers = random.Random(2020)
    for index in range(ORDERS):
        customer, cents = numbers.randrange(CUSTOMERS), numbers.randrange(100, 100_000)
        yield f'{{"order": {index}, "customer": "c{customer}", "cents": {cents}}}'


def totals():
    """All orders are in memory at once: that is the hill."""
    parsed = [json.loads(line) for line in orders()]
    result = {}
    for order in parsed:
        result[order["customer"]] = result.get(order["customer"], 0) + order["cents"]
    return result


def ranked(sums):
    """Needs next to nothing besides the sums, and takes a while: that is the plain behind the hill."""
    digest = hashlib.sha256()
    for name, cents in sorted(sums.items(), key=lambda item: (-item[1], item[0])):
        digest.update(hashlib.pbkdf2_hmac("sha256", name.encode(), str(cents).encode(), 40))
    return digest.hexdigest()


def main():
    begin = time.monotonic()
    sums = totals()
    answer = {"function": "stages", "orders": ORDERS, "cents": sum(sums.values()), "digest": ranked(sums)}
    print(json.dumps({**answer, "duration_ms": round((time.monotonic() - begin) * 1000, 1)}))


if __name__ == "__main__":
    main()
