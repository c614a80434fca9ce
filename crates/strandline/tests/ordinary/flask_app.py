"""A Flask app under requests."""
import sys
from load import run

try:
    import flask
except ImportError:
    sys.stdout.write("without: flask is not installed\n")
    sys.stdout.flush()
    sys.exit(0)

app = flask.Flask("load")
NOTES = {}


@app.route("/note/<int:number>", methods=["GET", "PUT", "DELETE"])
def note(number):
    if flask.request.method == "PUT":
        NOTES[number] = flask.request.get_data(as_text=True)
    elif flask.request.method == "DELETE":
        NOTES.pop(number, None)
    return flask.jsonify({"notes": len(NOTES), "text": NOTES.get(number)})


def step(number):
    with app.test_client() as client:
        for i in range(20):
            path = "/note/%d" % (number * 20 + i)
            assert client.put(path, data="text of a note " * 100).status_code == 200
            assert client.get(path).get_json()["text"]
            client.delete("/note/%d" % (number * 20 + i - 2000))


run(step, 30)
