"""A large document that is kept; written out and read in again at each step."""
import json
from load import run

DOCUMENT = {
    "rows": [
        {"id": i, "name": "name %d" % i, "tags": ["a%d" % i, "b%d" % (i % 7)], "score": i / 3.0}
        for i in range(8000)
    ]
}


def step(number):
    again = json.loads(json.dumps(DOCUMENT))
    assert len(again["rows"]) == 8000


run(step)
