// From a file's media time to session time by the manifest's clock map.

/** Session seconds of media second `at`, on the piecewise linear map; beyond its ends the last slope goes on. */
export function sessionTime(map, at) {
  if (map.length === 1) return map[0].session_s + (at - map[0].media_s);
  let low = 0;
  while (low < map.length - 2 && map[low + 1].media_s <= at) low += 1;
  const [a, b] = [map[low], map[low + 1]];
  return a.session_s + ((at - a.media_s) * (b.session_s - a.session_s)) / (b.media_s - a.media_s);
}

export function clockProblems(segment) {
  const map = segment.clock_map;
  if (!Array.isArray(map) || map.length === 0) return ['clock_map is empty'];
  const problems = [];
  for (let i = 1; i < map.length; i += 1) {
    if (!(map[i].media_s > map[i - 1].media_s && map[i].session_s > map[i - 1].session_s)) {
      problems.push(`clock_map does not rise at point ${i}`);
    }
  }
  if (problems.length === 0 && Math.abs(sessionTime(map, 0) - segment.start_s) > 0.000_002) {
    problems.push(`start_s ${segment.start_s} is not the map at 0 (${sessionTime(map, 0)})`);
  }
  if (segment.start_s < 0) problems.push('start_s lies before the epoch');
  return problems;
}
