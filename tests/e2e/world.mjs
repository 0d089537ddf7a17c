// Everything a test needs, started once: homeserver, page, browsers, recorder.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { judgeSession } from '../oracle/session.mjs';
import { readTruth } from '../oracle/truth.mjs';
import { launch } from './browsers.mjs';
import { Caller } from './caller.mjs';
import { bundle, serve } from './pages.mjs';
import { freePort, onExit, until } from './processes.mjs';
import { Proxy } from './proxy.mjs';
import { Recorder } from './recorder.mjs';
import { Synapse } from './synapse.mjs';
import { startTurn } from './turn.mjs';
import { UdpPath } from './udp_path.mjs';

export class World {
  /**
   * options: `turn` start a TURN server, `proxied` put a proxy before the homeserver, `changes` to the recorder's settings,
   * `paths` for `pathOf`, `recorder: false` for none, `directory` to work in one that stays, `log(text)` for progress.
   */
  static async start(options = {}) {
    const world = new World();
    const log = options.log ?? (() => {});
    world.keep = Boolean(options.directory || process.env.KEEP);
    world.directory = options.directory ?? (await mkdtemp(path.join(tmpdir(), 'recorder-e2e-')));
    world.truthFile = path.join(world.directory, 'truth.jsonl');
    await writeFile(world.truthFile, '');
    world.browsers = new Map();
    world.users = new Map();
    world.voices = new Map();
    world.callers = [];
    onExit(() => world.#cleanUp());
    // The homeserver takes longest.
    const turn = options.turn && (world.turn = await startTurn(world.directory)).turn;
    log('starting a homeserver');
    const starting = Synapse.start(path.join(world.directory, 'synapse'), { turn });
    world.pages = await serve(await bundle(path.join(world.directory, 'page')));
    world.synapse = await starting;
    world.homeserver = world.synapse.url;
    world.account = await world.synapse.createUser('recorder');
    if (options.recorder !== false) {
      if (options.proxied) world.proxy = await Proxy.start(world.homeserver);
      log('starting the recorder');
      // A path has to know where it leads.
      if (options.paths) world.rtcPort = await freePort();
      const rtc = options.paths && { udp_port: world.rtcPort };
      world.recorder = await Recorder.prepare(path.join(world.directory, 'recorder'), {
        homeserver: world.proxy?.url ?? world.homeserver,
        user: world.account,
        allow: friends.map((name) => `@${name}:localhost`),
        passphrase: options.passphrase,
        changes: { ...(rtc && { rtc }), ...options.changes },
      });
      await world.recorder.start();
    }
    return world;
  }

  async browser(name = 'chromium') {
    if (!this.browsers.has(name)) this.browsers.set(name, launch(name));
    return this.browsers.get(name);
  }

  /** The account `name`, registered when first asked for. */
  async user(name) {
    if (!this.users.has(name)) this.users.set(name, this.synapse.createUser(name));
    return this.users.get(name);
  }

  /** A caller with a voice of its own, the same on all devices of a user. `browser`: chromium or firefox; other options go to the page's login. */
  async caller(name, { browser = 'chromium', ...options } = {}) {
    const [user, engine] = await Promise.all([this.user(name), this.browser(browser)]);
    if (!this.voices.has(name)) this.voices.set(name, this.voices.size % 14);
    const number = this.voices.get(name);
    const voice = { left: 400 + 40 * number, right: 1000 + 40 * number };
    const caller = await Caller.open(engine, this.pages.url, this.homeserver, user, {
      ...options,
      media: { ...voice, ...options.media },
    });
    this.callers.push(caller);
    await caller.note(this.truthFile, { meta: 'voice', user_id: user.userId, ...voice });
    return caller;
  }

  /** From now on all media of `caller` goes by way of the path that is returned. */
  async pathOf(caller) {
    const way = await UdpPath.start(this.rtcPort);
    await caller.do('redirect', { from: this.rtcPort, to: way.port });
    return way;
  }

  get recorderId() {
    return this.account.userId;
  }

  /** All session folders, with their manifests. */
  async sessions() {
    const found = [];
    for (const room of await readdir(this.recorder.recordings, { withFileTypes: true })) {
      if (!room.isDirectory()) continue;
      const folder = path.join(this.recorder.recordings, room.name);
      for (const name of await readdir(folder)) {
        const directory = path.join(folder, name);
        try {
          found.push({
            directory,
            manifest: JSON.parse(await readFile(path.join(directory, 'session.json'), 'utf8')),
          });
        } catch (error) {
          // A folder whose first snapshot is not there yet.
          if (error.code !== 'ENOENT') throw error;
        }
      }
    }
    return found;
  }

  /** The session of a call, once its manifest passes `test`. */
  async session(callId, test = ({ state }) => state === 'complete', timeoutMs = 10_000) {
    let last;
    try {
      return await until(
        `the session of call ${callId}`,
        async () => {
          last = (await this.sessions()).find(({ manifest }) => manifest.call_id === callId);
          return last && test(last.manifest) && last;
        },
        { timeoutMs, everyMs: 30 },
      );
    } catch (error) {
      error.message += last
        ? `: it is ${last.manifest.state}, ${last.manifest.end_reason}`
        : ': there is none';
      throw error;
    }
  }

  /**
   * Hangs up and waits for the final files; {directory, manifest, finalMs, hungUpAt}. Calls that end at the same time need a
   * log each.
   */
  async hangUp(caller, callId, truthFile = this.truthFile) {
    const hungUpAt = await caller.do('hangup');
    const session = await this.session(callId);
    const finalMs = Date.now() - hungUpAt;
    await caller.appendTruth(truthFile);
    return { ...session, finalMs, hungUpAt };
  }

  /** The oracle's judgement of what was sent, or of those frames that `of` picks; other options as in session.mjs of the oracle. */
  async judge(directory, { of = () => true, ...options } = {}) {
    const { voices, frames } = await readTruth(this.truthFile);
    return judgeSession(directory, { voices, frames: frames.filter(of) }, options);
  }

  /** Messages of the recorder in a room as `caller` reads them, once one passes `test`. */
  async notice(caller, roomId, test, timeoutMs = 10_000) {
    return until(
      `a message of the recorder in the room`,
      async () => {
        const messages = await caller.do('messages', roomId);
        const said = messages.filter(
          ({ sender, type }) => sender === this.recorderId && type === 'm.room.message',
        );
        const match = said.find(test);
        if (!match) throw new Error(JSON.stringify(said.map(({ content }) => content.body)));
        return match;
      },
      { timeoutMs, everyMs: 100 },
    );
  }

  /** Ends everything; the folder stays if KEEP is set. */
  async stop() {
    await this.#cleanUp();
  }

  #ending;

  #cleanUp() {
    this.#ending ??= (async () => {
      const quietly = (work) => Promise.resolve(work).catch(() => {});
      await Promise.all(
        [...this.browsers.values()].map((browser) => quietly(browser.then((one) => one.close()))),
      );
      if (this.recorder?.child) await quietly(this.recorder.stop());
      await quietly(this.proxy?.stop());
      await quietly(this.synapse?.stop());
      await quietly(this.turn?.stop());
      await quietly(this.pages?.close());
      if (process.env.KEEP) console.error(`kept: ${this.directory}`);
      if (!this.keep) {
        await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
      }
    })();
    return this.#ending;
  }
}

/** Who may call the recorder in tests. */
export const friends = [
  'ada',
  'ben',
  'cleo',
  'dora',
  'emil',
  'fay',
  'gus',
  'hana',
  'ivo',
  'jana',
  'kim',
  'lea',
  'max',
  'nora',
  'otto',
  'pia',
  // The lower id calls: these are called by the recorder.
  'sam',
  'tess',
  'uma',
];
