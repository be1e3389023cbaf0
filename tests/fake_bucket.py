"""A bucket for tests: a server that speaks the part of Google Cloud Storage's JSON interface that is used here.

It is reached as a real one is: by TensorStore (Orbax's arrays) over HTTP, and by `epath` through a client: `Client`
below, or gcsfs itself. What an object store lacks, the server has no request for: folders, appending, locks, renaming.
No test here reaches a real bucket.
"""

import calendar
import email
import http.server
import io
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import fsspec


class Server(http.server.ThreadingHTTPServer):
    """Objects by bucket and name; every change makes a new generation.

    Attributes:
      objects: content, generation and time of the last change, by (bucket, name).
      requests: how often each kind of request was made, as in `POST upload`.
      fail: is asked before a request is served, with its method and path; a number is the status to refuse it with.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], tuple[bytes, int, float]] = {}
        self.requests: dict[str, int] = {}
        self.clock = time.time
        self.fail = lambda method, path: None
        self.guard = threading.RLock()
        self._generation = 0
        self._uploads: dict[str, tuple[str, str, bytearray]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Clients hang up, or are killed: that is no error of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """What makes clients in this or another process use the server."""
        return {
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "STORAGE_EMULATOR_HOST": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "JAXDISTILL_TEST_BUCKET": self.url,
        }

    def names(self, bucket: str, prefix: str = "") -> list[str]:
        with self.guard:
            return sorted(name for where, name in self.objects if where == bucket and name.startswith(prefix))

    def put(self, bucket: str, name: str, data: bytes, match: str | None = None) -> dict | None:
        """Stores an object; None when its generation is not `match`."""
        with self.guard:
            before = self.objects.get((bucket, name))
            if match is not None and int(match) != (before[1] if before else 0):
                return None
            self._generation += 1
            self.objects[bucket, name] = (bytes(data), self._generation, self.clock())
            return self.about(bucket, name)

    def about(self, bucket: str, name: str) -> dict:
        data, generation, changed = self.objects[bucket, name]
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(changed)) + f".{int(changed % 1 * 1000):03d}Z"
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": when,
            "updated": when,
        }

    def listing(self, bucket: str, query: dict[str, str]) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first, last = query.get("startOffset", ""), query.get("endOffset", "")
        items, prefixes = [], set()
        with self.guard:
            for name in self.names(bucket, prefix):
                rest = name[len(prefix) :]
                if name < first or (last and name >= last):
                    continue
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest[: rest.index(delimiter) + 1])
                else:
                    items.append(self.about(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def start_upload(self, bucket: str, name: str) -> str:
        with self.guard:
            self._generation += 1
            self._uploads[str(self._generation)] = (bucket, name, bytearray())
            return str(self._generation)

    def go_on_upload(self, key: str, data: bytes, last: bool) -> dict | None:
        bucket, name, so_far = self._uploads[key]
        so_far += data
        return self.put(bucket, name, bytes(so_far)) if last else None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _serve(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = f"{self.command} {'upload' if parts.path.startswith('/upload') else query.get('alt', 'object')}"
        with self.server.guard:
            self.server.requests[kind] = self.server.requests.get(kind, 0) + 1
        refused = self.server.fail(self.command, urllib.parse.unquote(self.path))
        if refused:
            return self._answer(refused, {"error": {"code": refused, "message": "refused by the test"}})
        if parts.path.startswith("/batch/"):
            return self._batch(body)
        return self._answer(*self._reply(self.command, parts.path, query, body))

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _reply(self, method, path, query, body):
        store, missing = self.server, (404, {"error": {"code": 404, "message": "Not Found"}})
        stale = (412, {"error": {"code": 412, "message": "conditionNotMet"}})
        steps = [urllib.parse.unquote(step) for step in path.partition("/storage/v1/b/")[2].strip("/").split("/")]
        bucket, rest = steps[0], steps[2:]
        if path.startswith("/upload"):
            return self._upload(bucket, query, body, stale)
        if not rest:
            return (
                (200, store.listing(bucket, query)) if steps[1:] else (200, {"kind": "storage#bucket", "name": bucket})
            )
        with store.guard:
            if method == "POST" and rest[1] in ("rewriteTo", "copyTo"):
                if (bucket, rest[0]) not in store.objects:
                    return missing
                made = store.put(rest[3], rest[5], store.objects[bucket, rest[0]][0])
                return 200, {"kind": "storage#rewriteResponse", "done": True, "resource": made}
            found = store.objects.get((bucket, rest[0]))
            match = query.get("ifGenerationMatch")
            if match is not None and int(match) != (found[1] if found else 0):
                return stale
            if found is None:
                return missing
            if method == "DELETE":
                del store.objects[bucket, rest[0]]
                return 204, None
            if query.get("ifGenerationNotMatch") == str(found[1]):
                return 304, None
            return (200, found) if query.get("alt") == "media" else (200, store.about(bucket, rest[0]))

    def _upload(self, bucket, query, body, stale):
        store, kind = self.server, query.get("uploadType")
        if "upload_id" in query:
            last = not self.headers["Content-Range"].endswith("/*")
            made = store.go_on_upload(query["upload_id"], body, last)
            return (200, made) if last else (308, None)
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            self._location = f"{store.url}/upload/storage/v1/b/{bucket}/o?upload_id={store.start_upload(bucket, name)}"
            return 200, {}
        name, data = query.get("name"), body
        if kind == "multipart":
            whole = b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
            about, _ = email.message_from_bytes(whole).get_payload()
            name = json.loads(about.get_payload())["name"]
            mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            data = body.split(b"--" + mark)[2].partition(b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n")[2]
            data = body[body.index(data) : body.rindex(b"--" + mark)].removesuffix(b"\n").removesuffix(b"\r")
        made = store.put(bucket, name, data, query.get("ifGenerationMatch"))
        return (200, made) if made else stale

    def _batch(self, body):
        mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1]
        answers = []
        for method, path in re.findall(rb"(DELETE) (\S+) HTTP", body):
            status, _ = self._reply(method.decode(), urllib.parse.urlsplit(path.decode()).path, {}, b"")
            answers.append(f"--{mark}\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n\r\n\r\n")
        text = ("".join(answers) + f"--{mark}--").encode()
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/mixed; boundary={mark}")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    _location = None

    def _answer(self, status, value):
        extra, content = {}, b""
        if isinstance(value, tuple):
            content, generation, _ = value
            extra = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked:
                start, end = int(asked[1]), int(asked[2] or len(content) - 1)
                if start >= len(content):
                    status, content = 416, b""
                else:
                    extra["Content-Range"] = f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}"
                    status, content = 206, content[start : end + 1]
        elif value is not None:
            content, extra = json.dumps(value).encode(), {"Content-Type": "application/json"}
        if self._location:
            extra["Location"], self._location = self._location, None
        self.send_response(status)
        for name, text in extra.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Client(fsspec.AbstractFileSystem):
    """A file system for `epath`, in place of gcsfs; of a real one it has only what an object store can do."""

    protocol = ("gcs", "gs")
    cachable = False

    def _ask(self, method, bucket, name="", query="", data=None, upload=False):
        path = f"{'/upload' if upload else ''}/storage/v1/b/{bucket}/o"
        path += f"/{urllib.parse.quote(name, safe='')}" if name else ""
        url = f"{os.environ['JAXDISTILL_TEST_BUCKET']}{path}?{query}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=60) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise FileNotFoundError(f"{bucket}/{name}") from None
            raise RuntimeError(f"{error.code}, {method} {bucket}/{name}") from None

    def _place(self, path):
        bucket, _, name = self._strip_protocol(path).partition("/")
        return bucket, name

    def ls(self, path, detail=True, **_):
        bucket, name = self._place(path)
        prefix = f"{name}/" if name else ""
        query = urllib.parse.urlencode({"prefix": prefix, "delimiter": "/"})
        found = json.loads(self._ask("GET", bucket, query=query))
        entries = [self._entry(item) for item in found["items"]]
        entries += [
            {"name": f"{bucket}/{folder.rstrip('/')}", "size": 0, "type": "directory"} for folder in found["prefixes"]
        ]
        if not entries and name:
            entries = [self._entry(json.loads(self._ask("GET", bucket, name)))]
        return entries if detail else [entry["name"] for entry in entries]

    def _entry(self, item):
        when = time.strptime(item["updated"][:19], "%Y-%m-%dT%H:%M:%S")
        name = f"{item['bucket']}/{item['name']}"
        return {"name": name, "size": int(item["size"]), "type": "file", "mtime": calendar.timegm(when)}

    def info(self, path, **_):
        bucket, name = self._place(path)
        try:
            return self._entry(json.loads(self._ask("GET", bucket, name)))
        except FileNotFoundError:
            if self.ls(path):
                return {"name": f"{bucket}/{name}", "size": 0, "type": "directory"}
            raise

    def exists(self, path, **_):
        try:
            return bool(self.info(path))
        except FileNotFoundError:
            return False

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            return io.BytesIO(self._ask("GET", *self._place(path), query="alt=media"))
        if mode != "wb":
            raise ValueError(f"mode {mode}: an object store can't append")
        return _Upload(self, path)

    def rm_file(self, path):
        self._ask("DELETE", *self._place(path))

    _rm = rm_file

    def rm(self, path, recursive=False, maxdepth=None):
        names = self.find(path) if recursive else [path]
        if not names:
            raise FileNotFoundError(path)
        for name in names:
            self.rm_file(name)

    def mkdir(self, path, create_parents=True, **_):
        pass

    def cp_file(self, *_, **__):
        raise RuntimeError("epath copies by reading and writing")

    def rename(self, *_, **__):
        raise RuntimeError("an object store can't rename")

    mv = rename


class _Upload(io.BytesIO):
    """A file whose content becomes an object when it is closed."""

    def __init__(self, client, path):
        super().__init__()
        self._client, self._path = client, path

    def close(self):
        if not self.closed:
            bucket, name = self._client._place(self._path)
            query = urllib.parse.urlencode({"uploadType": "media", "name": name})
            self._client._ask("POST", bucket, query=query, data=self.getvalue(), upload=True)
        super().close()


def connect() -> None:
    """Makes `epath` of this process use `Client`."""
    fsspec.register_implementation("gcs", Client, clobber=True)
    fsspec.register_implementation("gs", Client, clobber=True)
