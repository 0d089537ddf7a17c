// Starts that cannot succeed: each ends with its exit code and says what to do.

import assert from 'node:assert/strict';
import { readdir, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import dgram from 'node:dgram';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { seconds } from './expect.mjs';
import { freePort, leave, until } from './processes.mjs';
import { Recorder } from './recorder.mjs';
import { World } from './world.mjs';

const CONFIGURATION = 78;
const AUTHENTICATION = 77;
const TRANSIENT = 75;

describe('starts', () => {
  let world;
  let count = 0;

  before(async () => {
    world = await World.start();
  });
  after(() => leave());

  const prepare = (changes, user = world.account) =>
    Recorder.prepare(path.join(world.directory, `start-${count++}`), {
      homeserver: world.homeserver,
      user,
      allow: [],
      changes,
    });

  /** Starts one that is to end by itself; {code, text}. */
  async function ends(recorder) {
    await recorder.start({ ready: false });
    const timer = setTimeout(() => recorder.child.stop('SIGKILL'), 30_000);
    const { code } = await recorder.child.ended;
    clearTimeout(timer);
    return { code, text: recorder.child.tail.join('\n') };
  }

  test('a wrong password is an authentication fault that names the setting', async () => {
    const recorder = await prepare({}, { ...world.account, password: 'wrong' });
    const { code, text } = await ends(recorder);
    assert.equal(code, AUTHENTICATION, text);
    assert.match(text, /password/);
  });

  test('an unknown user is an authentication fault', async () => {
    const { code, text } = await ends(await prepare({}, { userId: '@nobody:localhost', password: 'x' }));
    assert.equal(code, AUTHENTICATION, text);
    assert.match(text, /@nobody:localhost/);
  });

  test('a token of nobody is an authentication fault', async () => {
    const recorder = await prepare({});
    const file = path.join(recorder.directory, 'token');
    await writeFile(file, 'syt_not_a_token', { mode: 0o600 });
    const again = await prepare({ matrix: { access_token_file: file, password_file: '' } });
    const { code, text } = await ends(again);
    assert.equal(code, AUTHENTICATION, text);
    assert.ok(!text.includes('syt_not_a_token'), 'the token is in the log');
  });

  test('the token of a device that has keys already is refused with an empty store', async () => {
    const api = await world.synapse.login(world.account, 'has keys');
    const keys = {
      algorithms: ['m.olm.v1.curve25519-aes-sha2'],
      device_id: api.deviceId,
      user_id: api.userId,
    };
    await api.request('POST', '/keys/upload', {
      device_keys: { ...keys, keys: { [`curve25519:${api.deviceId}`]: 'A'.repeat(43) }, signatures: {} },
    });
    const place = await prepare({});
    const file = path.join(place.directory, 'token');
    await writeFile(file, api.accessToken, { mode: 0o600 });
    const { code, text } = await ends(
      await prepare({ matrix: { access_token_file: file, password_file: '' } }),
    );
    assert.equal(code, AUTHENTICATION, text);
    assert.match(text, /keys/);
    assert.ok(!text.includes(api.accessToken), 'the token is in the log');
  });

  test('a homeserver that is not there is a transient fault that names its address', async () => {
    const homeserver = `http://127.0.0.1:${await freePort()}`;
    const { code, text } = await ends(await prepare({ matrix: { homeserver } }));
    assert.equal(code, TRANSIENT, text);
    assert.ok(text.includes(homeserver), text);
    const warnings = text.split('\n').filter((line) => line.includes('matrix.allow'));
    assert.equal(warnings.length, 1, 'that nobody may call is said once');
  });

  test('a homeserver that speaks nonsense is a transient fault', async () => {
    const server = http.createServer((_, response) => response.end('<html>welcome</html>'));
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const homeserver = `http://127.0.0.1:${server.address().port}`;
      const { code, text } = await ends(await prepare({ matrix: { homeserver } }));
      assert.equal(code, TRANSIENT, text);
      assert.match(text, /Matrix/);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  test('unknown and ill-typed keys are told together', async () => {
    const { code, text } = await ends(
      await prepare({ matrix: { hoemserver: 'x' }, calls: { max: 'many' }, log: { format: 'poetry' } }),
    );
    assert.equal(code, CONFIGURATION, text);
    for (const key of ['matrix.hoemserver', 'calls.max', 'log.format'])
      assert.ok(text.includes(key), `${key}: ${text}`);
  });

  /** Prepares one whose recordings belong to `directory`, without making that. */
  async function recordingTo(directory) {
    const recorder = await prepare({});
    const text = await recorder.text();
    await writeFile(
      recorder.config,
      text.replace(JSON.stringify(recorder.recordings), JSON.stringify(directory)),
    );
    return recorder;
  }

  test('a recordings folder that is a file, or can never be made, is told with its path', async () => {
    const { directory } = await prepare({});
    const file = path.join(directory, 'a-file');
    await writeFile(file, '');
    // The kernel's own folders take no new ones, whoever asks.
    for (const folder of [file, path.join(file, 'below'), '/proc/recordings']) {
      const { code, text } = await ends(await recordingTo(folder));
      assert.equal(code, CONFIGURATION, text);
      assert.ok(text.includes(folder), text);
    }
  });

  test('a recordings folder that cannot be written is told, as a failing disk only if it is one', async () => {
    // Of the kernel's folders this one may be a read-only file system, or just not ours to write.
    const refusal = await writeFile('/sys/recordings', '').catch(({ code }) => code);
    assert.ok(refusal, 'a file was made in /sys');
    const { code, text } = await ends(await recordingTo('/sys'));
    assert.equal(code, refusal === 'EROFS' ? TRANSIENT : CONFIGURATION, `${refusal}: ${text}`);
    assert.ok(text.includes('/sys'), text);
  });

  test('a recordings folder that is missing is made, for the recorder and its group', async () => {
    const { directory } = await prepare({});
    const folder = path.join(directory, 'not', 'there', 'yet');
    const recorder = await recordingTo(folder);
    await recorder.start();
    assert.equal((await stat(folder)).mode & 0o777, 0o750);
    await recorder.stop();
  });

  test('with less space than the reserve it runs, and a call is rejected with the reason', async () => {
    const account = await world.synapse.createUser('full');
    const changes = { recordings: { reserve: '9000 TiB' }, matrix: { allow: ['@lea:localhost'] } };
    const recorder = await prepare(changes, account);
    await recorder.start();
    const lea = await world.caller('lea');
    const room = await lea.roomWith(account.userId);
    await lea.do('placeCall', room, {});
    await lea.do('waitForState', 'ended', 15_000);
    await until('the reason in the room', async () =>
      (await lea.do('messages', room)).some(
        ({ sender, content }) => sender === account.userId && /disk is full/.test(content.body ?? ''),
      ),
    );
    assert.equal((await recorder.totals()).calls_refused_disk_full, 1);
    assert.equal((await recorder.status()).storage.level, 'all_stopped');
    assert.deepEqual((await readdir(recorder.recordings)).filter((name) => !name.startsWith('.')), []);
    await recorder.stop();
    await lea.close();
  });

  test('a store that another recorder uses is refused', async () => {
    const { code, text } = await ends(
      await prepare({ matrix: { store: path.join(world.recorder.directory, 'store') } }),
    );
    assert.ok([TRANSIENT, CONFIGURATION].includes(code), `${code} ${text}`);
    assert.match(text, /store/);
  });

  test('a recordings folder that another recorder uses is refused', async () => {
    const { code, text } = await ends(
      await prepare({ recordings: { directory: world.recorder.recordings } }),
    );
    assert.ok([TRANSIENT, CONFIGURATION].includes(code), `${code} ${text}`);
    assert.match(text, /another recorder/);
  });

  test('ports that are taken are named', async () => {
    const tcp = net.createServer().listen(0, '127.0.0.1');
    const udp = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await Promise.all(
      [tcp, udp].map((socket) => new Promise((resolve) => socket.once('listening', resolve))),
    );
    try {
      const page = await ends(await prepare({ web: { listen: `127.0.0.1:${tcp.address().port}` } }));
      assert.equal(page.code, TRANSIENT, page.text);
      assert.ok(page.text.includes(String(tcp.address().port)), page.text);
      const media = await ends(await prepare({ rtc: { udp_port: udp.address().port } }));
      assert.equal(media.code, TRANSIENT, media.text);
      assert.ok(media.text.includes(String(udp.address().port)), media.text);
    } finally {
      tcp.close();
      udp.close();
    }
  });

  test('a token revoked in mid-call fails readiness, and the recording goes on', async () => {
    const kim = await world.caller('kim');
    const { callId } = await kim.call(await kim.roomWith(world.recorderId));
    await seconds(1);
    const api = await world.synapse.login(world.account, 'owner');
    await api.request('POST', '/logout/all', {});
    await until(
      'readiness to fail',
      async () => (await fetch(`${world.recorder.url}/readyz`)).status === 503,
      { timeoutMs: 45_000 },
    );
    const size = async () =>
      (await world.recorder.calls())[0].participants[0].tracks.map(({ bytes }) => bytes);
    const [before] = await size();
    await until('more sound on disk', async () => (await size())[0] > before + 10_000);
    assert.equal(await kim.do('state'), 'connected');
    const { ms } = await world.recorder.stop();
    assert.ok(ms <= 6000, `it took ${ms} ms to end`);
    await world.session(callId);
    await kim.close();
  });
});
