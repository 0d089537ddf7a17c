// The client-server API by hand: for what no well-behaved client library would send.

import { randomUUID } from 'node:crypto';

export class MatrixApi {
  static async login(url, userId, password, deviceName = 'raw') {
    const api = new MatrixApi();
    api.url = url;
    const answer = await api.request('POST', '/login', {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: userId },
      password,
      initial_device_display_name: deviceName,
    });
    api.userId = answer.user_id;
    api.deviceId = answer.device_id;
    api.accessToken = answer.access_token;
    return api;
  }

  async request(method, path, body) {
    const response = await fetch(`${this.url}/_matrix/client/v3${path}`, {
      method,
      headers: {
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...(this.accessToken && { authorization: `Bearer ${this.accessToken}` }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) {
      throw Object.assign(new Error(`${method} ${path}: ${response.status} ${text}`), {
        status: response.status,
      });
    }
    return text ? JSON.parse(text) : {};
  }

  async createRoom(options = {}) {
    const { room_id } = await this.request('POST', '/createRoom', {
      preset: 'trusted_private_chat',
      ...options,
    });
    return room_id;
  }

  /** Sends a room event as given, encrypted or not being the caller's affair. Returns its id. */
  async send(roomId, type, content) {
    const path = `/rooms/${encodeURIComponent(roomId)}/send/${encodeURIComponent(type)}/${randomUUID()}`;
    return (await this.request('PUT', path, content)).event_id;
  }

  async join(roomId) {
    await this.request('POST', `/join/${encodeURIComponent(roomId)}`, {});
  }

  async leaveRoom(roomId) {
    await this.request('POST', `/rooms/${encodeURIComponent(roomId)}/leave`, {});
  }

  /** user id -> membership */
  async members(roomId) {
    const { chunk } = await this.request('GET', `/rooms/${encodeURIComponent(roomId)}/members`);
    return new Map(chunk.map((event) => [event.state_key, event.content.membership]));
  }

  /** The newest events of a room, newest first. */
  async recent(roomId, limit = 50) {
    const path = `/rooms/${encodeURIComponent(roomId)}/messages?dir=b&limit=${limit}`;
    return (await this.request('GET', path)).chunk;
  }
}
