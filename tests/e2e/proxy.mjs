// A proxy before a registry, for registry.sh: forwards what is asked of any host to the registry on
// loopback, by http, and by https (CONNECT) with a certificate of its own. It counts the blobs' bytes,
// and breaks answers off or holds them back when it is told to.
//
//   node proxy.mjs REGISTRY_PORT CERTIFICATE KEY    prints the port it listens on
//   GET /control?breaks=N   the next N blobs break off half-way
//   GET /control?hold=1     blobs stop half-way, until hold=0 lets the rest go
//   GET /control            {"bytes": sent of blobs since the last time, "hosts": [...]}
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';

const [registryPort, certificate, key] = process.argv.slice(2);
let breaks = 0;
let hold = false;
let bytes = 0;
let hosts = new Set();
const held = [];

function control(url, response) {
  const query = new URL(url, 'http://proxy').searchParams;
  if (query.has('breaks')) breaks = Number(query.get('breaks'));
  if (query.has('hold')) hold = query.get('hold') === '1';
  if (!hold) for (const go of held.splice(0)) go();
  response.end(JSON.stringify({ bytes, hosts: [...hosts] }));
  bytes = 0;
  hosts = new Set();
}

function sendBlob(body, response) {
  const half = body.length >> 1;
  const rest = () => {
    bytes += body.length - half;
    response.end(body.subarray(half));
  };
  bytes += half;
  if (breaks > 0) {
    breaks -= 1;
    response.write(body.subarray(0, half), () => response.destroy());
  } else if (hold) {
    response.write(body.subarray(0, half));
    held.push(rest);
  } else {
    response.write(body.subarray(0, half));
    rest();
  }
}

function forward(request, response) {
  const url = new URL(request.url, 'http://proxy');
  if (url.pathname === '/control') return control(request.url, response);
  hosts.add(request.headers.host);
  // A registry of containers knows no capital letters.
  const path = url.pathname.toLowerCase() + url.search;
  const there = http.request(
    { host: '127.0.0.1', port: registryPort, method: request.method, path, headers: request.headers },
    (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      if (request.method !== 'GET' || !path.includes('/blobs/sha256:')) return answer.pipe(response);
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => sendBlob(Buffer.concat(chunks), response));
    });
  there.on('error', () => response.destroy());
  request.pipe(there);
}

const secure = https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, forward);
secure.listen(0, '127.0.0.1');
const proxy = http.createServer(forward);
proxy.on('connect', (request, socket) => {
  hosts.add(request.url);
  const there = net.connect(secure.address().port, '127.0.0.1', () => {
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
    there.pipe(socket);
    socket.pipe(there);
  });
  for (const end of [there, socket]) end.on('error', () => { there.destroy(); socket.destroy(); });
});
proxy.listen(0, '127.0.0.1', () => console.log(proxy.address().port));
