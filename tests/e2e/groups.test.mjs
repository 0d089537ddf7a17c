// Group calls of matrix-js-sdk's GroupCall, recorded by command and judged on content.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import { Gathering, firstMedia, median, open, sources } from './gathering.mjs';
import { seconds } from './expect.mjs';
import { leave, until } from './processes.mjs';
import { World } from './world.mjs';

describe('group calls', () => {
  let world;

  before(async () => {
    world = await World.start({ changes: { group: { empty_after_seconds: 5, contact: '@boss:localhost' } } });
  });
  after(() => leave());

  test('two people are recorded by command and told so', async () => {
    const [ada, tess] = await open(world, 'ada', 'tess');
    const call = await Gathering.open(world, ada, [tess], { name: 'Küche' });
    const name = await ada.do('nameOf', call.room, world.recorderId);
    await call.join(ada, tess);
    await Promise.all([ada.do('connectedTo', tess.userId), tess.do('connectedTo', ada.userId)]);
    const begun = await call.start();
    await Promise.all([ada, tess].map((one) => one.do('connectedTo', world.recorderId)));
    await seconds(6);
    const tile = await ada.do('tile', world.recorderId);
    console.log('  tile', { ...tile, png: tile.png.length });
    const stopped = await call.stop();
    await call.takeTruth();
    console.log(JSON.stringify(stopped.manifest, null, 1));
    for (const event of await ada.do('messages', call.room)) console.log(event.sender, event.type, JSON.stringify(event.content).slice(0, 300));
    console.log(await ada.do('legs'), name, begun, firstMedia, median, sources, writeFile, until);
    await call.assertRight(stopped);
  });
});
