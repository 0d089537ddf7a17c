// Browsers as callers use them, headless, with nothing but loopback to talk to.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import puppeteer from 'puppeteer-core';

const chromiumArguments = [
  '--no-sandbox',
  '--disable-gpu',
  '--allow-loopback-in-peer-connection',
  '--disable-features=WebRtcHideLocalIpsWithMdns,CalculateNativeWinOcclusion',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-quic',
  '--no-first-run',
  // Several callers share one browser: none may be slowed for being out of sight.
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
  '--disable-background-timer-throttling',
];

const firefoxPreferences = {
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.peerconnection.ice.no_host': false,
  'media.peerconnection.ice.default_address_only': false,
  'media.navigator.permission.disabled': true,
  // Without a sound card an AudioContext would stay suspended for ever.
  'media.cubeb.force_mock_context': true,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'media.gmp-manager.updateEnabled': false,
  'app.update.enabled': false,
};

/** Starts `chromium` or `firefox`; `close()` ends it and removes its profile. */
export async function launch(name = 'chromium') {
  const profile = await mkdtemp(path.join(tmpdir(), `caller-${name}-`));
  const common = {
    headless: true,
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    userDataDir: profile,
  };
  const browser = await (name === 'firefox'
    ? puppeteer.launch({
        ...common,
        browser: 'firefox',
        executablePath: process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr',
        extraPrefsFirefox: firefoxPreferences,
      })
    : puppeteer.launch({
        ...common,
        executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
        args: chromiumArguments,
      }));
  return {
    name,
    browser,
    async close() {
      const child = browser.process();
      const ended = new Promise((resolve) =>
        child.exitCode === null ? child.once('exit', resolve) : resolve(),
      );
      await Promise.race([
        browser.close().catch(() => {}),
        new Promise((resolve) => setTimeout(resolve, 5_000).unref()),
      ]);
      if (child.exitCode === null) child.kill('SIGKILL');
      await ended;
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
