// A Synapse of our own on loopback: SQLite, no federation, no rate limits in the way.

import { createHmac, randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { MatrixApi } from './matrix_api.mjs';
import { Child, freePort, until } from './processes.mjs';

const python = fileURLToPath(new URL('../../.cache/synapse-venv/bin/python', import.meta.url));

export class Synapse {
  /** Starts one with its data in `directory`. `turn`: {uris, sharedSecret} handed to clients. */
  static async start(directory, { turn, serverName = 'localhost' } = {}) {
    const synapse = new Synapse();
    synapse.directory = directory;
    synapse.serverName = serverName;
    synapse.turn = turn;
    synapse.secret = randomBytes(16).toString('hex');
    synapse.port = await freePort();
    synapse.url = `http://127.0.0.1:${synapse.port}`;
    await mkdir(directory, { recursive: true });
    const key = randomBytes(32).toString('base64').replace(/=+$/, '');
    await writeFile(path.join(directory, 'signing.key'), `ed25519 a_test ${key}\n`);
    await synapse.#writeConfiguration();
    await synapse.run();
    return synapse;
  }

  async #writeConfiguration() {
    const fast = { per_second: 10_000, burst_count: 10_000 };
    const configuration = {
      server_name: this.serverName,
      public_baseurl: `${this.url}/`,
      pid_file: path.join(this.directory, 'synapse.pid'),
      signing_key_path: path.join(this.directory, 'signing.key'),
      media_store_path: path.join(this.directory, 'media'),
      log_config: path.join(this.directory, 'log.yaml'),
      listeners: [
        {
          port: this.port,
          bind_addresses: ['127.0.0.1'],
          type: 'http',
          tls: false,
          resources: [{ names: ['client'] }],
        },
      ],
      database: { name: 'sqlite3', args: { database: path.join(this.directory, 'homeserver.db') } },
      registration_shared_secret: this.secret,
      macaroon_secret_key: this.secret,
      form_secret: this.secret,
      report_stats: false,
      suppress_key_server_warning: true,
      trusted_key_servers: [],
      federation_domain_whitelist: [],
      enable_metrics: false,
      presence: { enabled: false },
      bcrypt_rounds: 4,
      rc_message: fast,
      rc_registration: fast,
      rc_login: { address: fast, account: fast, failed_attempts: fast },
      rc_joins: { local: fast, remote: fast },
      rc_joins_per_room: fast,
      rc_invites: { per_room: fast, per_user: fast, per_issuer: fast },
      rc_admin_redaction: fast,
      ...(this.turn && {
        turn_uris: this.turn.uris,
        turn_shared_secret: this.turn.sharedSecret,
        turn_user_lifetime: '1h',
        turn_allow_guests: false,
      }),
    };
    const log = {
      version: 1,
      formatters: { plain: { format: '%(asctime)s %(levelname)s %(name)s %(message)s' } },
      handlers: {
        file: {
          class: 'logging.FileHandler',
          formatter: 'plain',
          filename: path.join(this.directory, 'synapse.log'),
        },
      },
      root: { level: 'WARNING', handlers: ['file'] },
      disable_existing_loggers: false,
    };
    // JSON is YAML.
    await writeFile(path.join(this.directory, 'homeserver.yaml'), JSON.stringify(configuration, null, 2));
    await writeFile(path.join(this.directory, 'log.yaml'), JSON.stringify(log));
  }

  /** Starts the process over the same data and port; after `stop` or `kill` this is the end of an outage. */
  async run() {
    this.child = new Child(
      'synapse',
      python,
      ['-m', 'synapse.app.homeserver', '--config-path', path.join(this.directory, 'homeserver.yaml')],
      { cwd: this.directory, log: path.join(this.directory, 'synapse.out') },
    );
    await until(
      'Synapse to answer',
      async () => {
        if (!this.child.alive) {
          throw Object.assign(new Error(`Synapse ended:\n${this.child.tail.slice(-20).join('\n')}`), {
            fatal: true,
          });
        }
        return (await fetch(`${this.url}/_matrix/client/versions`)).ok;
      },
      { timeoutMs: 60_000, everyMs: 100 },
    );
  }

  async stop() {
    await this.child.stop('SIGTERM', 3_000);
  }

  async kill() {
    await this.child.stop('SIGKILL');
  }

  /** Registers a user and logs in: an API handle with `userId`, `deviceId`, `accessToken`, `password`. */
  async createUser(name, { password = randomBytes(12).toString('hex'), admin = false } = {}) {
    const register = `${this.url}/_synapse/admin/v1/register`;
    const { nonce } = await (await fetch(register)).json();
    const mac = createHmac('sha1', this.secret)
      .update([nonce, name, password, admin ? 'admin' : 'notadmin'].join('\0'))
      .digest('hex');
    const response = await fetch(register, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ nonce, username: name, password, admin, mac, inhibit_login: true }),
    });
    if (!response.ok) throw new Error(`registering ${name}: ${response.status} ${await response.text()}`);
    const { user_id } = await response.json();
    return { userId: user_id, name, password };
  }

  /** A user with a plain device, driven without any client library. */
  async login({ userId, password }, deviceName) {
    return MatrixApi.login(this.url, userId, password, deviceName);
  }
}
