// The caller page: bundled once, served on loopback (a secure context, so that browsers allow cryptography and media).

import { build } from 'esbuild';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const types = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' };

export async function bundle(output = path.join(here, 'dist')) {
  await mkdir(path.join(output, 'pkg'), { recursive: true });
  await build({
    entryPoints: [path.join(here, 'page/caller.js'), path.join(here, 'page/truth_worker.js')],
    outdir: output,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    define: { global: 'globalThis', 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  const wasm = '@matrix-org/matrix-sdk-crypto-wasm';
  const folder = path.dirname(createRequire(import.meta.url).resolve(wasm));
  await copyFile(
    path.join(folder, 'pkg/matrix_sdk_crypto_wasm_bg.wasm'),
    path.join(output, 'pkg/matrix_sdk_crypto_wasm_bg.wasm'),
  );
  await copyFile(path.join(here, 'page/index.html'), path.join(output, 'index.html'));
  return output;
}

/** Serves a folder; returns {url, close}. */
export async function serve(folder) {
  const server = createServer(async (request, response) => {
    const name = path.normalize(new URL(request.url, 'http://x').pathname).replace(/\/$/, '/index.html');
    try {
      const body = await readFile(path.join(folder, name));
      response.writeHead(200, { 'content-type': types[path.extname(name)] ?? 'application/octet-stream' });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
