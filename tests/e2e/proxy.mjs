// Between the recorder and its homeserver: sees when what was delivered, and can hold room keys back or answer with faults.

import http from 'node:http';

export class Proxy {
  static async start(target) {
    const proxy = new Proxy();
    proxy.target = new URL(target);
    proxy.agent = new http.Agent({ keepAlive: true });
    proxy.held = [];
    /** Keep to-device messages (room keys) from the recorder while set. */
    proxy.holdKeys = false;
    /** Answer with this status instead of asking the homeserver, if set: {status, body, headers}. */
    proxy.fault = null;
    /** Invites delivered and answers sent: [{what, roomId, callId, at}], `at` in ms of performance.now(). */
    proxy.log = [];
    proxy.server = http.createServer((request, response) => proxy.#pass(request, response));
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  #pass(request, response) {
    if (this.fault) {
      request.resume();
      response.writeHead(this.fault.status, { 'content-type': 'application/json', ...this.fault.headers });
      response.end(this.fault.body ?? '{}');
      return;
    }
    const isSync = request.url.includes('/sync');
    const sends = /\/rooms\/([^/]+)\/send\/(m\.call\.[a-z_]+)/.exec(request.url);
    const headers = { ...request.headers, host: this.target.host };
    // What is to be read may not be compressed.
    if (isSync) delete headers['accept-encoding'];
    const body = [];
    const onward = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        method: request.method,
        path: request.url,
        headers,
        agent: this.agent,
      },
      (answer) => {
        if (!isSync || answer.statusCode !== 200) {
          response.writeHead(answer.statusCode, answer.headers);
          answer.pipe(response);
          return;
        }
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => {
          const text = this.#synced(Buffer.concat(parts).toString());
          const { 'content-length': _, 'transfer-encoding': __, ...kept } = answer.headers;
          response.writeHead(200, { ...kept, 'content-length': Buffer.byteLength(text) });
          response.end(text);
        });
      },
    );
    onward.on('error', () => {
      if (response.headersSent) return response.destroy();
      response.writeHead(502).end('{"errcode":"M_UNKNOWN","error":"homeserver is away"}');
    });
    // A finished exchange has given its connection back already: another may be using it.
    response.on('close', () => response.writableFinished || onward.destroy());
    if (sends) {
      const at = performance.now();
      request.on('data', (part) => body.push(part));
      request.on('end', () => {
        try {
          const { call_id } = JSON.parse(Buffer.concat(body).toString());
          this.log.push({ what: sends[2], roomId: decodeURIComponent(sends[1]), callId: call_id, at });
        } catch {
          // Not for us to judge.
        }
      });
    }
    request.pipe(onward);
  }

  #synced(text) {
    const sync = JSON.parse(text);
    for (const [roomId, room] of Object.entries(sync.rooms?.join ?? {})) {
      for (const event of room.timeline?.events ?? []) {
        if (event.type === 'm.call.invite') {
          this.log.push({ what: 'invite', roomId, callId: event.content.call_id, at: performance.now() });
        }
      }
    }
    const keys = sync.to_device?.events ?? [];
    if (this.holdKeys) {
      this.held.push(...keys);
      if (keys.length) sync.to_device.events = [];
    } else if (this.held.length) {
      sync.to_device = { events: [...this.held.splice(0), ...keys] };
    }
    return JSON.stringify(sync);
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    this.agent.destroy();
  }
}
