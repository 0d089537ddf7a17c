// Panics on cue in the tree of a live call. Needs a recorder built with the feature `fault-injection`.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import { assertRight, seconds, segmentsOf } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

describe('faults in a live call', () => {
  let world;

  before(async () => {
    world = await World.start();
  });
  beforeEach(() => world.recorder.ensure());
  after(() => leave());

  /** Generation and restarts of every actor: {path: {generation, restarts, …}}. */
  async function tree() {
    const found = {};
    const walk = (node) => {
      found[node.path] = node;
      node.children.forEach(walk);
    };
    (await world.recorder.actors()).forEach(walk);
    return found;
  }

  /** Paths of supervisor, call, peer and both writers of the only call, once they are there. */
  const bothWriters = () =>
    until('both writers', async () => {
      const paths = Object.keys(await tree());
      return paths.length === 5 && paths;
    });

  const generations = (actors) =>
    Object.fromEntries(Object.entries(actors).map(([path, { generation }]) => [path, generation]));

  const restartsInMetrics = async () => {
    const text = await (await fetch(`${world.recorder.url}/metrics`)).text();
    return Number(/^recorder_actor_restarts_total (\d+)$/m.exec(text)[1]);
  };

  /**
   * Injects a panic at `point` of `path`, does what makes it be met, and asserts that within a second the tree, the page and
   * the metrics show the next generation of `restarts` and of nobody else.
   */
  async function panics(point, path, restarts, meet = async () => {}) {
    const was = await tree();
    const counted = await restartsInMetrics();
    await world.recorder.fault({ point, who: path });
    await meet();
    await until('the panic', async () => (await world.recorder.faults()).length === 0, { everyMs: 20 });
    const met = Date.now();
    const now = await until(
      `the next generation of ${restarts}`,
      async () => {
        const actors = await tree();
        const { generation, state } = actors[restarts];
        return generation === was[restarts].generation + 1 && state === 'running' && actors;
      },
      { timeoutMs: 5000, everyMs: 20 },
    );
    const took = Date.now() - met;
    // What is in the tree then is on the page and in the metrics as well.
    const page = await (await fetch(world.recorder.url)).text();
    const metrics = await restartsInMetrics();
    assert.ok(took <= 1000, `${point}: shown after ${took} ms`);
    assert.equal(metrics, counted + 1, `${point}: the metrics`);
    assert.match(page, new RegExp(`generation ${now[restarts].generation}, restarted`), `${point}: the page`);
    assert.match(now[restarts].last_error, /injected fault/, point);
    assert.deepEqual(
      generations(now),
      { ...generations(was), [restarts]: was[restarts].generation + 1 },
      `${point}: a sibling is not as it was`,
    );
  }

  test('a panic in any actor ends no file, one in the pump costs its track the next segment', async () => {
    const ada = await world.caller('ada');
    const room = await ada.roomWith(world.recorderId);
    const { callId } = await ada.call(room);
    const [, call] = await bothWriters();
    const peer = `${call}/p1`;
    const camera = `${peer}/p1-camera-1`;
    const microphone = `${peer}/p1-microphone-1`;
    await seconds(2);
    const mute = (on) => () => ada.do('muteMicrophone', on);

    await panics('writer', camera, camera);
    await panics('writer', microphone, microphone);
    await panics('peer', peer, peer);
    // Both meet it with the next event, which is lost to them.
    await panics('call', call, call, mute(true));
    await panics('supervisor', 'supervisor', 'supervisor', mute(false));
    await seconds(1);
    assert.equal((await tree())[call].state, 'running');
    const { manifest: before } = await world.session(callId, () => true);
    assert.deepEqual(
      segmentsOf(before).map(({ opened_because }) => opened_because),
      ['first', 'first'],
      'no control actor ends a segment',
    );

    await panics('pump', camera, camera);
    await seconds(2);
    const { directory, manifest } = await world.hangUp(ada, callId);
    assert.equal(manifest.end_reason, 'hangup');
    assert.deepEqual(
      segmentsOf(manifest, 'camera').map(({ opened_because }) => opened_because),
      ['first', 'writer_restarted'],
    );
    assert.deepEqual(
      segmentsOf(manifest, 'microphone').map(({ opened_because }) => opened_because),
      ['first'],
    );
    assert.equal((await world.recorder.totals()).packets_dropped_by_us, 0);
    // The frames before the key frame that the next segment begins with may hold a flash.
    await assertRight(world, directory, { content: false });
    await ada.close();
  });

  test('a disk that fails under one file costs its track the next segment and nobody else anything', async () => {
    const ben = await world.caller('ben');
    const { callId } = await ben.call(await ben.roomWith(world.recorderId));
    const [, call] = await bothWriters();
    const [camera, microphone] = [`${call}/p1/p1-camera-1`, `${call}/p1/p1-microphone-1`];
    await seconds(2);
    const was = generations(await tree());
    await world.recorder.fault({ point: 'disk_write', who: 'microphone', fault: 'error' });
    await until('the next generation', async () => (await tree())[microphone].generation === 2);
    await seconds(2);
    assert.equal(generations(await tree())[camera], was[camera]);
    const { directory, manifest } = await world.hangUp(ben, callId);
    assert.deepEqual(
      segmentsOf(manifest, 'microphone').map(({ opened_because }) => opened_because),
      ['first', 'writer_restarted'],
    );
    assert.equal(segmentsOf(manifest, 'camera').length, 1);
    // What the disk refused may have held a beep.
    await assertRight(world, directory, { mayDrop: true, content: false });
    await ben.close();
  });

  /** The process ends by itself with the status that a service manager starts again; a fresh one hangs up and takes calls. */
  async function endsInOrder(caller, room, callId, patience) {
    const { code } = await Promise.race([world.recorder.child.ended, seconds(patience).then(() => ({}))]);
    assert.equal(code, 70);
    await world.recorder.start();
    await caller.do('waitForState', 'ended', 10_000);
    const { directory, manifest } = await world.session(callId);
    await caller.appendTruth(world.truthFile);
    const next = await caller.call(room);
    await seconds(1);
    const { manifest: then } = await world.hangUp(caller, next.callId);
    assert.equal(then.state, 'complete');
    await caller.close();
    return { directory, manifest };
  }

  for (const [point, name] of [
    ['media_loop', 'cleo'],
    ['pump', 'dora'],
  ]) {
    test(`a thread that hangs (${point}) ends the process in order, and a fresh one goes on`, async () => {
      const caller = await world.caller(name);
      const room = await caller.roomWith(world.recorderId);
      const { callId } = await caller.call(room);
      await seconds(3);
      const stalledAt = Date.now();
      await world.recorder.fault({ point, fault: 'stall' });
      const { directory } = await endsInOrder(caller, room, callId, 40);
      // What came before the thread stood still is there; a repair does not count what it finds beyond the journal.
      await assertRight(world, directory, { endedAt: stalledAt, trailingMs: 1500, content: false });
    });
  }

  test('a supervisor that fails twice ends the process in order, and its calls end complete', async () => {
    const emil = await world.caller('emil');
    const room = await emil.roomWith(world.recorderId);
    const { callId } = await emil.call(room);
    await seconds(2);
    await world.recorder.fault({ point: 'supervisor', times: 2 });
    const endedAt = Date.now();
    await emil.do('muteMicrophone', true);
    await until('the first panic', async () => (await tree()).supervisor.generation === 2);
    await emil.do('muteMicrophone', false);
    const { directory, manifest } = await endsInOrder(emil, room, callId, 30);
    assert.equal(manifest.end_reason, 'shutdown');
    assert.deepEqual(manifest.recoveries, [], 'nothing was left to repair');
    await assertRight(world, directory, { endedAt, content: false });
  });
});
