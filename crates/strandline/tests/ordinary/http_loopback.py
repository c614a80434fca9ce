"""A server and its client, in one process, over the loopback."""
import threading
from load import run

try:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from urllib.request import ProxyHandler, build_opener
except ImportError:
    from BaseHTTPServer import BaseHTTPRequestHandler, HTTPServer
    from urllib2 import ProxyHandler, build_opener

BODY = b"0123456789" * 20000


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
thread = threading.Thread(target=server.serve_forever)
thread.daemon = True
thread.start()
# Whatever proxy there is, this is not for it.
opener = build_opener(ProxyHandler({}))


def step(number):
    answer = opener.open("http://127.0.0.1:%d/" % server.server_address[1])
    assert answer.read() == BODY
    answer.close()


run(step, 30)
