// The ledger of a segment: every packet that arrived has exactly one fate.

export const FATES = [
  'written',
  'duplicate',
  'padding',
  'late',
  'before_key_frame',
  'incomplete_frame',
  'other_layer',
  'undecryptable',
  'opted_out',
  'injected',
  'dropped_by_us',
];

const count = (ledger, name) => ledger?.[name] ?? 0;

/** Complaints about one ledger, in words. */
export function ledgerProblems(ledger, { mayDrop = false } = {}) {
  const problems = [];
  for (const name of ['received', 'recovered', 'lost', ...FATES]) {
    const value = ledger?.[name];
    if (value !== undefined && !(Number.isInteger(value) && value >= 0)) problems.push(`${name} is ${value}`);
  }
  if (ledger?.received === undefined || ledger?.written === undefined)
    problems.push('received or written is missing');
  const sum = FATES.reduce((total, name) => total + count(ledger, name), 0);
  if (sum !== count(ledger, 'received'))
    problems.push(`received ${count(ledger, 'received')} but fates add up to ${sum}`);
  if (!mayDrop && count(ledger, 'dropped_by_us') > 0)
    problems.push(`${ledger.dropped_by_us} packets dropped by us`);
  return problems;
}

/** How many frames may be missing from a file at most: a missing frame has at least one packet that was not written. */
export function explainedByLedger(ledger) {
  return [
    'lost',
    'late',
    'before_key_frame',
    'incomplete_frame',
    'other_layer',
    'undecryptable',
    'opted_out',
    'dropped_by_us',
  ].reduce((total, name) => total + count(ledger, name), 0);
}
