// A caller seen from the test: each method runs in a page of its own.

import { appendFile } from 'node:fs/promises';

export class Caller {
  /** Opens the page in `browser` (of browsers.mjs) and logs `user` in. */
  static async open(browser, pageUrl, homeserver, user, options = {}) {
    const caller = new Caller();
    caller.browser = browser;
    caller.user = user;
    caller.console = [];
    // A context each, as if each had a browser: callers that share a cache wait for each other's equal requests.
    caller.context = await browser.browser.createBrowserContext();
    caller.page = await caller.context.newPage();
    caller.page.on('console', (message) => {
      caller.console.push(`${message.type()}: ${message.text()}`);
      if (caller.console.length > 500) caller.console.shift();
    });
    caller.page.on('pageerror', (error) => caller.console.push(`page error: ${error.message}`));
    await caller.page.goto(pageUrl);
    await caller.page.waitForFunction('window.callerReady === true', { timeout: 20_000 });
    const { userId, deviceId } = await caller.do('login', {
      url: homeserver,
      userId: user.userId,
      password: user.password,
      ...options,
    });
    caller.userId = userId;
    caller.deviceId = deviceId;
    return caller;
  }

  /** Calls `window.caller[method]` in the page. */
  async do(method, ...args) {
    try {
      return await this.page.evaluate((name, given) => window.caller[name](...given), method, args);
    } catch (error) {
      error.message = `${this.user.userId} ${method}: ${error.message}\n${this.console.slice(-8).join('\n')}`;
      throw error;
    }
  }

  /** A room of our own with `guest` in it, ready for a call. */
  async roomWith(guest, { encrypted = false, name } = {}) {
    const roomId = await this.do('createRoom', { invite: [guest], encrypted, name });
    await this.do('waitForJoin', roomId, guest, 20_000);
    return roomId;
  }

  /** Places a call and waits until this client shows it connected; milliseconds from the click. */
  async call(roomId, media = {}) {
    const start = performance.now();
    const callId = await this.do('placeCall', roomId, media);
    await this.do('waitForState', 'connected', 20_000);
    return { callId, connectedMs: performance.now() - start };
  }

  /** Adds what was sent since the last time to a JSON-lines file; the number of frames. */
  async appendTruth(file) {
    const lines = await this.do('truth');
    if (!lines) return 0;
    await appendFile(file, `${lines}\n`);
    return lines.split('\n').length;
  }

  /** The same for what was sent to `user` in group calls. */
  async appendGroupTruth(file, user) {
    const lines = await this.do('groupTruth', user);
    if (lines) await appendFile(file, `${lines}\n`);
  }

  /** Ends the page as a killed browser does: nobody is told. */
  async crash() {
    const session = await this.page.createCDPSession();
    session.send('Page.crash').catch(() => {});
    await new Promise((resolve) => this.page.once('error', resolve));
    this.context.close().catch(() => {});
  }

  /** Adds one line of our own to such a file. */
  async note(file, entry) {
    await appendFile(file, `${JSON.stringify(entry)}\n`);
  }

  async close() {
    await this.do('logout').catch(() => {});
    await this.context.close().catch(() => {});
  }
}
