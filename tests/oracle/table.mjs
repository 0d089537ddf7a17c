// Results for people.

const kilobytes = (bytes) => (bytes === undefined ? '' : `${(bytes / 1000).toFixed(0)} kB`);

/** A table of what was recorded, as text. */
export function table(rows) {
  const columns = [
    ['participant', (row) => row.participant],
    ['source', (row) => row.source],
    ['codec', (row) => row.codec],
    ['duration', (row) => `${row.seconds.toFixed(1)} s`],
    ['frames', (row) => String(row.frames)],
    ['size', (row) => kilobytes(row.size)],
    ['lost', (row) => String(row.lost)],
    ['missing', (row) => (row.missing === undefined ? '' : String(row.missing))],
    ['file', (row) => row.file],
  ];
  const cells = [columns.map(([name]) => name), ...rows.map((row) => columns.map(([, of]) => of(row)))];
  const widths = columns.map((_, at) => Math.max(...cells.map((line) => line[at].length)));
  return cells
    .map((line) =>
      line
        .map((cell, at) => cell.padEnd(widths[at]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
