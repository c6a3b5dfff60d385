"""What the SDKs' scripts share: who calls, what the stand-in says, and the wait for a refusal.

A script is called with BASE_URL and TENANT, whose plan admits a few calls. It ends with status 0 when all was as an
application would want it.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

PROMPT = "How does a tollgate count?"
TEXT = "Every gate counts what passes, and lets"
# By the stand-in's rule: three, four for the message, and one for each word.
INPUT_TOKENS = 12
OUTPUT_TOKENS = 8
TIMEOUT_S = 30
# More than the tenant's plan admits.
MAX_CALLS = 50

BASE_URL = sys.argv[1]
HEADERS = {"X-Tenant-Id": sys.argv[2], "X-Plan-Tier": "few"}

E = TypeVar("E", bound=Exception)


def until_denied(call: Callable[[], object], error_type: type[E]) -> E:
    for _ in range(MAX_CALLS):
        try:
            call()
        except error_type as error:
            return error
    raise AssertionError(f"{MAX_CALLS} calls, and none was refused")
