// Child processes that never outlive us: every one is ended by its own id, on errors and signals too.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import net from 'node:net';

const running = new Set();

/** A started program with its output kept in a file and its last lines in memory. */
export class Child {
  constructor(name, command, args, { cwd, env, log } = {}) {
    this.name = name;
    this.tail = [];
    this.process = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.ended = new Promise((resolve) => {
      this.process.once('error', (error) => resolve({ error }));
      this.process.once('close', (code, signal) => resolve({ code, signal }));
    });
    this.ended.then((how) => {
      this.how = how;
      running.delete(this);
      this.file?.end();
    });
    this.listeners = new Set();
    running.add(this);
    if (log) this.file = createWriteStream(log, { flags: 'a' });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        this.file?.write(text);
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        for (const line of lines) {
          this.tail.push(line);
          if (this.tail.length > 200) this.tail.shift();
          for (const listener of this.listeners) listener(line);
        }
      });
    }
  }

  get pid() {
    return this.process.pid;
  }

  get alive() {
    return this.how === undefined;
  }

  /** The first line from now on that matches. */
  async line(pattern, timeoutMs = 10_000) {
    let listener;
    const found = new Promise((resolve) => {
      listener = (line) => pattern.test(line) && resolve(line);
      this.listeners.add(listener);
    });
    try {
      return await Promise.race([
        found,
        this.ended.then(() => {
          throw new Error(
            `${this.name} ended: ${JSON.stringify(this.how)}\n${this.tail.slice(-30).join('\n')}`,
          );
        }),
        deadline(timeoutMs, `${this.name} to print ${pattern}`),
      ]);
    } finally {
      this.listeners.delete(listener);
    }
  }

  /** Asks it to end, insists after `graceMs`, and waits for the end. */
  async stop(signal = 'SIGTERM', graceMs = 10_000) {
    if (!this.alive) return this.how;
    this.process.kill(signal);
    const timer = setTimeout(() => this.process.kill('SIGKILL'), graceMs);
    const how = await this.ended;
    clearTimeout(timer);
    return how;
  }
}

/** Rejects after `ms`, naming what was waited for; does not keep the process alive. */
function deadline(ms, what) {
  return new Promise((_, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
    timer.unref?.();
  });
}

/** Polls `probe` until it returns something truthy. For conditions of other processes that cannot be awaited. */
export async function until(what, probe, { timeoutMs = 10_000, everyMs = 50 } = {}) {
  const end = Date.now() + timeoutMs;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
      if (error.fatal) throw error;
    }
    if (Date.now() > end) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`waited ${timeoutMs} ms for ${what}; last seen: ${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** A TCP port on loopback that nobody listened on a moment ago. */
export async function freePort() {
  const server = net.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

const atExit = [];

/** Registers work for the end of the program, whichever way it ends. Last registered runs first. */
export function onExit(work) {
  atExit.push(work);
}

let leaving;

/** Runs everything registered and ends all children. Safe to call twice. */
export function leave() {
  leaving ??= (async () => {
    for (const work of atExit.reverse()) {
      await Promise.resolve()
        .then(work)
        .catch(() => {});
    }
    await Promise.all([...running].map((child) => child.stop('SIGTERM', 5_000)));
  })();
  return leaving;
}

// The last resort, when the event loop is already gone.
process.on('exit', () => {
  for (const child of running) child.process.kill('SIGKILL');
});
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
]) {
  process.on(signal, () => leave().then(() => process.exit(code)));
}
