// The manifest against its published schema (JSON Schema, draft 2020-12).

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

export const schemaFile = fileURLToPath(new URL('../../docs/session.schema.json', import.meta.url));

/** Complaints about a manifest. `schema`: parsed, or read from the documentation folder. */
export async function schemaProblems(manifest, schema) {
  schema ??= JSON.parse(await readFile(schemaFile, 'utf8'));
  // The libraries are those of the harness beside us.
  const require = createRequire(new URL('../e2e/package.json', import.meta.url));
  const Ajv = require('ajv/dist/2020').default;
  const validate = new Ajv({ allErrors: true, strict: false, validateFormats: false }).compile(schema);
  if (validate(manifest)) return [];
  return validate.errors
    .slice(0, 20)
    .map(({ instancePath, message }) => `session.json ${instancePath} ${message}`);
}
