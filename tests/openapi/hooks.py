"""Bodies that are no JSON."""

import json

import schemathesis
from hypothesis import strategies as st

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=32)
entries = st.fixed_dictionaries(
    {
        "type": st.just("tracked"),
        "id": names,
        "tenant": names,
        "event_type": names,
        "at_ms": st.integers(0, 1_700_000_000_000),
        "quantity_micros": st.integers(0, 10**15),
        "metadata": st.sampled_from(["{}", '{"a": [1]}']),
    }
)
lines = st.lists(entries, max_size=5).map(lambda entries: "\n".join(map(json.dumps, entries)).encode())
schemathesis.openapi.media_type("application/x-ndjson", lines)

# No resource, one that has no records, and fields that nobody knows.
exports = st.sampled_from([b"", b"\x0a\x00", b"\x0a\x02\x12\x00", b"\x78\x01"])
schemathesis.openapi.media_type("application/x-protobuf", exports)


@schemathesis.deserializer("application/x-protobuf")
def protobuf(ctx, response):
    return response.content.decode("latin-1")
