// The recorder under test: its configuration, its process, its API.

import { execFile } from 'node:child_process';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Child, freePort, until } from './processes.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
let built;

/** The binary to test: RECORDER_BIN, or what cargo builds here. */
export function binary() {
  built ??= (async () => {
    if (process.env.RECORDER_BIN) {
      await access(process.env.RECORDER_BIN);
      return path.resolve(process.env.RECORDER_BIN);
    }
    const release = process.env.RECORDER_PROFILE === 'release';
    const build = ['build', '--quiet', '--bin', 'matrix-call-recorder', ...(release ? ['--release'] : [])];
    await promisify(execFile)('cargo', build, { cwd: root, maxBuffer: 1 << 28 });
    const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target');
    return path.join(target, release ? 'release' : 'debug', 'matrix-call-recorder');
  })();
  return built;
}

const toml = (value) => JSON.stringify(value);

export class Recorder {
  /** Prepares one below `directory`. `passphrase`: of its store, none if absent. `changes`: {section: {key: value}} over the defaults for a loopback test. */
  static async prepare(directory, { homeserver, user, allow, passphrase, changes = {} }) {
    const recorder = new Recorder();
    recorder.directory = directory;
    recorder.homeserver = homeserver;
    recorder.recordings = changes.recordings?.directory ?? path.join(directory, 'recordings');
    recorder.webPort = await freePort();
    recorder.url = `http://127.0.0.1:${recorder.webPort}`;
    await mkdir(directory, { recursive: true });
    await mkdir(recorder.recordings, { recursive: true, mode: 0o750 });
    const secret = async (name, text) => {
      const file = path.join(directory, name);
      await writeFile(file, text, { mode: 0o600 });
      return file;
    };
    const settings = {
      matrix: {
        homeserver,
        user: user.userId,
        password_file: await secret('password', user.password),
        store: path.join(directory, 'store'),
        // Deriving a key from it takes seconds in a debug build.
        ...(passphrase && { store_passphrase_file: await secret('passphrase', passphrase) }),
        allow,
      },
      calls: { max: 20 },
      rtc: { udp_port: 0, bind: '127.0.0.1', include_loopback: true },
      recordings: { directory: recorder.recordings, reserve: '64 MiB' },
      web: { listen: `127.0.0.1:${recorder.webPort}` },
      log: { filter: process.env.RECORDER_LOG ?? 'info', format: 'text' },
    };
    for (const [section, keys] of Object.entries(changes))
      settings[section] = { ...settings[section], ...keys };
    const text = Object.entries(settings)
      .map(([section, keys]) => {
        const lines = Object.entries(keys).map(([key, value]) => `${key} = ${toml(value)}`);
        return `[${section}]\n${lines.join('\n')}\n`;
      })
      .join('\n');
    recorder.config = path.join(directory, 'recorder.toml');
    await writeFile(recorder.config, text);
    recorder.log = path.join(directory, 'recorder.log');
    return recorder;
  }

  /** Starts the process; with `ready`, waits until it can take calls. Returns the milliseconds until then. */
  async start({ ready = true, timeoutMs = 30_000 } = {}) {
    const begun = performance.now();
    this.child = new Child('recorder', await binary(), ['run', '--config', this.config], {
      cwd: this.directory,
      log: this.log,
    });
    if (ready) await this.ready(timeoutMs);
    return performance.now() - begun;
  }

  /** Starts it if a test before left it ended. */
  async ensure() {
    if (!this.child.alive) await this.start();
  }

  async ready(timeoutMs = 30_000) {
    await until(
      'the recorder to be ready',
      async () => {
        if (!this.child.alive) {
          const tail = this.child.tail.slice(-20).join('\n');
          throw Object.assign(new Error(`the recorder ended: ${JSON.stringify(this.child.how)}\n${tail}`), {
            fatal: true,
          });
        }
        const answer = await fetch(`${this.url}/readyz`);
        if (!answer.ok) throw new Error(await answer.text());
        return true;
      },
      { timeoutMs },
    );
  }

  /** Its configuration as it stands. */
  text = () => readFile(this.config, 'utf8');

  /** Ends it in order; {code, signal, ms}. */
  async stop() {
    const begun = performance.now();
    const how = await this.child.stop('SIGTERM', 15_000);
    return { ...how, ms: performance.now() - begun };
  }

  async kill() {
    await this.child.stop('SIGKILL');
  }

  async get(place) {
    const answer = await fetch(`${this.url}${place}`);
    if (!answer.ok) throw new Error(`${place}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Arms a fault (src/web/faults.rs): {point, who, fault, times}. Only in builds with `fault-injection`. */
  async fault(order) {
    const answer = await fetch(`${this.url}/faults`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(order),
    });
    if (!answer.ok) throw new Error(`/faults: ${answer.status} ${await answer.text()}`);
  }

  /** Faults that are armed and were not met yet. */
  faults = async () => (await this.get('/faults')).faults;
  liftFaults = () => fetch(`${this.url}/faults`, { method: 'DELETE' });
  status = () => this.get('/api/v1/status');
  calls = async () => (await this.get('/api/v1/calls')).calls;
  actors = async () => (await this.get('/api/v1/actors')).actors;
  happenings = async () => (await this.get('/api/v1/happenings')).happenings;
  totals = async () => (await this.status()).totals;
}
