"""A small web service per language: built in the dev image, run in the runtime image.

Each starts a server, asks itself over HTTP, and says what it found of time zones and authorities.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.applications import Kitchen, kitchen

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    with kitchen(tmp_path_factory.mktemp("kitchen")) as found:
        yield found


def told(output: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(output.strip().splitlines()[-1])
    return found


NODE = {
    "Dockerfile": """\
FROM $DEV AS build
WORKDIR /app
COPY . .
RUN npm install --offline --no-audit --no-fund --omit=dev && npm run check

FROM $RUNTIME
WORKDIR /app
COPY --from=build /app /app
CMD ["server.mjs"]
""",
    "package.json": json.dumps(
        {
            "name": "app",
            "version": "1.0.0",
            "type": "module",
            "scripts": {"check": "node --check server.mjs"},
            "dependencies": {"greeting": "file:./greeting"},
        }
    ),
    "greeting/package.json": json.dumps({"name": "greeting", "version": "1.0.0", "main": "index.js"}),
    "greeting/index.js": "module.exports = (name) => `hello, ${name}`;\n",
    "server.mjs": """\
import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';
import greeting from 'greeting';

const server = createServer((request, answer) => answer.end(greeting(request.url.slice(1))));
server.listen(0, '127.0.0.1', async () => {
    const body = await (await fetch(`http://127.0.0.1:${server.address().port}/world`)).text();
    const when = new Intl.DateTimeFormat('en', { timeZone: 'Europe/Zurich', timeZoneName: 'longOffset' });
    const zone = when.formatToParts(new Date('2026-07-01')).find((p) => p.type === 'timeZoneName').value;
    const bundle = readFileSync(process.env.SSL_CERT_FILE, 'utf8');
    console.log(JSON.stringify({ body, zone, authorities: bundle.split('BEGIN CERT').length - 1, user: process.getuid() }));
    server.close();
});
""",
}

# `-Xshare:on` ends where there is no archive of shared classes.
JAVA = {
    "Dockerfile": """\
FROM $DEV AS build
WORKDIR /src
COPY Main.java .
RUN javac -d out Main.java && jar --create --file app.jar --main-class Main -C out .

FROM $RUNTIME
COPY --from=build /src/app.jar /app.jar
CMD ["-Xshare:on", "-jar", "/app.jar"]
""",
    "Main.java": """\
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.time.Instant;
import java.time.ZoneId;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

public class Main {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            byte[] body = ("hello, " + exchange.getRequestURI().getPath().substring(1)).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        URI address = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/world");
        String body = HttpClient.newHttpClient()
            .send(HttpRequest.newBuilder(address).build(), HttpResponse.BodyHandlers.ofString()).body();
        server.stop(0);
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init((KeyStore) null);
        int authorities = ((X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers().length;
        String zone = ZoneId.of("Europe/Zurich").getRules().getOffset(Instant.parse("2026-07-01T00:00:00Z")).getId();
        Object user = Files.getAttribute(Path.of("/proc/self"), "unix:uid");
        System.out.printf("{\\"body\\": \\"%s\\", \\"zone\\": \\"%s\\", \\"authorities\\": %d, \\"user\\": %s}%n",
            body, zone, authorities, user);
    }
}
""",
}

# 25 has no archive; the README says how to take the one of dev.
ARCHIVE = (
    "COPY --from=build /usr/lib/jvm/default-java/lib/server/classes.jsa /usr/lib/jvm/default-java/lib/server/"
)
JAVA_25 = {**JAVA, "Dockerfile": JAVA["Dockerfile"].replace("FROM $RUNTIME", f"FROM $RUNTIME\n{ARCHIVE}")}

GO = {
    "Dockerfile": """\
FROM $DEV AS build
WORKDIR /src
COPY . .
RUN go build -trimpath -ldflags=-s -o /out/app .

FROM $RUNTIME
COPY --from=build /out/app /app
ENTRYPOINT ["/app"]
""",
    "go.mod": "module example.test/app\n\ngo 1.24\n",
    "main.go": """\
package main

import (
\t"crypto/x509"
\t"encoding/json"
\t"fmt"
\t"io"
\t"net/http"
\t"net/http/httptest"
\t"os"
\t"time"
)

func greeting(name string) string { return "hello, " + name }

func must(err error) {
\tif err != nil {
\t\tpanic(err)
\t}
}

func main() {
\tserver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
\t\tfmt.Fprint(w, greeting(r.URL.Path[1:]))
\t}))
\tdefer server.Close()
\tanswer, err := http.Get(server.URL + "/world")
\tmust(err)
\tbody, err := io.ReadAll(answer.Body)
\tmust(err)
\tzone, err := time.LoadLocation("Europe/Zurich")
\tmust(err)
\tpool, err := x509.SystemCertPool()
\tmust(err)
\tmust(json.NewEncoder(os.Stdout).Encode(map[string]any{
\t\t"body":        string(body),
\t\t"zone":        time.Date(2026, 7, 1, 0, 0, 0, 0, zone).Format("-07:00"),
\t\t"authorities": len(pool.Subjects()), //nolint
\t\t"user":        os.Getuid(),
\t}))
}
""",
}


@pytest.mark.parametrize(
    ("dev", "runtime", "files", "zone"),
    [
        ("go:1.24-dev", "static:13", GO, "+02:00"),
        ("node:20-dev", "node:20", NODE, "GMT+02:00"),
        ("java:21-dev", "java:21", JAVA, "+02:00"),
        ("java:25-dev", "java:25", JAVA_25, "+02:00"),
    ],
)
def test_a_service_is_built_in_dev_and_runs_in_runtime(
    here: Kitchen, dev: str, runtime: str, files: dict[str, str], zone: str
) -> None:
    sources = {path: text.encode() for path, text in files.items() if path != "Dockerfile"}
    found = told(here.serve(here.cook(files["Dockerfile"], sources, dev=dev, runtime=runtime)))
    assert (found["body"], found["zone"], found["user"]) == ("hello, world", zone, 65532)
    assert int(str(found["authorities"])) > 100
