"""Serves the parts of files in a folder, as object stores do: ``python range_server.py FOLDER``; prints its port.

A process of its own: GDAL opens a URL without releasing Python's lock, so a thread could never answer.
"""

from __future__ import annotations

import http.server
import os
import sys
from pathlib import Path


class Ranges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.translate_path(self.path)
        if not os.path.isfile(path):
            self.send_error(404)
            return
        content = Path(path).read_bytes()
        first, last = 0, len(content) - 1
        if wanted := self.headers.get("Range"):
            start, _, stop = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
